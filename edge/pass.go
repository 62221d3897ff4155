package edge

import (
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
)

// forwardedFields are about where a request came from. Origins trust them, so a client's own never pass.
var forwardedFields = []string{
	"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port", "X-Forwarded-Server",
	"X-Forwarded-Scheme", "X-Forwarded-Prefix", "X-Real-Ip", "X-Original-Url", "X-Rewrite-Url", "X-Original-Host", "X-Host",
	"X-Http-Method-Override", "X-Http-Method", "X-Method-Override",
}

// setForwarded writes the edge's own forwarding fields (RFC 7239) into a request for the origin.
func (s *Server) setForwarded(h http.Header, r *http.Request) {
	for _, name := range forwardedFields {
		delete(h, name)
	}
	ip, proto := clientIP(r), "http"
	if r.TLS != nil {
		proto = "https"
	}
	node := ip
	if strings.Contains(ip, ":") {
		node = `"[` + ip + `]"`
	}
	h.Set("X-Forwarded-For", ip)
	h.Set("X-Forwarded-Proto", proto)
	h.Set("X-Forwarded-Host", r.Host)
	h.Set("Forwarded", "for="+node+`;proto=`+proto+`;host="`+strings.ReplaceAll(r.Host, `"`, "")+`"`)
	if _, ok := h["User-Agent"]; !ok {
		h.Set("User-Agent", "") // or net/http names itself
	}
	s.via(h)
}

// roundTrip is a function as an http.RoundTripper.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// pass sends a request to the origin and its response to the client, storing nothing. forward is the reason for Cache-Status.
func (s *Server) pass(x *exchange, forward string) {
	st := httpcache.Status{Forward: forward, Key: x.key}
	s.proxy(x, x.site.Origin.RoundTrip, st)
}

// passOn sends a response that a flight can't store to the client that led it.
func (s *Server) passOn(x *exchange, resp *http.Response, st httpcache.Status) {
	s.proxy(x, func(*http.Request) (*http.Response, error) { return resp, nil }, st)
}

func (s *Server) proxy(x *exchange, ask roundTrip, st httpcache.Status) {
	p := &httputil.ReverseProxy{
		Transport: ask,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL = originURL(target(x.r))
			s.setForwarded(r.Out.Header, x.r)
		},
		FlushInterval: -1,
		ModifyResponse: func(resp *http.Response) error {
			s.invalidate(x, resp)
			removeTags(resp.Header)
			st.FwdStatus = resp.StatusCode
			s.setStatus(resp.Header, resp.Header["Cache-Status"], st)
			s.via(resp.Header)
			if _, ok := resp.Header["Content-Type"]; !ok {
				resp.Header["Content-Type"] = nil
			}
			x.w.cache = st
			return nil
		},
		ErrorHandler: func(_ http.ResponseWriter, _ *http.Request, err error) { s.failUpstream(x, err, st) },
		ErrorLog:     slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
	}
	p.ServeHTTP(x.w, x.r)
}

// invalidate makes what is stored for a URI gone once an unsafe method changed it, along with what Location and Content-Location name on the
// same host (RFC 9111, 4.4).
func (s *Server) invalidate(x *exchange, resp *http.Response) {
	switch x.r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return
	}
	if resp.StatusCode < 200 || resp.StatusCode > 399 {
		return
	}
	urls := []string{x.url}
	base := &url.URL{Scheme: "http", Host: x.r.Host, Path: x.r.URL.Path}
	for _, name := range []string{"Location", "Content-Location"} {
		v := resp.Header.Get(name)
		if v == "" {
			continue
		}
		u, err := base.Parse(v)
		if err != nil || canonicalHost(u.Host) != x.host {
			continue
		}
		urls = append(urls, x.site.url(x.host, u.RequestURI()))
	}
	var known []string // a record is only worth its room where there is something that it makes gone
	for _, u := range urls {
		for _, secure := range []bool{false, true} {
			if k := key(secure, u); s.Store.Get(k) != nil || s.flights.has(k) {
				known = append(known, u)
				break
			}
		}
	}
	if len(known) == 0 {
		return
	}
	if err := s.Store.Invalidate(known...); err != nil {
		s.Log.Warn("stored responses can't be invalidated", "urls", known, "error", err)
	}
}
