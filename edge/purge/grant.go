package purge

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/kaiku-cdn/kaiku/edge/site"
)

// Grant is what a client may do.
type Grant struct {
	token   [32]byte // hash of the secret; zero if there are no tokens
	session [32]byte // hash of the session's id; zero if there is none
	scopes  []string // nil means all
	sites   []string // nil means all
}

func (g *Grant) has(scope string) bool {
	return scope == "" || g.scopes == nil || slices.Contains(g.scopes, scope)
}

// Scopes returns the scopes of the grant.
func (g *Grant) Scopes() []string {
	if g.scopes == nil {
		return Scopes()
	}
	return g.scopes
}

// Sites returns the only sites that the client may purge and warm; none means all.
func (g *Grant) Sites() []string { return append([]string{}, g.sites...) }

// grantKey is the key of a context's grant.
type grantKey struct{}

// GrantOf returns the grant of the client whose request has this context. Without one, it returns a
// grant of nothing.
func GrantOf(ctx context.Context) *Grant {
	if g, ok := ctx.Value(grantKey{}).(*Grant); ok {
		return g
	}
	return &Grant{scopes: []string{}, sites: []string{}}
}

func withGrant(r *http.Request, g *Grant) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), grantKey{}, g))
}

// mayPurge returns an error that says why the client may not make a purge.
func (g *Grant) mayPurge(p *Purge) error {
	switch {
	case !g.has(ScopePurge):
		return errors.New("this token does not have the scope " + ScopePurge)
	case g.sites == nil:
		return nil
	case p.All:
		return errors.New("this token is for some sites, so it can't purge all: name hosts")
	case len(p.Tags) > 0:
		return errors.New("this token is for some sites, so it can't purge tags, which belong to no site: name URLs, prefixes or hosts")
	}
	for _, n := range p.named {
		if err := g.MayTouch(n.site, n.host); err != nil {
			return err
		}
	}
	return nil
}

// MayTouch returns an error that says why the client may not act on a host. of is the host's site,
// or nil.
func (g *Grant) MayTouch(of *site.Site, host string) error {
	if g.sites == nil || of != nil && slices.Contains(g.sites, of.Name) {
		return nil
	}
	return fmt.Errorf("this token is not for the site of %s: it is for %s", host, site.Listed(g.sites))
}
