package purge

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strings"
	"sync/atomic"
)

// Scopes of a token.
const (
	ScopePurge = "purge" // purges, through every API
	ScopeRead  = "read"  // status, explain, metrics, and the progress of purges
	ScopeDrain = "drain" // drain and undrain
	ScopeWarm  = "warm"  // fetch into the store
	ScopeDebug = "debug" // profiles of the process
)

// Scopes returns all scopes.
func Scopes() []string { return []string{ScopePurge, ScopeRead, ScopeDrain, ScopeWarm, ScopeDebug} }

// Token is a bearer token of the admin API. A token without restrictions has all scopes.
type Token struct {
	Secret string
	Scopes []string
	Sites  []string // that it may purge and warm; none means all
}

// Tokens holds the tokens that a node accepts. They are replaced as a whole while it serves. The
// zero value has none, and then every client that reaches the API may use it.
type Tokens struct {
	now      atomic.Pointer[[]Token]
	sessions sessions
}

// Set replaces the tokens.
func (t *Tokens) Set(list []Token) { t.now.Store(&list) }

// list returns the tokens that are accepted now.
func (t *Tokens) list() []Token {
	if list := t.now.Load(); list != nil {
		return *list
	}
	return nil
}

// Any reports whether there are any.
func (t *Tokens) Any() bool { return len(t.list()) > 0 }

// grant returns the grant of a secret; nil if no token has it. The time that it takes doesn't
// depend on how similar the secret is to a token's.
func (t *Tokens) grant(secret string) *Grant { return t.grantByHash(sha256.Sum256([]byte(secret))) }

// grantByHash is grant for the hash of a secret.
func (t *Tokens) grantByHash(got [32]byte) *Grant {
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

// secretOf returns the secret of a request, from the field that the client's API uses.
func secretOf(h http.Header) string {
	if scheme, token, _ := strings.Cut(h.Get("Authorization"), " "); strings.EqualFold(scheme, "Bearer") {
		return strings.TrimSpace(token)
	}
	if key := h.Get("Fastly-Key"); key != "" {
		return key
	}
	return h.Get("X-Auth-Key") // Cloudflare's
}
