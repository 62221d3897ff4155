package purge

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"regexp"
	"strings"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
	"github.com/kaiku-cdn/kaiku/edge/site"
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

// IsPurge reports whether a client's request is a purge.
func (p *Purger) IsPurge(r *http.Request) bool {
	switch r.Method {
	case "PURGE", "PURGEKEYS", "BAN":
		return p.Tokens.Any() || len(p.From) > 0
	}
	return false
}

// grantAtEdge returns what the client of a PURGE or BAN may do.
func (p *Purger) grantAtEdge(r *http.Request) *Grant {
	if from, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		for _, network := range p.From {
			if network.Contains(from.Addr().Unmap().WithZone("")) {
				return &Grant{scopes: []string{ScopePurge}}
			}
		}
	}
	if p.Tokens.Any() {
		if g := p.Tokens.grant(secretOf(r.Header)); g != nil {
			return g
		}
	}
	return &Grant{scopes: []string{}}
}

// ServeAtEdge answers a client's PURGE or BAN for a target of a site.
func (p *Purger) ServeAtEdge(w http.ResponseWriter, r *http.Request, target httpcache.Target, of *site.Site) {
	answer := func(w http.ResponseWriter, status int, text string) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(status)
		_, _ = w.Write([]byte(text + "\n"))
	}
	g := p.grantAtEdge(r)
	if !g.has(ScopePurge) {
		p.Refused(r, http.StatusForbidden,
			"a purge from a client that may not purge: see edge.purge_from and tokens")
		answer(w, http.StatusForbidden,
			"Not allowed: want a client in a network of edge.purge_from, or Authorization: Bearer with a token that has the scope purge")
		return
	}
	req, err := p.atEdge(r, target, of)
	if err != nil {
		answer(w, http.StatusBadRequest, err.Error())
		return
	}
	if _, err := p.purge(withGrant(r, g).Context(), req, nil); err != nil {
		failPurge(w, answer, err)
		return
	}
	answer(w, http.StatusOK, "Purged")
}

// atEdge returns the purge that a PURGE or BAN requests.
func (p *Purger) atEdge(r *http.Request, target httpcache.Target, of *site.Site) (Request, error) {
	h := r.Header
	req := Request{Soft: h.Get("Fastly-Soft-Purge") == "1"}
	if len(h["X-Pool"]) > 0 {
		return req, errors.New("X-Pool is not supported: purge by tags")
	}
	named, err := tagsToPurge(h, &req)
	switch {
	case err != nil:
		return req, err
	case named && (restricts(h, "X-Url") || restricts(h, "X-Host")):
		return req, errors.New("tags together with a URL or a host are not supported: leave out X-Url and X-Host, or set them to .*")
	case restricts(h, "X-Content-Type"):
		return req, errors.New("X-Content-Type is not supported: purge by URL or by tags")
	case req.All:
		// The pattern matches everything, but the edge's other sites don't belong to the
		// application that sent it.
		req.All = false
		req.addSite(of)
	case !named:
		return p.ofURL(r, target, req)
	}
	return req, nil
}

// restricts reports whether a request has a pattern that doesn't match everything.
func restricts(h http.Header, name string) bool {
	v, ok := h[name]
	return ok && (len(v) != 1 || !matchesAll(v[0]))
}

// ofURL returns the purge that a PURGE or BAN without tags requests.
func (p *Purger) ofURL(r *http.Request, target httpcache.Target, req Request) (Request, error) {
	h, pattern := r.Header, target.RequestURI()
	hosts := []string{target.Host}
	var err error
	if v, ok := h["X-Host"]; ok {
		if hosts, err = hostsMatching(v[0], p.Sites.Now()); err != nil {
			return req, err
		}
	}
	_, byHeader := h["X-Url"]
	switch how := strings.ToLower(h.Get("X-Purge-Method")); {
	case byHeader:
		pattern = h.Get("X-Url")
	case how == "regex", r.Method == "BAN" && how == "" && strings.HasSuffix(pattern, ".*"):
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

// hostsMatching returns the hosts of the edge's sites that an expression matches. On an edge for
// any host, the expression must be a list.
func hostsMatching(pattern string, sites *site.Set) ([]string, error) {
	if sites.AnyHost() {
		if matchesAll(pattern) {
			return nil, errors.New("X-Host: this edge has no list of hosts for .* to match: give one host")
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
		return nil, fmt.Errorf("X-Host %q is not a valid expression: %w", pattern, err)
	}
	var hosts []string
	for _, of := range sites.List {
		for _, h := range of.Hosts {
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
