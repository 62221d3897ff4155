package cache

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
)

// setStatus adds this edge's member to the Cache-Status from upstream (RFC 9211).
func (s *Cache) setStatus(h http.Header, upstream []string, st httpcache.Status) {
	var b [256]byte
	h["Cache-Status"] = append(upstream[:len(upstream):len(upstream)], string(st.Append(b[:0], s.Name)))
}

// via adds this edge to the Via field of a message that was received by a version of HTTP (RFC
// 9110, 7.6.3).
func (s *Cache) via(h http.Header, major, minor int) {
	via := s.via11
	switch {
	case major > 1:
		via = strconv.Itoa(major) + " " + s.Name
	case major != 1 || minor != 1:
		via = strconv.Itoa(major) + "." + strconv.Itoa(minor) + " " + s.Name
	}
	lines := h["Via"]
	h["Via"] = append(lines[:len(lines):len(lines)], via)
}

// setHeader copies the stored fields to a response.
func (x *exchange) setHeader(h http.Header, stored *httpcache.Stored) {
	for name, lines := range stored.Header {
		h[name] = lines
	}
	x.hideEdgeFields(h)
}

// reply is a response that is ready to be sent, except for its body.
type reply struct {
	stored  *httpcache.Stored
	entry   *entry // whose body content has; nil if it isn't stored as a whole
	content content
	size    int64 // of the representation, -1 if unknown
	status  httpcache.Status
	// age means that the response needs Age, because the origin did not just send it (RFC 9111,
	// 5.1).
	age     bool
	without []string    // fields that must not be sent
	private http.Header // fields for this client alone
}

// respond sends the parts of the representation that the request is for. It returns an error, with
// nothing sent, if the body can't be read. An error in the middle of the body closes the
// connection, so that the client never takes a part for the whole.
func (s *Cache) respond(x *exchange, a reply) error {
	s.code(x, &a)
	parts, status := selectParts(x.r, a.stored, a.size)
	bodyless := x.r.Method == http.MethodHead || status == http.StatusNotModified || status == http.StatusNoContent ||
		status == http.StatusRequestedRangeNotSatisfiable || a.size == 0
	defer a.content.close()
	ctx := x.r.Context()
	if f, ok := a.content.(*fragmentContent); ok && !bodyless && status == http.StatusOK {
		// Before anything is sent, the first missing bytes must turn out to be of the same
		// representation.
		if err := f.probe(ctx, parts[0]); err != nil {
			return err
		}
	}
	if !bodyless {
		if err := a.content.open(ctx, parts[0]); err != nil {
			return err
		}
	}
	h := x.w.Header()
	x.setHeader(h, a.stored)
	for _, name := range a.without {
		delete(h, name)
	}
	for name, lines := range a.private {
		h[name] = lines
	}
	s.setPurgePosition(x, h)
	upstream := h["Cache-Status"]
	if a.status.Hit {
		upstream = nil // upstream took no part in this request
	}
	s.setStatus(h, upstream, a.status)
	if a.age {
		h["Age"] = []string{strconv.FormatInt(int64(a.stored.Age(time.Now())/time.Second), 10)}
	}
	x.w.SetCache(a.status)
	heads := setPart(h, status, parts, a.size)
	x.w.WriteHeader(status)
	if bodyless {
		return nil
	}
	for i, part := range parts {
		if i > 0 {
			if err := a.content.open(ctx, part); err != nil {
				panic(http.ErrAbortHandler)
			}
		}
		if len(heads) > 0 {
			if _, err := x.w.Write([]byte(heads[i])); err != nil {
				panic(http.ErrAbortHandler)
			}
		}
		if err := a.content.copyTo(ctx, x.w); err != nil {
			s.Log.Debug("response cut", "url", x.url(), "error", err)
			panic(http.ErrAbortHandler)
		}
	}
	if len(heads) > len(parts) {
		_, _ = x.w.Write([]byte(heads[len(parts)]))
	}
	return nil
}

// selectParts returns the parts of a representation that answer a request, and the status. size is
// -1 if it is unknown.
func selectParts(r *http.Request, stored *httpcache.Stored, size int64) ([]httpcache.Range, int) {
	whole := []httpcache.Range{{Start: 0, Length: size}}
	if stored.NotModified(r.Header) {
		return whole, http.StatusNotModified
	}
	field := r.Header["Range"]
	if len(field) != 1 || r.Method != http.MethodGet || stored.Status != http.StatusOK || size < 0 ||
		!stored.IfRange(r.Header) {
		return whole, stored.Status
	}
	ranges, ok := httpcache.ParseRanges(field[0], size)
	var total int64
	for _, part := range ranges {
		total += part.Length
	}
	switch {
	case !ok, total > size: // ranges that overlap to more than the whole are an attack or a mistake (RFC 9110, 14.2)
		return whole, stored.Status
	case len(ranges) == 0:
		return whole, http.StatusRequestedRangeNotSatisfiable
	}
	return ranges, http.StatusPartialContent
}

// aboutBody are the fields that a 304 doesn't have (RFC 9110, 15.4.5).
var aboutBody = []string{"Content-Length", "Content-Type", "Content-Encoding", "Content-Language", "Content-Range"}

// setPart sets the fields that describe the sent parts of a representation of size bytes. For
// several parts it returns the separators before each part and after the last (RFC 9110, 14.6).
func setPart(h http.Header, status int, parts []httpcache.Range, size int64) []string {
	length := size
	var heads []string
	switch {
	case status == http.StatusNotModified:
		for _, name := range aboutBody {
			delete(h, name)
		}
		return nil
	case status == http.StatusNoContent:
		length = -1
		delete(h, "Content-Length")
	case status == http.StatusRequestedRangeNotSatisfiable:
		h.Set("Content-Range", "bytes */"+strconv.FormatInt(size, 10))
		length = 0
	case status == http.StatusPartialContent && len(parts) == 1:
		h.Set("Content-Range", contentRange(parts[0], size))
		length = parts[0].Length
	case status == http.StatusPartialContent:
		boundary := rand.Text()
		kind := ""
		if v := h.Get("Content-Type"); v != "" {
			kind = "Content-Type: " + v + "\r\n"
		}
		length = 0
		for _, part := range parts {
			heads = append(heads, "\r\n--"+boundary+"\r\n"+kind+"Content-Range: "+contentRange(part, size)+"\r\n\r\n")
			length += part.Length
		}
		heads = append(heads, "\r\n--"+boundary+"--\r\n")
		length += int64(len(strings.Join(heads, "")))
		h.Set("Content-Type", "multipart/byteranges; boundary="+boundary)
	}
	if length >= 0 {
		h.Set("Content-Length", strconv.FormatInt(length, 10))
	}
	return heads
}

func contentRange(part httpcache.Range, size int64) string {
	return fmt.Sprintf("bytes %d-%d/%d", part.Start, part.Start+part.Length-1, size)
}

// serveEntry answers from the store. It reports false, with nothing sent, if the store no longer
// has the body.
func (s *Cache) serveEntry(x *exchange, e *entry, st httpcache.Status, without []string) bool {
	a := reply{stored: e.Stored, size: e.length(), status: st, age: true, without: without}
	x.covered = e.object.Stale
	if e.size < 0 {
		a.entry, a.content = e, &objectContent{object: e.object}
		return s.respond(x, a) == nil
	}
	x.counts = true
	if !e.covers(x.r) {
		if e.StrongValidator() == "" {
			return false // without a strong validator, parts can't be joined (RFC 9110, 15.3.7.3)
		}
		a.status.Hit, a.status.Forward = false, "partial"
	}
	a.content = &fragmentContent{server: s, x: x, key: httpcache.Key(e.object.Key()), response: e.response}
	err := s.respond(x, a)
	if err == nil {
		return true
	}
	if errors.Is(err, errChanged) {
		return false
	}
	s.failUpstream(x, err, a.status)
	return true
}

// covers reports whether the stored fragments have all bytes that a request is for.
func (e *entry) covers(r *http.Request) bool {
	parts, status := selectParts(r, e.Stored, e.size)
	if r.Method == http.MethodHead || status != http.StatusOK && status != http.StatusPartialContent {
		return true
	}
	for _, want := range parts {
		for _, p := range httpcache.Plan(e.fragments, want) {
			if p.Key == "" {
				return false
			}
		}
	}
	return true
}

// serveFlight answers with a body that is being fetched. It reports false, with nothing sent, if
// the request needs bytes that can't be joined to that body.
func (s *Cache) serveFlight(x *exchange, f *flight, b body, st httpcache.Status) bool {
	x.dropDatedRange(b.answer, b.whole)
	a := reply{stored: b.answer, size: b.whole, status: st, private: b.private}
	if st.Collapsed {
		a.without = b.answer.Unvalidated()
	}
	if b.first == 0 && b.length == b.whole {
		a.content = &flightContent{flight: f}
		return s.respond(x, a) == nil
	}
	r := response{Stored: b.answer, size: b.whole}
	if b.answer.StrongValidator() == "" {
		alone := &entry{response: r}
		alone.fragments = []httpcache.Fragment{{Range: httpcache.Range{Start: b.first, Length: b.length},
			Key: b.meta.key()}}
		if !alone.covers(x.r) {
			return false
		}
	}
	c := &fragmentContent{server: s, x: x, key: b.meta.key(), response: r, flight: f}
	if e, _ := s.objects.find(x.key, x.r.Header); e != nil && e.size == r.size &&
		e.StrongValidator() == r.StrongValidator() {
		c.fragments = e.fragments
	}
	a.content = c
	err := s.respond(x, a)
	if errors.Is(err, errChanged) {
		return false
	}
	if err != nil {
		s.failUpstream(x, err, st)
	}
	return true
}
