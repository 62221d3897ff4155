package edge

import (
	"context"
	"testing"

	"github.com/kaiku-cdn/kaiku/edge/admin"
	"github.com/kaiku-cdn/kaiku/edge/purge"
	"github.com/kaiku-cdn/kaiku/edge/site"
)

// full is a token that is good for all.
func full(secret string) purge.Token { return purge.Token{Secret: secret, Scopes: purge.Scopes()} }

func TestTokenScopes(t *testing.T) { overProtocols(t, testTokenScopes) }

func testTokenScopes(t *testing.T, p protocol) {
	e := p.newEdge(t, static("x", "Cache-Control: max-age=1000"), func(s *Server, site *site.Site) {
		site.Hosts = append(site.Hosts, "static.example")
		s.Tokens.Set([]purge.Token{
			{Secret: "p", Scopes: []string{purge.ScopePurge}},
			{Secret: "r", Scopes: []string{purge.ScopeRead}},
			{Secret: "d", Scopes: []string{purge.ScopeDrain}},
			{Secret: "none"},
			{Secret: "www", Scopes: []string{purge.ScopePurge}, Sites: []string{"www"}},
			{Secret: "other", Scopes: []string{purge.ScopePurge}, Sites: []string{"other"}},
			{Secret: "", Scopes: purge.Scopes()},
			full("full"),
		})
	})
	for _, c := range []struct {
		method, path, body string
		want               map[string]int // by token
	}{
		{"POST", "/v1/purge", `{"all":true}`, map[string]int{"full": 200, "p": 200, "r": 403, "d": 403, "none": 403,
			"www": 403, "other": 403, "": 401, "x": 401}},
		{"POST", "/v1/purge", `{"tags":["a"]}`, map[string]int{"full": 200, "p": 200, "www": 403}},
		{"POST", "/v1/purge", `{"urls":["http://www.example/a"]}`, map[string]int{"p": 200, "www": 200, "other": 403}},
		{"POST", "/v1/purge", `{"urls":["http://www.example/a","http://x.example/a"]}`,
			map[string]int{"p": 404, "www": 403}},
		{"POST", "/v1/purge", `{"urls":["http://www.example@x.example/a"]}`, map[string]int{"www": 403}},
		{"POST", "/v1/purge", `{"prefixes":["https://www.example"]}`, map[string]int{"www": 200, "other": 403}},
		{"POST", "/v1/purge", `{"prefixes":["https://www.exampl"]}`, map[string]int{"www": 403}},
		{"POST", "/v1/purge", `{"hosts":["STATIC.example."]}`, map[string]int{"www": 200, "other": 403}},
		{"POST", "/v1/purge", `{"hosts":["x.example"]}`, map[string]int{"p": 404, "www": 403}},
		{"POST", "/v1/purge", `{"urls":["/a"]}`, map[string]int{"p": 400, "www": 400}},
		{"GET", "/v1/status", "", map[string]int{"full": 200, "r": 200, "p": 403, "d": 403, "": 401}},
		{"GET", "/v1/purges/1", "", map[string]int{"full": 200, "r": 200, "p": 403}},
		{"GET", "/v1/explain?url=http://www.example/a", "", map[string]int{"r": 200, "p": 403, "": 401}},
		{"GET", "/metrics", "", map[string]int{"full": 200, "r": 200, "p": 403, "": 401}},
		{"PUT", "/v1/nodes/hel1/drain", "", map[string]int{"full": 409, "d": 409, "r": 403, "p": 403, "": 401}},
		{"DELETE", "/v1/nodes/hel1/drain", "", map[string]int{"d": 409, "p": 403}},
		{"GET", admin.HealthPath, "", map[string]int{"full": 200, "none": 200, "": 401}},
	} {
		for token, want := range c.want {
			fields := []string{"Content-Type: application/json"}
			if token != "" {
				fields = append(fields, "Authorization: Bearer "+token)
			}
			got := e.admin(c.method, c.path, c.body, fields...)
			if got.status != want {
				t.Errorf("%s %s %s with %q: %d, %s, want %d", c.method, c.path, c.body, token, got.status, got.body,
					want)
			}
			var er struct{ Error string }
			if want >= 400 && (decode(got.body, &er) != nil || er.Error == "") {
				t.Errorf("%s %s with %q: no text: %s", c.method, c.path, token, got.body)
			}
		}
	}
	for _, field := range []string{"Fastly-Key: p", "X-Auth-Key: p"} {
		if got := e.purge(`{"all":true}`, "Content-Type: application/json", field); got.status != 200 {
			t.Errorf("%s: %d, %s", field, got.status, got.body)
		}
	}
}

// A scoped token alone closes the API too.
func TestTokenAloneCloses(t *testing.T) { overProtocols(t, testTokenAloneCloses) }

func testTokenAloneCloses(t *testing.T, p protocol) {
	e := p.newEdge(t, static("x"), func(s *Server, _ *site.Site) {
		s.Tokens.Set([]purge.Token{{Secret: "p", Scopes: []string{purge.ScopePurge}}})
	})
	if got := e.admin("GET", "/metrics", ""); got.status != 401 {
		t.Errorf("metrics: %d", got.status)
	}
	other := &Server{HTTP: "127.0.0.1:0", Admin: "0.0.0.0:0", Store: e.Store}
	other.Tokens.Set([]purge.Token{{Secret: "p"}})
	if err := other.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	serveAndStop(t, other)
}

// serveAndStop closes a server that listens.
func serveAndStop(t *testing.T, s *Server) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Serve(ctx); err != nil {
		t.Error(err)
	}
}

// Tokens change while the edge serves: what is not among them any more is refused at once.
func TestSetTokens(t *testing.T) { overProtocols(t, testSetTokens) }

func testSetTokens(t *testing.T, p protocol) {
	e := p.newEdge(t, static("x"), func(s *Server, _ *site.Site) { s.Tokens.Set([]purge.Token{full("old")}) })
	for _, c := range []struct {
		tokens   []purge.Token
		old, new int
	}{
		{[]purge.Token{full("old"), full("new")}, 200, 200},
		{[]purge.Token{full("new")}, 401, 200},
		{[]purge.Token{{Secret: "new", Scopes: []string{purge.ScopePurge}}}, 401, 403},
	} {
		e.Tokens.Set(c.tokens)
		for token, want := range map[string]int{"old": c.old, "new": c.new} {
			if got := e.admin("GET", "/v1/status", "", "Authorization: Bearer "+token); got.status != want {
				t.Errorf("with %v, the token %s: %d, want %d", c.tokens, token, got.status, want)
			}
		}
	}
}
