package edge

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
)

// setStatus adds this edge's member to the Cache-Status that upstream had.
func (s *Server) setStatus(h http.Header, upstream []string, st httpcache.Status) {
	h["Cache-Status"] = append(upstream[:len(upstream):len(upstream)], string(st.Append(nil, s.Name)))
}

// via adds this edge to the Via field (RFC 9110, 7.6.3).
func (s *Server) via(h http.Header) {
	have := h["Via"]
	h["Via"] = append(have[:len(have):len(have)], "1.1 "+s.Name)
}

// aboutBody are the fields that a 304 is sent without (RFC 9110, 15.4.5).
var aboutBody = []string{"Content-Length", "Content-Type", "Content-Encoding", "Content-Language", "Content-Range"}

// setHeader copies the stored fields to a response.
func (s *Server) setHeader(h http.Header, stored *httpcache.Stored) {
	for name, lines := range stored.Header {
		h[name] = lines
	}
	if _, ok := h["Content-Type"]; !ok {
		h["Content-Type"] = nil // or net/http guesses one
	}
	s.via(h)
}

// serveEntry answers from the store; without are fields to be left out. It reports false, with nothing sent, if the body can't be read.
func (s *Server) serveEntry(x *exchange, e *entry, st httpcache.Status, without []string) bool {
	size := e.object.Size()
	part, status := selectPart(x.r, e.stored, size)
	if x.r.Method == http.MethodHead || status == http.StatusNotModified || status == http.StatusRequestedRangeNotSatisfiable {
		part.Length = 0
	}
	body, err := e.object.Open(part.Start, part.Length)
	if err != nil {
		return false
	}
	defer body.Close()
	h := x.w.Header()
	s.setHeader(h, e.stored)
	for _, name := range without {
		delete(h, name)
	}
	upstream := h["Cache-Status"]
	if st.Hit {
		upstream = nil // they had no part in this request
	}
	s.setStatus(h, upstream, st)
	h["Age"] = []string{strconv.FormatInt(int64(e.stored.Age(time.Now())/time.Second), 10)}
	x.w.cache = st
	writeHead(x, status, part, size)
	if part.Length == 0 {
		return true
	}
	if _, err := body.WriteTo(x.w); err != nil {
		panic(http.ErrAbortHandler) // the client sees the connection end, not a short body
	}
	return true
}

// selectPart says what of a body answers a request, and with which status. size is -1 if it isn't known yet.
func selectPart(r *http.Request, stored *httpcache.Stored, size int64) (httpcache.Range, int) {
	whole := httpcache.Range{Start: 0, Length: size}
	if stored.NotModified(r.Header) {
		return whole, http.StatusNotModified
	}
	field := r.Header["Range"]
	if len(field) != 1 || r.Method != http.MethodGet || stored.Status != http.StatusOK || size < 0 || !stored.IfRange(r.Header) {
		return whole, stored.Status
	}
	ranges, ok := httpcache.ParseRanges(field[0], size)
	switch {
	case !ok, len(ranges) > 1:
		return whole, stored.Status
	case len(ranges) == 0:
		return whole, http.StatusRequestedRangeNotSatisfiable
	}
	return ranges[0], http.StatusPartialContent
}

// writeHead sends the header block for a part of a body of size bytes.
func writeHead(x *exchange, status int, part httpcache.Range, size int64) {
	h := x.w.Header()
	switch status {
	case http.StatusNotModified:
		for _, name := range aboutBody {
			delete(h, name)
		}
	case http.StatusRequestedRangeNotSatisfiable:
		h.Set("Content-Range", "bytes */"+strconv.FormatInt(size, 10))
		h.Set("Content-Length", "0")
	case http.StatusPartialContent:
		h.Set("Content-Range", "bytes "+strconv.FormatInt(part.Start, 10)+"-"+
			strconv.FormatInt(part.Start+part.Length-1, 10)+"/"+strconv.FormatInt(size, 10))
		h.Set("Content-Length", strconv.FormatInt(part.Length, 10))
	case http.StatusNoContent:
		delete(h, "Content-Length")
	default:
		if size >= 0 {
			h.Set("Content-Length", strconv.FormatInt(size, 10))
		}
	}
	x.w.WriteHeader(status)
}

// serveFlight answers with a body that is being fetched, at the client's own pace.
func (s *Server) serveFlight(x *exchange, f *flight, b body, st httpcache.Status) {
	part, status := selectPart(x.r, b.stored, b.length)
	h := x.w.Header()
	s.setHeader(h, b.stored)
	s.setStatus(h, h["Cache-Status"], st)
	x.w.cache = st
	writeHead(x, status, part, b.length)
	if x.r.Method == http.MethodHead || status == http.StatusNotModified || status == http.StatusRequestedRangeNotSatisfiable || part.Length == 0 {
		return
	}
	r := f.follow(part.Start)
	defer r.unfollow()
	if err := copyFlight(x.r.Context(), x.w, r, part.Length); err != nil {
		panic(http.ErrAbortHandler)
	}
}

// copyFlight sends n bytes, or all if n is negative, each as soon as it is there.
func copyFlight(ctx context.Context, w http.ResponseWriter, r *follower, n int64) error {
	buf := copyBuffers.Get().(*[]byte)
	defer copyBuffers.Put(buf)
	flush := http.NewResponseController(w)
	for n != 0 {
		p := *buf
		if n > 0 && n < int64(len(p)) {
			p = p[:n]
		}
		got, caughtUp, err := r.read(ctx, p)
		if errors.Is(err, io.EOF) && n < 0 {
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := w.Write(p[:got]); err != nil {
			return err
		}
		if n > 0 {
			n -= int64(got)
		}
		if caughtUp {
			if err := flush.Flush(); err != nil {
				return err
			}
		}
	}
	return nil
}
