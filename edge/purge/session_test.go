package purge

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// signInServer serves the endpoints of sessions, one that needs the scope read, and one that needs
// purge.
func signInServer(t *testing.T, list ...Token) (*Tokens, *httptest.Server) {
	t.Helper()
	tokens := &Tokens{}
	tokens.Set(list)
	mux := http.NewServeMux()
	ok := func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "done") }
	for _, e := range append(tokens.Endpoints(),
		Endpoint{Method: "GET", Path: "/see", Scope: ScopeRead, Serve: ok, Fail: Fail},
		Endpoint{Method: "POST", Path: "/purge", Scope: ScopePurge, Serve: ok, Fail: Fail}) {
		mux.Handle(e.Method+" "+e.Path, tokens.Authorize(e))
	}
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return tokens, s
}

// browser is a client with a cookie and a key, which may be "".
type browser struct {
	t           *testing.T
	url         string
	cookie, key string
}

func (b browser) send(method, path, body string, fields ...string) (*http.Response, string) {
	b.t.Helper()
	r, err := http.NewRequestWithContext(b.t.Context(), method, b.url+path, strings.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	if b.cookie != "" {
		r.Header.Set("Cookie", b.cookie)
	}
	if b.key != "" {
		r.Header.Set(KeyField, b.key)
	}
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		r.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return resp, string(text)
}

func (b browser) status(method, path string) int {
	b.t.Helper()
	resp, _ := b.send(method, path, "")
	return resp.StatusCode
}

// signIn returns a browser that has signed in.
func (b browser) signIn(token string) browser {
	b.t.Helper()
	resp, text := b.send("POST", "/v1/session", fmt.Sprintf(`{"token":%q}`, token), "Content-Type: application/json")
	var in signedIn
	if err := json.Unmarshal([]byte(text), &in); err != nil || resp.StatusCode != 200 || len(resp.Cookies()) != 1 {
		b.t.Fatalf("%d, %s", resp.StatusCode, text)
	}
	c := resp.Cookies()[0]
	if !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Path != "/" || c.Secure || c.MaxAge <= 0 ||
		c.Value == token || in.Key == token || in.Key == c.Value {
		b.t.Errorf("the cookie is %v, the key %s", c, in.Key)
	}
	b.cookie, b.key = c.Name+"="+c.Value, in.Key
	return b
}

// A session is as good as its token, needs both of its halves, and ends.
func TestSessions(t *testing.T) {
	t.Parallel()
	tokens, s := signInServer(t, Token{Secret: "all", Scopes: Scopes()},
		Token{Secret: "r", Scopes: []string{ScopeRead}})
	stranger := browser{t: t, url: s.URL}
	all, read := stranger.signIn("all"), stranger.signIn("r")
	for _, c := range []struct {
		what       string
		b          browser
		see, purge int
	}{
		{"a stranger", stranger, 401, 401},
		{"all scopes", all, 200, 200},
		{"the scope read", read, 200, 403},
		{"a request of another web page, which has no key", browser{t, s.URL, all.cookie, ""}, 401, 401},
		{"the key of another session", browser{t, s.URL, all.cookie, read.key}, 401, 401},
		{"no cookie", browser{t, s.URL, "", all.key}, 401, 401},
		{"the token as the cookie", browser{t, s.URL, strings.SplitN(all.cookie, "=", 2)[0] + "=all", all.key}, 401,
			401},
		{"the cookie of another listener",
			browser{t, s.URL, "kaiku_1" + all.cookie[strings.IndexByte(all.cookie, '='):],
				all.key}, 401, 401},
	} {
		if see, purge := c.b.status("GET", "/see"), c.b.status("POST", "/purge"); see != c.see || purge != c.purge {
			t.Errorf("%s: %d and %d, want %d and %d", c.what, see, purge, c.see, c.purge)
		}
	}
	// Signing in again ends the session of before: a session that somebody planted is of no use.
	again := all.signIn("all")
	if all.status("GET", "/see") != 401 || again.status("GET", "/see") != 200 {
		t.Error("a session survives the next one")
	}
	if read.status("DELETE", "/v1/session"); read.status("GET", "/see") != 401 {
		t.Error("a session survives its end")
	}
	tokens.Set([]Token{{Secret: "new", Scopes: Scopes()}})
	if again.status("GET", "/see") != 401 {
		t.Error("a session survives its token")
	}
	tokens.Set([]Token{{Secret: "all", Scopes: Scopes()}})
	if again.status("GET", "/see") != 401 {
		t.Error("a session is back with its token")
	}
}

// A grant that is in use for long ends with its session, with its token, and with its scope.
func TestGrantsEnd(t *testing.T) {
	t.Parallel()
	tokens := &Tokens{}
	if !tokens.Holds(&Grant{}, ScopeRead) {
		t.Error("without tokens, nobody may see")
	}
	tokens.Set([]Token{{Secret: "a", Scopes: []string{ScopeRead}}})
	if tokens.Holds(&Grant{}, ScopeRead) {
		t.Error("with tokens, a stranger may see")
	}
	g := tokens.grant("a")
	if !tokens.Holds(g, ScopeRead) || tokens.Holds(g, ScopePurge) {
		t.Error("the grant isn't that of its token")
	}
	g.session = [32]byte{1}
	if tokens.Holds(g, ScopeRead) {
		t.Error("the grant of a session that ended holds")
	}
	tokens.sessions.by = map[[32]byte]session{{1}: {until: time.Now().Add(time.Hour)}}
	if !tokens.Holds(g, ScopeRead) {
		t.Error("the grant of a session doesn't hold")
	}
	tokens.sessions.by[[32]byte{1}] = session{until: time.Now().Add(-time.Second)}
	if tokens.Holds(g, ScopeRead) {
		t.Error("a session has no end")
	}
	g.session = [32]byte{}
	tokens.Set([]Token{{Secret: "a", Scopes: []string{ScopePurge}}})
	if tokens.Holds(g, ScopeRead) {
		t.Error("the token lost its scope, and the grant did not")
	}
}

// Somebody who guesses tokens has few attempts, and a web page can't sign its visitor in.
func TestSignInIsLimited(t *testing.T) {
	t.Parallel()
	_, s := signInServer(t, Token{Secret: "all", Scopes: Scopes()})
	b := browser{t: t, url: s.URL}
	try := func(body, kind string) int {
		resp, _ := b.send("POST", "/v1/session", body, "Content-Type: "+kind)
		return resp.StatusCode
	}
	for body, want := range map[string]int{`{"token":""}`: 401, `{}`: 401, `[]`: 400,
		`{"token":"` + strings.Repeat("x", maxSignIn) + `"}`: 400} {
		if got := try(body, "application/json"); got != want {
			t.Errorf("%.20s: %d, want %d", body, got, want)
		}
	}
	if got := try(`{"token":"all"}`, "text/plain"); got != 415 {
		t.Errorf("text/plain: %d", got)
	}
	last := 0
	for range failures + 1 {
		last = try(`{"token":"guess"}`, "application/json")
	}
	if last != 429 || try(`{"token":"all"}`, "application/json") != 429 {
		t.Errorf("after %d guesses: %d", failures, last)
	}
	resp, _ := b.send("GET", "/see", "", "Authorization: Bearer all")
	if resp.StatusCode != 200 {
		t.Errorf("a token in a request: %d", resp.StatusCode)
	}
}

// What browsers leave behind is bounded.
func TestSessionsAreBounded(t *testing.T) {
	t.Parallel()
	var s sessions
	now := time.Now()
	for i := range 2 * maxSessions {
		s.add(fmt.Sprint(i), session{until: now.Add(time.Hour + time.Duration(i))})
	}
	if len(s.by) != maxSessions {
		t.Errorf("%d sessions", len(s.by))
	}
	for i := range 2 * maxNetworks {
		s.failed(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 32))
	}
	if len(s.lost) != maxNetworks {
		t.Errorf("failures of %d networks", len(s.lost))
	}
}

// Without tokens, nobody signs in, and only requests by address are answered.
func TestSignInWithoutTokens(t *testing.T) {
	t.Parallel()
	_, s := signInServer(t)
	b := browser{t: t, url: s.URL}
	if resp, _ := b.send("POST", "/v1/session", `{"token":"x"}`,
		"Content-Type: application/json"); resp.StatusCode != 409 {
		t.Errorf("%d", resp.StatusCode)
	}
	if got := b.status("GET", "/see"); got != 200 {
		t.Errorf("%d", got)
	}
	r, err := http.NewRequestWithContext(t.Context(), "POST", s.URL+"/v1/session", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	r.Host = "rebound.example"
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusMisdirectedRequest {
		t.Errorf("by a name: %d", resp.StatusCode)
	}
}
