package purge

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"

	"github.com/kaiku-cdn/kaiku/edge/site"
)

// The admin listener also takes purges in the form of the APIs of Fastly and Cloudflare, so tools
// made for these work with Kaiku. A service or zone is a site, identified by its name or one of its
// hosts. If it is something else, such as the id of an account's service, tags and URLs are purged
// anyway, and everything only if there is at most one site.

// siteCalled returns the site that a service or zone identifies, or nil.
func siteCalled(id string, sites *site.Set, all bool) (called *site.Site) {
	for _, c := range sites.List {
		if c.Name == id || slices.Contains(c.Hosts, site.CanonicalHost(id)) || len(sites.List) == 1 && all {
			called = c
		}
	}
	return called
}

// purgeIn purges for a service or zone. If that is a site, the purge may cover nothing else.
func (p *Purger) purgeIn(ctx context.Context, id string, req Request) (seq string, err error) {
	sites := p.Sites.Now()
	in := siteCalled(id, sites, req.All)
	switch {
	case in == nil && req.All:
		return "", &noSiteError{id}
	case in == nil || len(in.Hosts) == 0:
		in = nil
	case req.All:
		req.All = false
		req.addSite(in)
	}
	n, err := p.purge(ctx, req, in)
	return strconv.FormatUint(n, 10), err
}

// noSiteError is the error of a service or zone that is no site.
type noSiteError struct{ id string }

func (e *noSiteError) Error() string {
	return fmt.Sprintf("no site is called %s: everything is purged by the name of a site, or one of its hosts", e.id)
}

// failPurge writes the error of a purge that failed.
func failPurge(w http.ResponseWriter, fail Failure, err error) {
	status := statusOf(err)
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	fail(w, status, err.Error())
}
