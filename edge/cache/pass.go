package cache

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httputil"
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
		for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
			// ReverseProxy removes them
			if v, ok := r.Header[name]; ok {
				h[name] = v
			}
		}
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

// roundTrip is a function that implements http.RoundTripper.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// originTransport returns a round tripper that sends requests to the origin, past all other edges.
func (s *Cache) originTransport(x *exchange) roundTrip {
	return func(r *http.Request) (*http.Response, error) {
		resp, _, err := s.fetch(x.site, r, origin.FetchOptions{Key: string(x.key), Client: x.network(), Streams: true},
			origin.ToOrigin)
		return resp, err
	}
}

// pass sends a request to the origin and the response to the client. It stores nothing. forward is
// the reason in Cache-Status.
func (s *Cache) pass(x *exchange, forward string) {
	x.covered = false
	s.proxy(x, s.originTransport(x), httpcache.Status{Forward: forward, Key: x.key}, nil, httpcache.Decision{})
}

// passOn sends a response that a flight can't store to the client that led it, as it arrives.
func (s *Cache) passOn(x *exchange, resp *http.Response, st httpcache.Status) {
	defer resp.Body.Close()
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

// proxyBuffers implements httputil.BufferPool with copyBuffers.
type proxyBuffers struct{}

// Get returns a buffer.
func (proxyBuffers) Get() []byte { return *copyBuffers.Get().(*[]byte) }

// Put returns a buffer to the pool.
func (proxyBuffers) Put(b []byte) { copyBuffers.Put(&b) }

// proxy passes a request through. stored is the stored response, or nil, and d says what may be
// done with it.
func (s *Cache) proxy(x *exchange, send roundTrip, st httpcache.Status, stored *entry, d httpcache.Decision) {
	if !x.mayFetch() {
		return
	}
	requestTime, epoch := time.Now(), s.Store.Epoch()
	if stored != nil {
		epoch = x.epoch
	}
	sent := false
	var p *httputil.ReverseProxy
	p = &httputil.ReverseProxy{
		Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			sent = true
			x.w.ProceedBy(r)
			resp, err := send(r)
			if err == nil && x.w.WantsTunnel() {
				if err = x.w.Join(resp); err != nil {
					_ = resp.Body.Close()
					return nil, err
				}
			}
			return resp, err
		}),
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL, r.Out.Host = x.target.RequestURL(), x.target.Authority()
			r.Out.Trailer = nil // ReverseProxy would announce trailers, and not send them
			if x.trailers {
				r.Out.Header.Set("Te", "trailers")
			}
			s.setForwarded(r.Out.Header, x)
		},
		FlushInterval: -1,
		BufferPool:    proxyBuffers{},
		ModifyResponse: func(resp *http.Response) error {
			if resp.StatusCode == http.StatusSwitchingProtocols && x.r.Header.Get("Upgrade") == "" {
				return errors.New("the origin switched protocols, but the request has no Upgrade")
			}
			if resp.ContentLength == 0 {
				p.FlushInterval = 0 // the header block ends the response, as a client of gRPC needs it
			}
			s.invalidate(x, resp)
			if stored != nil && x.r.Method == http.MethodHead && resp.StatusCode == http.StatusOK {
				s.updateFromHead(x, stored, &httpcache.Stored{Status: resp.StatusCode, Header: resp.Header,
					RequestTime:  requestTime,
					ResponseTime: time.Now()}, epoch)
			}
			if x.r.Method == http.MethodHead {
				x.varyByCoding(resp)
			}
			x.hideEdgeFields(resp.Header)
			s.setPurgePosition(x, resp.Header)
			st.FwdStatus = resp.StatusCode
			s.setStatus(resp.Header, resp.Header["Cache-Status"], st)
			s.fetchAnswered(x.site, x.key, resp.StatusCode)
			s.via(resp.Header, resp.ProtoMajor, resp.ProtoMinor)
			x.w.SetCache(st)
			return nil
		},
		ErrorHandler: func(_ http.ResponseWriter, _ *http.Request, err error) {
			switch {
			case x.w.Hijacked():
				return // the client left with the connection
			case !sent:
				err = &origin.RequestError{Err: err} // the request can't be passed on
			}
			if x.r.Context().Err() == nil { // otherwise the client left
				s.fetchFailed(x.site, x.key, x.url(), err)
				s.recordSlowFailure(x.site, x.key, err, time.Since(requestTime))
			}
			s.failed(x, stored, d, err, st)
		},
		ErrorLog: slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
	}
	p.ServeHTTP(x.w, x.r)
}

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
		if k := t.Key(); s.Store.Get(string(k)) != nil || s.flights.has(u) {
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
