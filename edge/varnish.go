package edge

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"regexp"
	"strings"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
)

// On the listener for clients an edge takes purges in the form that Varnish's users have made a
// habit of: VCL decides what Varnish does with PURGE and BAN, and the plugins of content management
// systems come with VCL of their own. What is here answers the requests of those plugins as that
// VCL would:
//
//	PURGE /a                                                           the URL
//	PURGE /  Surrogate-Key, xkey-purge, xkey-softpurge: a b            tags (PURGEKEYS of FOSHttpCache is the same)
//	PURGE /  X-Magento-Tags-Pattern: ((^|,)cat_p_1(,|$))               tags
//	PURGE /a.*  X-Purge-Method: regex                                  a prefix (WordPress)
//	BAN /  X-Cache-Tags: (^|,)(a|b)(,|$), Cache-Tags: a|b              tags (FOSHttpCache, Drupal)
//	BAN /  X-Host: ^(www.example.com)$, X-Url: ^/a                     a prefix on some hosts (FOSHttpCache)
//	BAN /a                                                             the URL, or a prefix if it ends with .*
//
// Expressions are not matched with what is stored: they become exact tags, URLs, prefixes and
// hosts, or the request is refused.

// isPurge reports whether a request of a client is one to purge.
func (s *Server) isPurge(x *exchange) bool {
	switch x.r.Method {
	case "PURGE", "PURGEKEYS", "BAN":
		return !x.peer && (s.hasTokens() || len(s.PurgeFrom) > 0)
	}
	return false
}

// grantAtEdge is what a client may do that sends PURGE or BAN.
func (s *Server) grantAtEdge(r *http.Request) *grant {
	if ip, err := netip.ParseAddr(clientIP(r)); err == nil {
		for _, network := range s.PurgeFrom {
			if network.Contains(ip.Unmap().WithZone("")) {
				return &grant{scopes: []string{ScopePurge}}
			}
		}
	}
	if s.hasTokens() {
		if g := s.grant(secretOf(r.Header)); g != nil {
			return g
		}
	}
	return &grant{scopes: []string{}}
}

// servePurgeAtEdge answers PURGE and BAN.
func (s *Server) servePurgeAtEdge(x *exchange) {
	answer := func(w http.ResponseWriter, status int, text string) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(status)
		_, _ = w.Write([]byte(text + "\n"))
	}
	g := s.grantAtEdge(x.r)
	if !g.has(ScopePurge) {
		s.tellRefusal(x.r, http.StatusForbidden, "a purge from a client that may not: edge.purge_from and tokens name who may")
		answer(x.w, http.StatusForbidden, "Not allowed: purges are for the networks of edge.purge_from, and with Authorization: Bearer for tokens with the scope purge")
		return
	}
	req, err := s.purgeOfRequest(x)
	if err != nil {
		answer(x.w, http.StatusBadRequest, err.Error())
		return
	}
	if _, status, err := s.purgeFor(withGrant(x.r, g).Context(), req); err != nil {
		failPurge(x.w, answer, status, err)
		return
	}
	answer(x.w, http.StatusOK, "Purged")
}

// purgeOfRequest is what a PURGE or BAN asks for.
func (s *Server) purgeOfRequest(x *exchange) (PurgeRequest, error) {
	h := x.r.Header
	req := PurgeRequest{Soft: h.Get("Fastly-Soft-Purge") == "1"}
	if len(h["X-Pool"]) > 0 {
		return req, errors.New("X-Pool can't be expressed: purge by tags")
	}
	named, err := tagsToPurge(h, &req)
	switch {
	case err != nil:
		return req, err
	case named && (x.restricts("X-Url") || x.restricts("X-Host")):
		return req, errors.New("tags of some URLs or hosts alone can't be expressed: leave X-Url and X-Host out, or .*")
	case x.restricts("X-Content-Type"):
		return req, errors.New("X-Content-Type can't be expressed: purge by URL or by tags")
	case req.All:
		// The pattern says everything; what is the edge's for other sites is not of the application
		// that sent it.
		req.All = false
		s.addSite(x.site, &req)
	case !named:
		return s.purgeOfURL(x, req)
	}
	return req, nil
}

// restricts reports whether a request has a pattern that doesn't match everything.
func (x *exchange) restricts(name string) bool {
	v, ok := x.r.Header[name]
	return ok && (len(v) != 1 || !matchesAll(v[0]))
}

// addSite adds all hosts of a site to a purge.
func (s *Server) addSite(site *Site, req *PurgeRequest) {
	if len(site.Hosts) == 0 {
		req.All = true // it is the only site
		return
	}
	req.Hosts = append(req.Hosts, site.Hosts...)
}

// purgeOfURL is what a PURGE or BAN without tags asks for.
func (s *Server) purgeOfURL(x *exchange, req PurgeRequest) (PurgeRequest, error) {
	h, pattern := x.r.Header, x.asked.RequestURI()
	hosts := []string{x.asked.Host}
	var err error
	if v, ok := h["X-Host"]; ok {
		if hosts, err = s.hostsMatching(v[0], &req); err != nil {
			return req, err
		}
	}
	_, byHeader := h["X-Url"]
	switch how := strings.ToLower(h.Get("X-Purge-Method")); {
	case byHeader:
		pattern = h.Get("X-Url")
	case how == "regex", x.r.Method == "BAN" && how == "" && strings.HasSuffix(pattern, ".*"):
	case !strings.HasPrefix(pattern, "/"):
		return req, errors.New("want a path that begins with /")
	case how == "", how == "exact", how == "default":
		for _, host := range hosts {
			req.URLs = append(req.URLs, "http://"+host+pattern)
		}
		return req, nil
	default:
		return req, fmt.Errorf("X-Purge-Method %q is unknown: want exact or regex", how)
	}
	path, exact, err := parseURLPattern(pattern)
	if err != nil {
		return req, err
	}
	for _, host := range hosts {
		switch {
		case exact:
			req.URLs = append(req.URLs, "http://"+host+path)
		case path == "/":
			req.Hosts = append(req.Hosts, host)
		default:
			req.Prefixes = append(req.Prefixes, "http://"+host+path)
		}
	}
	return req, nil
}

// hostsMatching are the hosts of the edge's sites that an expression matches. On an edge for any
// host it has to be a list.
func (s *Server) hostsMatching(pattern string, req *PurgeRequest) ([]string, error) {
	sites := s.sites.Load()
	if sites.any != nil {
		if matchesAll(pattern) {
			return nil, errors.New("X-Host: this edge has no list of hosts that .* could stand for: name one")
		}
		hosts, err := parseTagPattern(strings.TrimSuffix(strings.TrimPrefix(pattern, "^"), "$"))
		for _, h := range hosts {
			if _, _, ok := httpcache.ParseAuthority(h, false); !ok {
				err = errors.New("want host names")
			}
		}
		if err != nil {
			return nil, fmt.Errorf("X-Host %q: %w", pattern, err)
		}
		return hosts, nil
	}
	re, err := regexp.Compile("(?i)" + pattern)
	if err != nil {
		return nil, fmt.Errorf("X-Host %q is not an expression that is understood: %w", pattern, err)
	}
	var hosts []string
	for _, site := range sites.list {
		for _, h := range site.Hosts {
			if re.MatchString(h) {
				hosts = append(hosts, h)
			}
		}
	}
	if len(hosts) == 0 {
		return nil, fmt.Errorf("X-Host %q matches no host of this edge's sites", pattern)
	}
	return hosts, nil
}
