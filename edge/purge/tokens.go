package purge

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strings"
	"sync/atomic"
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

// Tokens are those that a node accepts. They are replaced as a whole, while it serves. The zero
// value has none, and the API is open to everybody who reaches it then.
type Tokens struct{ now atomic.Pointer[[]Token] }

// Set replaces the tokens.
func (t *Tokens) Set(list []Token) { t.now.Store(&list) }

// list are those that are accepted now.
func (t *Tokens) list() []Token {
	if list := t.now.Load(); list != nil {
		return *list
	}
	return nil
}

// Any reports whether there are any.
func (t *Tokens) Any() bool { return len(t.list()) > 0 }

// grant returns what a secret is good for; nil if for nothing. The time that it takes doesn't tell
// how near the secret is to a token.
func (t *Tokens) grant(secret string) *Grant {
	got := sha256.Sum256([]byte(secret))
	is := func(token string) bool {
		want := sha256.Sum256([]byte(token))
		return subtle.ConstantTimeCompare(got[:], want[:]) == 1 && token != ""
	}
	var g *Grant
	for _, t := range t.list() {
		if is(t.Secret) {
			g = &Grant{token: got, scopes: append([]string{}, t.Scopes...)}
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
