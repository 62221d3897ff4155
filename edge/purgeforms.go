package edge

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
)

// The admin listener takes purges in the form of the APIs of Fastly and Cloudflare too, so that
// tools made for those purge Kaiku. A service or zone is a site, by its name or one of its hosts.
// Where it is something else, as the id of an account's, tags and URLs are purged all the same, and
// everything only if there is no more than one site.

// scopeTo limits a purge to a site, and says why it can't be. Tags are of no site.
func (s *Server) scopeTo(id string, req *PurgeRequest) (status int, err error) {
	sites := s.sites.Load()
	var site *Site
	for _, c := range sites.list {
		if c.Name == id || slices.Contains(c.Hosts, canonicalHost(id)) || len(sites.list) == 1 && req.All {
			site = c
		}
	}
	switch {
	case site == nil && req.All:
		return http.StatusNotFound, fmt.Errorf("no site is called %s: everything is purged by the name of a site, or one of its hosts", id)
	case site == nil || len(site.Hosts) == 0:
		return 0, nil
	case req.All:
		req.All = false
		s.addSite(site, req)
	}
	for _, raw := range slices.Concat(req.URLs, req.Prefixes) {
		t, err := httpcache.ParseURL(raw)
		if err != nil {
			continue // refused by who purges
		}
		if !sites.has(site, t.Host) {
			return http.StatusForbidden, fmt.Errorf("%s is not of the site %s", raw, site.Name)
		}
	}
	for _, h := range req.Hosts {
		if !sites.has(site, h) {
			return http.StatusForbidden, fmt.Errorf("%s is not of the site %s", h, site.Name)
		}
	}
	return 0, nil
}

// purgeIn purges in the name of a service or zone and answers if that fails.
func (s *Server) purgeIn(w http.ResponseWriter, r *http.Request, id string, req PurgeRequest, fail failure) (seq string, ok bool) {
	status, err := s.scopeTo(id, &req)
	var n uint64
	if err == nil {
		n, status, err = s.purgeFor(r.Context(), req)
	}
	if err != nil {
		failPurge(w, fail, status, err)
		return "", false
	}
	return strconv.FormatUint(n, 10), true
}
