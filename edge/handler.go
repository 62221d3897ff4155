package edge

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
	"github.com/kaiku-cdn/kaiku/origin"
	"github.com/kaiku-cdn/kaiku/storage"
)

// healthPath answers 200 on every host while the edge takes requests.
const healthPath = "/.kaiku/health"

// maxURL is the length in bytes of the longest request target; a longer one is answered with 414.
const maxURL = 8 << 10

// exchange is one request on its way through the edge.
type exchange struct {
	w    *recorder
	r    *http.Request
	site *Site
	host string // canonical
	url  string // what purges know it by
	key  string // what the store knows it by
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rec := &recorder{ResponseWriter: w}
	defer s.metrics.observe(rec, time.Now())
	s.serve(rec, r)
}

func (s *Server) serve(w *recorder, r *http.Request) {
	if r.URL.Path == healthPath {
		w.Header().Set("Content-Type", "text/plain")
		w.Header().Set("Cache-Control", "no-store")
		_, _ = w.Write([]byte("ok\n"))
		return
	}
	site, host := s.sites.Load().find(r.Host)
	x := &exchange{w: w, r: r, site: site, host: host}
	switch {
	case site == nil:
		s.fail(x, http.StatusMisdirectedRequest, httpcache.Status{Detail: "no site has this host"})
		return
	case len(r.RequestURI) > maxURL:
		s.fail(x, http.StatusRequestURITooLong, httpcache.Status{Detail: "request target too long"})
		return
	case r.Method == http.MethodConnect:
		s.fail(x, http.StatusMethodNotAllowed, httpcache.Status{Detail: "not a forward proxy"})
		return
	}
	w.site = site.Name
	x.url = site.url(host, target(r))
	x.key = key(r.TLS != nil, x.url)
	switch {
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		s.pass(x, "method")
	case r.Header["If-Match"] != nil, r.Header["If-Unmodified-Since"] != nil:
		s.pass(x, "bypass") // only the origin can evaluate these (RFC 9111, 4.3.2)
	case r.Header.Get("Upgrade") != "":
		s.pass(x, "bypass")
	default:
		s.lookup(x)
	}
}

// lookup answers a GET or HEAD from the store or by a flight. It begins anew where the ground moved: a damaged object, a
// flight whose response is another variant.
func (s *Server) lookup(x *exchange) {
	directives := httpcache.RequestDirectives(x.r.Header)
	for range 4 {
		e, flight := s.cache.find(x.key, x.r.Header)
		if e == nil {
			if s.miss(x, directives, flight) {
				return
			}
			continue
		}
		now := time.Now()
		d := x.site.Policy.Decide(directives, e.stored, e.object.Stale, now)
		st := httpcache.Status{Hit: true, TTL: d.TTL, HasTTL: true, Key: x.key}
		switch d.Action {
		case httpcache.ServeStale:
			s.revalidate(x, e, d, flight)
			st.Detail = "stale-while-revalidate"
			fallthrough
		case httpcache.Serve:
			if s.serveEntry(x, e, st, e.stored.Unvalidated()) {
				return
			}
		default:
			if directives.OnlyIfCached {
				s.fail(x, http.StatusGatewayTimeout, httpcache.Status{Detail: "only-if-cached"})
				return
			}
			if s.follow(x, e, d, flight, d.Forward) {
				return
			}
		}
	}
	s.pass(x, "miss")
}

// miss answers a request for which nothing is stored.
func (s *Server) miss(x *exchange, directives httpcache.Directives, flight string) bool {
	forward := "uri-miss"
	if flight != x.key {
		forward = "vary-miss"
	}
	switch {
	case directives.OnlyIfCached:
		s.fail(x, http.StatusGatewayTimeout, httpcache.Status{Detail: "only-if-cached"})
	case x.r.Method == http.MethodHead, directives.NoStore:
		s.pass(x, forward)
	default:
		return s.follow(x, nil, httpcache.Decision{}, flight, forward)
	}
	return true
}

// follow joins or begins the flight of a key and answers with its outcome. It reports false if the request has to be looked up again.
func (s *Server) follow(x *exchange, have *entry, d httpcache.Decision, key, forward string) bool {
	header := storage.Header{Key: key, URL: x.url, Epoch: s.Store.Epoch()}
	var f *flight
	leads := true
	if s.cache.passes(key, time.Now()) {
		f = newFlight(key, header) // nobody else waits for it
	} else {
		f, leads = s.flights.join(key, header)
	}
	defer s.flights.leave(f)
	if leads && !s.landedMeanwhile(x, f, have) {
		s.start(f, s.newFetch(x, f, have, d))
	}
	p, err := f.outcome(x.r.Context())
	if err != nil {
		return true // the client left
	}
	f.mu.Lock()
	st := httpcache.Status{Forward: forward, FwdStatus: f.fwdStatus, Collapsed: !leads, Key: x.key}
	b, e, ferr := f.body, f.entry, f.err
	f.mu.Unlock()
	v := httpcache.Variant{Fields: b.fields}
	switch {
	case p == declined:
		resp := f.takeResponse()
		if !leads || resp == nil {
			return false
		}
		defer f.cancel()
		s.passOn(x, resp, st)
		return true
	case p == failed:
		s.failed(x, have, d, ferr, st)
		return true
	case !v.Matches(x.r.Header):
		return false
	case b.stored != nil:
		st.Stored = !b.unstored
		s.serveFlight(x, f, b, st)
		return true
	}
	// A validation: the stored response was confirmed.
	st.Stored = true
	return s.serveEntry(x, e, st, nil)
}

// landedMeanwhile ends a new flight at once if another one of its key landed between the look-up and the join, so that an origin is asked only once.
func (s *Server) landedMeanwhile(x *exchange, f *flight, have *entry) bool {
	e, _ := s.cache.find(x.key, x.r.Header)
	if e == nil || e.object.Stale || have != nil && !e.object.Newer(have.object) {
		return false
	}
	s.flights.land(f)
	f.change(func() { f.phase, f.entry = done, e })
	return true
}

// revalidate validates e in the background.
func (s *Server) revalidate(x *exchange, e *entry, d httpcache.Decision, key string) {
	f, leads := s.flights.join(key, storage.Header{Key: key, URL: x.url, Epoch: s.Store.Epoch()})
	defer s.flights.leave(f)
	if leads && !s.landedMeanwhile(x, f, e) {
		f.keep = true
		d.StaleIfError = true // there is nobody to show an error to
		s.start(f, s.newFetch(x, f, e, d))
	}
}

// newFetch makes what f asks the origin, and gives f its end. It does not end with the client's request, as others may follow.
func (s *Server) newFetch(x *exchange, f *flight, have *entry, d httpcache.Decision) *fetch {
	ctx, cancel := context.WithCancel(s.base)
	f.mu.Lock()
	f.cancel = cancel
	f.mu.Unlock()
	out := &http.Request{Method: http.MethodGet, URL: originURL(target(x.r)), Host: x.r.Host, Header: x.r.Header.Clone(),
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}
	httpcache.RemoveHopByHop(out.Header)
	httpcache.RemoveConditions(out.Header)
	s.setForwarded(out.Header, x.r)
	return &fetch{site: x.site, key: x.key, host: x.host, client: x.r.Header, request: out.WithContext(ctx),
		have: have, staleIfError: d.StaleIfError}
}

// failed answers a request whose fetch failed: with the stale response if there is one that may be used.
func (s *Server) failed(x *exchange, have *entry, d httpcache.Decision, err error, st httpcache.Status) {
	if have != nil && d.StaleIfError {
		st.TTL, st.HasTTL, st.Detail = d.TTL, true, "stale-if-error"
		if s.serveEntry(x, have, st, have.stored.Unvalidated()) {
			return
		}
	}
	s.failUpstream(x, err, st)
}

// failUpstream tells the client, and the log, that the origin failed.
func (s *Server) failUpstream(x *exchange, err error, st httpcache.Status) {
	if x.r.Context().Err() != nil {
		return // the client left, so there is nobody to tell and nothing wrong with the origin
	}
	status := http.StatusBadGateway
	if origin.IsTimeout(err) {
		status = http.StatusGatewayTimeout
	}
	st.Detail = origin.Reason(err)
	var se *statusError
	if errors.As(err, &se) {
		status, st.Detail = se.status, "origin-error"
	}
	s.Log.Warn("origin failed", "site", x.site.Name, "url", x.url, "error", err)
	s.fail(x, status, st)
}

// fail answers with an error of the edge's own.
func (s *Server) fail(x *exchange, status int, st httpcache.Status) {
	h := x.w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	s.setStatus(h, nil, st)
	x.w.WriteHeader(status)
	if x.r.Method != http.MethodHead {
		_, _ = x.w.Write([]byte(http.StatusText(status) + ": " + st.Detail + "\n"))
	}
}

// originURL is the URL of a request to an origin with this path and query, as they are.
func originURL(target string) *url.URL {
	p, query, has := strings.Cut(target, "?")
	u := &url.URL{Path: p, RawPath: p, RawQuery: query, ForceQuery: has && query == ""}
	if decoded, err := url.PathUnescape(p); err == nil {
		u.Path = decoded
	}
	if u.EscapedPath() != p && !strings.HasPrefix(p, "//") {
		u.Opaque = p // bytes that url would encode
	}
	return u
}
