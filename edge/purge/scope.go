package purge

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"

	"github.com/kaiku-cdn/kaiku/edge/site"
)

// The admin listener takes purges in the form of the APIs of Fastly and Cloudflare too, so that
// tools made for those purge Kaiku. A service or zone is a site, by its name or one of its hosts.
// Where it is something else, as the id of an account's, tags and URLs are purged all the same, and
// everything only if there is no more than one site.

// siteCalled returns the site that a service or zone stands for, if any.
func siteCalled(id string, sites *site.Set, all bool) (called *site.Site) {
	for _, c := range sites.List {
		if c.Name == id || slices.Contains(c.Hosts, site.CanonicalHost(id)) || len(sites.List) == 1 && all {
			called = c
		}
	}
	return called
}

// purgeIn purges in the name of a service or zone: nothing but what is of its site, if it has one.
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

// noSiteError says that a service or zone is none of the sites.
type noSiteError struct{ id string }

func (e *noSiteError) Error() string {
	return fmt.Sprintf("no site is called %s: everything is purged by the name of a site, or one of its hosts", e.id)
}

// failPurge answers that a purge was not done.
func failPurge(w http.ResponseWriter, fail Failure, err error) {
	status := statusOf(err)
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	fail(w, status, err.Error())
}
