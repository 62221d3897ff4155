package edge

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
)

// What a token may be for.
const (
	ScopePurge = "purge" // purges, through every API
	ScopeRead  = "read"  // status, explain, metrics and how far purges are
	ScopeDrain = "drain" // drain and undrain
	ScopeWarm  = "warm"  // fetch into the store
	ScopeDebug = "debug" // profiles of the process
)

// Scopes are all of them.
func Scopes() []string { return []string{ScopePurge, ScopeRead, ScopeDrain, ScopeWarm, ScopeDebug} }

// Token is a bearer token of the admin API. One that is good for all has all scopes.
type Token struct {
	Secret string
	Scopes []string
	Sites  []string // what purge and warm are limited to; none means no limit
}

// SetTokens replaces the tokens, also while the server serves. Without any, the API is open to
// everybody who reaches it.
func (s *Server) SetTokens(list []Token) { s.tokens.Store(&list) }

// allTokens are those that are accepted now.
func (s *Server) allTokens() []Token {
	if list := s.tokens.Load(); list != nil {
		return *list
	}
	return nil
}

// grant is what a client may do.
type grant struct {
	token  [32]byte // hash of the secret; zero where there are no tokens
	scopes []string // nil means all
	sites  []string // nil means all
}

func (g *grant) has(scope string) bool {
	return scope == "" || g.scopes == nil || slices.Contains(g.scopes, scope)
}

// grantKey is the key of a context's grant.
type grantKey struct{}

// grantOf is the grant of the client whose request has this context. One that nobody gave is one of
// nothing.
func grantOf(ctx context.Context) *grant {
	if g, ok := ctx.Value(grantKey{}).(*grant); ok {
		return g
	}
	return &grant{scopes: []string{}, sites: []string{}}
}

func withGrant(r *http.Request, g *grant) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), grantKey{}, g))
}

func (s *Server) hasTokens() bool { return len(s.allTokens()) > 0 }

// grant returns what a secret is good for; nil if for nothing. The time that it takes doesn't tell
// how near the secret is to a token.
func (s *Server) grant(secret string) *grant {
	got := sha256.Sum256([]byte(secret))
	is := func(token string) bool {
		want := sha256.Sum256([]byte(token))
		return subtle.ConstantTimeCompare(got[:], want[:]) == 1 && token != ""
	}
	var g *grant
	for _, t := range s.allTokens() {
		if is(t.Secret) {
			g = &grant{token: got, scopes: append([]string{}, t.Scopes...)}
			if len(t.Sites) > 0 {
				g.sites = t.Sites
			}
		}
	}
	return g
}

// secretOf is the secret of a request, where the clients of one of the APIs put it.
func secretOf(h http.Header) string {
	if scheme, token, _ := strings.Cut(h.Get("Authorization"), " "); strings.EqualFold(scheme, "Bearer") {
		return strings.TrimSpace(token)
	}
	if key := h.Get("Fastly-Key"); key != "" {
		return key
	}
	return h.Get("X-Auth-Key") // Cloudflare's
}

// authorize lets those pass whose token is good for a route: everybody if the edge has no tokens,
// when it is reached from this machine alone.
func (s *Server) authorize(to route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g := &grant{}
		if s.hasTokens() {
			g = s.grant(secretOf(r.Header))
		} else if !isAddress(r.Host) {
			to.fail(w, http.StatusMisdirectedRequest, "without a token this listener is asked by its address, not by a name")
			return
		}
		switch {
		case g == nil:
			w.Header().Set("WWW-Authenticate", `Bearer realm="kaiku"`)
			why := "want Authorization: Bearer with the admin token"
			if secretOf(r.Header) != "" {
				why = "the token is none that this node accepts: it is wrong, or was replaced"
			}
			to.fail(w, http.StatusUnauthorized, why)
		case !g.has(to.scope):
			to.fail(w, http.StatusForbidden, "this token has not the scope "+to.scope)
		default:
			to.serve(w, withGrant(r, g))
		}
	})
}

// mayPurge says why a client may not purge what it asks for.
func (s *Server) mayPurge(g *grant, req PurgeRequest) error {
	switch {
	case !g.has(ScopePurge):
		return errors.New("this token has not the scope " + ScopePurge)
	case g.sites == nil:
		return nil
	case req.All:
		return errors.New("this token is for some sites, so it can't purge all: name hosts")
	case len(req.Tags) > 0:
		return errors.New("this token is for some sites, so it can't purge tags, which are of no site: name URLs, prefixes or hosts")
	}
	for _, raw := range slices.Concat(req.URLs, req.Prefixes) {
		t, err := httpcache.ParseURL(raw)
		if err != nil {
			continue // refused by who purges
		}
		if err := s.mayTouch(g, t.Host); err != nil {
			return err
		}
	}
	for _, h := range req.Hosts {
		if err := s.mayTouch(g, h); err != nil {
			return err
		}
	}
	return nil
}

// mayTouch says why a client may do nothing to a host.
func (s *Server) mayTouch(g *grant, host string) error {
	if g.sites == nil {
		return nil
	}
	if site, _ := s.sites.Load().find(host); site != nil && slices.Contains(g.sites, site.Name) {
		return nil
	}
	return fmt.Errorf("this token is not for the site of %s: it is for %s", host, listed(g.sites))
}

// isAddress reports whether a Host is an address or localhost. A web page that has its own name
// lead to this machine could else speak to the listener as one of its own.
func isAddress(host string) bool {
	name := canonicalHost(host)
	_, err := netip.ParseAddr(strings.Trim(name, "[]"))
	return err == nil || name == "localhost"
}
