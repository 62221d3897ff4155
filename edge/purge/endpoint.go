package purge

import (
	"encoding/json"
	"mime"
	"net/http"
	"net/netip"
	"strings"

	"github.com/kaiku-cdn/kaiku/edge/site"
)

// Endpoint is a route of the admin listener.
type Endpoint struct {
	Method, Path string
	Scope        string // that a token needs; "" means that any token will do
	Public       bool   // needs no token
	Serve        http.HandlerFunc
	Fail         Failure // writes errors in the form that its clients read
}

// Failure writes an error in the form of one API.
type Failure func(w http.ResponseWriter, status int, text string)

// Endpoints returns the routes of the purge APIs. The one with the method PURGE is for any path.
func (p *Purger) Endpoints() []Endpoint {
	return []Endpoint{
		{Method: "POST", Path: "/v1/purge", Scope: ScopePurge, Serve: p.serveNative, Fail: Fail},
		{Method: "GET", Path: "/v1/purges/{sequence}", Scope: ScopeRead, Serve: p.serveProgress, Fail: Fail},
		{Method: "POST", Path: "/service/{id}/purge/{key}", Scope: ScopePurge, Serve: p.serveFastlyKey,
			Fail: failFastly},
		{Method: "POST", Path: "/service/{id}/purge", Scope: ScopePurge, Serve: p.serveFastlyKeys, Fail: failFastly},
		{Method: "POST", Path: "/service/{id}/purge_all", Scope: ScopePurge, Serve: p.serveFastlyAll, Fail: failFastly},
		{Method: "POST", Path: FastlyURLs + "{url}", Scope: ScopePurge, Serve: p.serveFastlyURL, Fail: failFastly},
		{Method: "PURGE", Path: "/", Scope: ScopePurge, Serve: p.serveFastlyURL, Fail: failFastly},
		{Method: "POST", Path: "/client/v4/zones/{zone}/purge_cache", Scope: ScopePurge, Serve: p.serveCloudflare,
			Fail: failCloudflare},
	}
}

// ErrorResponse is the body of every error of Kaiku's own API.
type ErrorResponse struct {
	Error string `json:"error"`
}

// Fail writes an error in the form of Kaiku's own API.
func Fail(w http.ResponseWriter, status int, text string) {
	WriteJSON(w, status, ErrorResponse{text})
}

// WriteJSON writes v as the response.
func WriteJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // it fails only if the client has gone
}

// IsJSON reports whether the body of a request is JSON. A browser doesn't send this type to another
// site without a preflight request, so no web page can purge through its visitor.
func IsJSON(h http.Header) bool {
	t, _, _ := mime.ParseMediaType(h.Get("Content-Type"))
	return t == "application/json"
}

// Authorize returns a handler that calls the endpoint if the client's token permits it. Without any
// tokens it permits every client, because then the node is reachable from this machine only.
func (t *Tokens) Authorize(to Endpoint) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g := &Grant{}
		if t.Any() && to.Public {
			g = &Grant{scopes: []string{}, sites: []string{}}
		} else if t.Any() {
			g = t.grantOf(r)
		} else if !isAddress(r.Host) {
			to.Fail(w, http.StatusMisdirectedRequest,
				"without tokens, this listener answers only requests that name it by its IP address")
			return
		}
		switch {
		case g == nil:
			w.Header().Set("WWW-Authenticate", `Bearer realm="kaiku"`)
			why := "want Authorization: Bearer with the admin token"
			if secretOf(r.Header) != "" {
				why = "this node doesn't accept the token: it is wrong, or was replaced"
			}
			to.Fail(w, http.StatusUnauthorized, why)
		case !g.has(to.Scope):
			to.Fail(w, http.StatusForbidden, "this token does not have the scope "+to.Scope)
		default:
			to.Serve(w, withGrant(r, g))
		}
	})
}

// isAddress reports whether a Host is an address or localhost. Otherwise a web page whose own name
// resolves to this machine could use the listener as if it were of its own origin.
func isAddress(host string) bool {
	name := site.CanonicalHost(host)
	_, err := netip.ParseAddr(strings.Trim(name, "[]"))
	return err == nil || name == "localhost"
}
