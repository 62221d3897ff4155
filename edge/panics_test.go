package edge

import (
	"bytes"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/kaiku-cdn/kaiku/edge/purge"
	"github.com/kaiku-cdn/kaiku/edge/site"
	"github.com/kaiku-cdn/kaiku/origin"
)

// syncBuffer is a buffer for several goroutines.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// A panic ends one request with 500, is logged as an error with its stack, and is counted. Here a
// site without a pool of servers makes the edge panic: of a POST in its handler, of a GET in the
// fetch.
func TestPanics(t *testing.T) { overProtocols(t, testPanics) }

func testPanics(t *testing.T, p protocol) {
	var log syncBuffer
	e := p.newEdge(t, func(http.ResponseWriter, *http.Request) {}, func(s *Server, _ *site.Site) {
		s.Log = slog.New(slog.NewTextHandler(&log, nil)) // from Info on, as in service
	})
	e.Sites.Set([]*site.Site{{Name: "broken", Hosts: []string{"www.example"}, Origin: &origin.Route{}}})
	if got := e.do(e.request("POST", "/p", "")); got.status != http.StatusInternalServerError ||
		!strings.Contains(got.header.Get("Cache-Status"), "internal-error") {
		t.Errorf("POST: %d %v", got.status, got.header)
	}
	if got := e.get("/g"); got.status/100 != 5 {
		t.Errorf("GET: %d %v", got.status, got.header)
	}
	for _, want := range []string{"level=ERROR", "panic in a request", "panic in a fetch", "origin.(*Pool)",
		"target=/p"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log does not have %q:\n%s", want, log.String())
		}
	}
	if got := e.admin("GET", "/metrics", ""); !strings.Contains(got.body, "\nkaiku_edge_panics_total 2\n") {
		t.Errorf("the panics are not counted:\n%s", got.body)
	}
	e.Sites.Set([]*site.Site{e.site})
	if got := e.get("/"); got.status != http.StatusOK {
		t.Errorf("after that: %d", got.status)
	}
}

// Profiles are for tokens with the scope debug.
func TestProfiles(t *testing.T) { overProtocols(t, testProfiles) }

func testProfiles(t *testing.T, p protocol) {
	e := p.newEdge(t, func(http.ResponseWriter, *http.Request) {}, func(s *Server, _ *site.Site) {
		s.Tokens.Set([]purge.Token{{Secret: "reads", Scopes: []string{purge.ScopeRead}},
			{Secret: "debugs", Scopes: []string{purge.ScopeDebug}}})
	})
	for token, want := range map[string]int{"": 401, "reads": 403, "debugs": 200} {
		fields := []string{}
		if token != "" {
			fields = []string{"Authorization: Bearer " + token}
		}
		if got := e.admin("GET", "/debug/pprof/goroutine", "", fields...); got.status != want {
			t.Errorf("with the token %q: %d, want %d", token, got.status, want)
		}
	}
}
