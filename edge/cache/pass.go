package cache

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/front"
	"github.com/kaiku-cdn/kaiku/edge/httpcache"
	"github.com/kaiku-cdn/kaiku/edge/purge"
	"github.com/kaiku-cdn/kaiku/origin"
	"github.com/kaiku-cdn/kaiku/storage"
)

// cdnLoop is the field to which each edge on the way adds itself (RFC 8586).
const cdnLoop = "Cdn-Loop"

// Loops reports whether a request has passed this edge before.
func (s *Cache) Loops(h http.Header) bool {
	for _, line := range h[cdnLoop] {
		if strings.Contains(line, s.loopID) {
			return true
		}
	}
	return false
}

// setForwarded sets the forwarding fields (RFC 7239) of a request for the origin. A peer has set
// them already.
func (s *Cache) setForwarded(h http.Header, x *exchange) {
	r := x.r
	if _, ok := h["User-Agent"]; !ok {
		h["User-Agent"] = noAgent // otherwise net/http sets its own
	}
	s.via(h, r.ProtoMajor, r.ProtoMinor)
	h[cdnLoop] = append(slices.Clip(h[cdnLoop]), s.cdnLoop)
	delete(h, origin.TierField)
	s.Purger.SetPosition(h)
	if x.peer {
		return
	}
	ip, proto := x.client().String(), "http"
	if x.w.Secure() {
		proto = "https"
	}
	node := ip
	if strings.Contains(ip, ":") {
		node = `"[` + ip + `]"`
	}
	authority := x.target.Authority()
	values := [4]string{ip, proto, authority, "for=" + node + `;proto=` + proto + `;host="` + authority + `"`}
	for i, name := range [4]string{"X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "Forwarded"} {
		h[name] = values[i : i+1 : i+1]
	}
}

// noAgent is the User-Agent of a request without one.
var noAgent = []string{""}

// lastHop answers a TRACE or OPTIONS that must not be forwarded (RFC 9110, 7.6.2). It reports
// whether it did.
func (s *Cache) lastHop(x *exchange) bool {
	left, err := strconv.ParseUint(x.r.Header.Get("Max-Forwards"), 10, 31)
	switch {
	case x.r.RequestURI == "*":
	case err != nil:
		return false
	case left > 0:
		x.r.Header.Set("Max-Forwards", strconv.FormatUint(left-1, 10))
		return false
	}
	h := x.w.Header()
	s.setStatus(h, nil, httpcache.Status{Detail: "last-hop"})
	if x.r.Method == http.MethodOptions {
		h.Set("Allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE")
		x.w.WriteHeader(http.StatusNoContent)
		return true
	}
	h.Set("Content-Type", "message/http")
	fmt.Fprintf(x.w, "TRACE %s HTTP/1.1\r\nHost: %s\r\n", x.r.RequestURI, x.r.Host)
	for _, name := range []string{"Max-Forwards", "Via", "User-Agent"} {
		// without fields that may hold a secret (RFC 9110, 9.3.8)
		for _, v := range x.r.Header[name] {
			fmt.Fprintf(x.w, "%s: %s\r\n", name, v)
		}
	}
	return true
}

// pass sends a request to the origin and the response to the client. It stores nothing. forward is
// the reason in Cache-Status.
func (s *Cache) pass(x *exchange, forward string) {
	x.covered = false
	s.proxy(x, httpcache.Status{Forward: forward, Key: x.key}, nil, httpcache.Decision{})
}

// passHeader prepares the header of a response that is passed on as it came.
func (s *Cache) passHeader(x *exchange, resp *http.Response, st httpcache.Status) http.Header {
	x.hideEdgeFields(resp.Header)
	s.setPurgePosition(x, resp.Header)
	s.setStatus(resp.Header, resp.Header["Cache-Status"], st)
	x.w.SetCache(st)
	h := x.w.Header()
	for name, lines := range resp.Header {
		if has := h[name]; has != nil {
			lines = append(has, lines...)
		}
		h[name] = lines
	}
	return h
}

// passOn sends a response that is not stored to the client, as it arrives.
func (s *Cache) passOn(x *exchange, resp *http.Response, st httpcache.Status) {
	defer resp.Body.Close()
	h := s.passHeader(x, resp, st)
	announced := len(resp.Trailer)
	for name := range resp.Trailer {
		h.Add("Trailer", name)
	}
	x.w.WriteHeader(resp.StatusCode)
	if err := copyAsItComes(x.w, resp.Body, resp.ContentLength); err != nil {
		s.Log.Debug("response cut", "url", x.url(), "error", err)
		panic(http.ErrAbortHandler)
	}
	if len(resp.Trailer) == 0 {
		return
	}
	_ = x.w.FlushError() // otherwise net/http adds Content-Length, and sends no trailers
	for name, lines := range resp.Trailer {
		if len(resp.Trailer) != announced {
			name = http.TrailerPrefix + name
		}
		h[name] = append(h[name], lines...)
	}
}

// copyAsItComes copies a body of length bytes; -1 means unknown. While it waits for more bytes, it
// sends those that it has.
func copyAsItComes(w *front.Exchange, body io.Reader, length int64) error {
	if length == 0 || body == http.NoBody {
		return nil
	}
	buf := copyBuffers.Get().(*[]byte)
	defer copyBuffers.Put(buf)
	if length > 0 && length <= int64(len(*buf)) && origin.Arrived(body, length, 0) {
		if _, err := io.ReadFull(body, (*buf)[:length]); err != nil {
			return err
		}
		_, err := w.Write((*buf)[:length])
		return err
	}
	var mu sync.Mutex // held while w is in use
	over := false
	if length < 0 {
		if err := w.FlushError(); err != nil {
			return err
		}
	} else {
		t := time.AfterFunc(showAfter, func() {
			mu.Lock()
			defer mu.Unlock()
			if !over {
				_ = w.FlushError() // if it fails, so does the next write
			}
		})
		defer t.Stop()
	}
	write := func(p []byte) error {
		mu.Lock()
		defer mu.Unlock()
		over = true // the header block is sent with p
		if _, err := w.Write(p); err != nil {
			return err
		}
		if length -= int64(len(p)); length == 0 {
			return nil // the handler returns
		}
		return w.FlushError()
	}
	defer func() {
		mu.Lock()
		over = true
		mu.Unlock()
	}()
	for {
		n, err := body.Read(*buf)
		if n > 0 {
			if err := write((*buf)[:n]); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// proxy passes a request through. stored is the stored response, or nil, and d says what may be
// done with it.
func (s *Cache) proxy(x *exchange, st httpcache.Status, stored *entry, d httpcache.Decision) {
	if !x.mayFetch() {
		return
	}
	if x.r.Body != nil {
		defer x.r.Body.Close() // what still sends it to the origin must not read it after this
	}
	requestTime, epoch := time.Now(), s.Store.Epoch()
	if stored != nil {
		epoch = x.epoch
	}
	resp, err := s.send(x)
	if err != nil {
		if x.r.Context().Err() == nil { // otherwise the client left
			s.fetchFailed(x.site, x.key, x.url(), err)
			s.recordSlowFailure(x.site, x.key, err, time.Since(requestTime))
		}
		s.failed(x, stored, d, err, st)
		return
	}
	s.invalidate(x, resp)
	if stored != nil && x.r.Method == http.MethodHead && resp.StatusCode == http.StatusOK {
		s.updateFromHead(x, stored, &httpcache.Stored{Status: resp.StatusCode, Header: resp.Header,
			RequestTime: requestTime, ResponseTime: time.Now()}, epoch)
	}
	if x.r.Method == http.MethodHead {
		x.varyByCoding(resp)
	}
	st.FwdStatus = resp.StatusCode
	s.fetchAnswered(x.site, x.key, resp.StatusCode)
	s.via(resp.Header, resp.ProtoMajor, resp.ProtoMinor)
	if resp.StatusCode == http.StatusSwitchingProtocols {
		s.passTunnel(x, resp, st)
		return
	}
	s.passOn(x, resp, st)
}

// send sends the client's own request to the origin, past all other edges. Meanwhile it passes
// interim responses on.
func (s *Cache) send(x *exchange) (*http.Response, error) {
	out := x.r.WithContext(x.r.Context())
	out.URL, out.Host, out.Header = x.target.RequestURL(), x.target.Authority(), maps.Clone(x.r.Header)
	out.Close, out.TransferEncoding, out.Trailer = false, nil, nil // of the client's connection; trailers end here
	if x.r.ContentLength == 0 {
		out.Body = nil
	}
	if x.trailers {
		out.Header["Te"] = acceptsTrailers
	}
	s.setForwarded(out.Header, x)
	i := &interims{cache: s, x: x}
	defer i.end()
	x.w.ProceedBy(i.add)
	resp, _, err := s.fetch(x.site, out, origin.FetchOptions{Key: string(x.key), Client: x.network(), Streams: true,
		Interim: i.add}, origin.ToOrigin)
	if err != nil {
		return nil, err
	}
	switch {
	case x.w.WantsTunnel():
		err = x.w.Join(resp)
	case resp.StatusCode == http.StatusSwitchingProtocols:
		err = checkSwitch(x.r, resp)
	}
	if err != nil {
		resp.Body.Close()
		return nil, err
	}
	return resp, nil
}

// acceptsTrailers is the value of TE for a client that accepts trailers (RFC 9110, 10.1.4).
var acceptsTrailers = []string{"trailers"}

// updateFromHead freshens a stored response with the response to a HEAD request, or makes it stale
// if the two don't agree (RFC 9111, 4.3.5).
func (s *Cache) updateFromHead(x *exchange, stored *entry, head *httpcache.Stored, epoch uint64) {
	h := head.Header.Clone()
	x.site.Policy.StripCookies(h)
	updated := stored.Update(h, head.RequestTime, head.ResponseTime)
	x.site.Policy.RemoveOwn(updated)
	if ok, _ := x.site.Policy.Storable(x.r.Header,
		&httpcache.Stored{Status: head.Status, Header: h, RequestTime: head.RequestTime,
			ResponseTime: head.ResponseTime}); !ok {
		return // the response to the HEAD is not for all clients
	}
	validated := false
	same := slices.Equal(httpcache.VaryFields(updated.Header["Vary"], x.r.Header),
		httpcache.VaryFields(stored.Header["Vary"], x.r.Header))
	for _, name := range []string{"Etag", "Last-Modified"} {
		v := head.Header.Get(name)
		same = same && (v == "" || v == stored.Header.Get(name))
		validated = validated || v != "" && v == stored.Header.Get(name)
	}
	if v := head.Header.Get("Content-Length"); v != "" && v != strconv.FormatInt(stored.length(), 10) {
		same = false
	}
	if same && !validated && stored.object.Stale {
		return // nothing shows that the purged response is still valid
	}
	var err error
	if same {
		_, err = s.objects.update(stored, updated, epoch, purge.TagsOf(updated.Header, x.site, x.target))
	} else {
		s.objects.changed.Put(x.url(), "HEAD", time.Now())
		err = s.Store.Invalidate(storage.Purge{URLs: []string{x.url()}, Soft: true}, string(x.key))
	}
	if err != nil && !errors.Is(err, storage.ErrOvertaken) {
		s.Log.Warn("a stored response can't be changed after a HEAD", "url", x.url(), "error", err)
	}
}

// safe are the safe methods (RFC 9110, 9.2.1, and the IANA registry of methods).
var safe = []string{http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, "PROPFIND", "REPORT",
	"SEARCH", "QUERY", "PRI"}

// invalidate removes the stored responses of a URI after a successful request with an unsafe
// method. It also removes those of the URIs in Location and Content-Location, if they have the same
// origin (RFC 9111, 4.4), and those of the groups that the response names (RFC 9875, 3).
func (s *Cache) invalidate(x *exchange, resp *http.Response) {
	if slices.Contains(safe, x.r.Method) || resp.StatusCode < 200 || resp.StatusCode > 399 {
		return
	}
	base, err := url.Parse(x.target.Origin() + x.r.URL.EscapedPath())
	if err != nil {
		base = &url.URL{}
	}
	changed := []httpcache.Target{x.target}
	for _, name := range []string{"Location", "Content-Location"} {
		v := resp.Header.Get(name)
		if v == "" {
			continue
		}
		if u, err := base.Parse(v); err == nil {
			if t, err := httpcache.ParseURL(u.String()); err == nil && t.Origin() == x.target.Origin() {
				changed = append(changed, x.site.Reduce(t))
			}
		}
	}
	var p storage.Purge
	var keys []string
	for _, t := range changed {
		u := t.URL()
		if x.site.Origin.Ring != nil || x.site.Origin.Shield != nil {
			s.objects.changed.Put(u, x.r.Method, time.Now())
		} // makes no record if there is nothing to remove
		if k := t.Key(); s.Store.Get(string(k)) != nil || s.flights.has(u) ||
			x.site.Rules.Marks() { // other keys have the URL too
			p.URLs, keys = append(p.URLs, u), append(keys, string(k))
		}
	}
	for _, g := range httpcache.Groups(resp.Header["Cache-Group-Invalidation"]) {
		p.Tags = append(p.Tags, purge.GroupTag(g, x.target.Origin()))
	}
	if len(p.URLs)+len(p.Tags) == 0 {
		return
	}
	if err := s.Store.Invalidate(p, keys...); err != nil {
		s.Log.Warn("stored responses can't be invalidated", "urls", p.URLs, "error", err)
	}
}
