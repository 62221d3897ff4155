package admin

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kaiku-cdn/kaiku/edge/purge"
	"github.com/kaiku-cdn/kaiku/edge/site"
	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// startNode serves a node that is no edge. stop ends it, and may be called again.
func startNode(t *testing.T, view FleetView, tokens ...purge.Token) (s *Server, stop func()) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	p := &purge.Purger{Node: "c1", Sites: &site.Table{}, Tokens: &purge.Tokens{}, Log: log}
	p.Tokens.Set(tokens)
	s = &Server{Address: "127.0.0.1:0", Purger: p, Fleet: view, Registry: prometheus.NewRegistry(), Log: log}
	if err := s.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return s, stop
}

// get sends a request with a token, which may be "".
func get(t *testing.T, s *Server, path, token string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+s.Addr().String()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

// nextEvent reads an event of a stream.
func nextEvent(t *testing.T, stream *bufio.Reader) (e LiveEvent) {
	t.Helper()
	line, err := stream.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	text, ok := strings.CutPrefix(line, "data: ")
	if err := json.Unmarshal([]byte(text), &e); err != nil || !ok {
		t.Fatalf("%q: %v", line, err)
	}
	if blank, err := stream.ReadString('\n'); err != nil || blank != "\n" {
		t.Fatalf("%q, %v", blank, err)
	}
	return e
}

// The stream begins with everything, and goes on with what has changed. It ends with its token, and
// with the node.
func TestLive(t *testing.T) {
	t.Parallel()
	s, stop := startNode(t, nil, purge.Token{Secret: "r", Scopes: []string{purge.ScopeRead}},
		purge.Token{Secret: "q", Scopes: []string{purge.ScopeRead}}, purge.Token{Secret: "p",
			Scopes: []string{purge.ScopePurge}})
	for token, want := range map[string]int{"": 401, "x": 401, "p": 403} {
		if resp := get(t, s, "/v1/live", token); resp.StatusCode != want {
			t.Errorf("%q: %d, want %d", token, resp.StatusCode, want)
		}
	}
	resp := get(t, s, "/v1/live", "r")
	if kind := resp.Header.Get("Content-Type"); resp.StatusCode != 200 || kind != "text/event-stream" {
		t.Fatalf("%d, %s", resp.StatusCode, kind)
	}
	stream, other := bufio.NewReader(resp.Body), bufio.NewReader(get(t, s, "/v1/live", "q").Body)
	if e := nextEvent(t, stream); !e.Whole || e.Node != "c1" || len(e.Nodes) != 1 || !e.Nodes[0].Live || e.Now == nil {
		t.Errorf("the first event is %+v", e)
	}
	if e := nextEvent(t, stream); e.Whole || len(e.Nodes) != 0 {
		t.Errorf("the second event is %+v", e)
	}
	s.Purger.Tokens.Set([]purge.Token{{Secret: "q", Scopes: []string{purge.ScopeRead}}})
	ends(t, stream)
	nextEvent(t, other)
	stop()
	ends(t, other)
}

// ends waits until a stream ends.
func ends(t *testing.T, stream *bufio.Reader) {
	t.Helper()
	for range 5 {
		if _, err := stream.ReadString('\n'); err != nil {
			return
		}
	}
	t.Error("the stream goes on")
}

// A node streams to a bounded number of pages.
func TestLiveIsBounded(t *testing.T) {
	t.Parallel()
	s, _ := startNode(t, nil)
	open := make([]*http.Response, maxListeners)
	for i := range open {
		open[i] = get(t, s, "/v1/live", "")
		nextEvent(t, bufio.NewReader(open[i].Body))
	}
	if resp := get(t, s, "/v1/live", ""); resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
		t.Errorf("one more stream: %d", resp.StatusCode)
	}
	open[0].Body.Close()
	testwait.Until(t, "there is room", func() bool { return get(t, s, "/v1/live", "").StatusCode == 200 })
}

// many is a fleet of many nodes.
type many struct {
	nodes   []NodeStatus
	reports []Reported
	points  []Point
	err     error
}

func (m *many) Progress(context.Context, uint64, bool) []purge.Progress { return nil }
func (m *many) Nodes() []NodeStatus                                     { return m.nodes }
func (m *many) Names() []string                                         { return []string{"n0", "c1", "off"} }
func (m *many) Drain(context.Context, string, bool) error               { return nil }
func (m *many) Location(node string) *[2]float64 {
	return map[string]*[2]float64{"off": {1,
		2}}[node]
}
func (m *many) NameServers() []string { return []string{"n0"} }

func (m *many) Reports(_ context.Context, since int64) ([]Reported, []Point, error) {
	var out []Point
	for _, p := range m.points {
		if p.At > since {
			out = append(out, p)
		}
	}
	return m.reports, out, m.err
}

// What is sent again is what has changed. A node that is gone makes everything be sent again.
func TestLiveSendsChanges(t *testing.T) {
	t.Parallel()
	m := &many{points: []Point{{At: 5}, {At: 6}}}
	for i := range 1000 {
		name := fmt.Sprint("n", i)
		m.nodes = append(m.nodes, NodeStatus{Node: name, Roles: []string{"edge"}, Live: true})
		m.reports = append(m.reports, Reported{Node: name, Report: Report{Location: &[2]float64{float64(i) / 20, 0},
			Rates: &Rates{Requests: 2, Hits: 1}, Seconds: []uint64{0, 0, 4}}})
	}
	s, _ := startNode(t, m)
	event := func(version uint64, past int64) (e LiveEvent, now uint64, last int64) {
		t.Helper()
		s.live.mu.Lock()
		s.refresh(t.Context(), testTime)
		s.live.at = testFuture
		s.live.mu.Unlock()
		b, now, last := s.liveEvent(t.Context(), version, past)
		if err := json.Unmarshal(bytes.TrimPrefix(b, []byte("data: ")), &e); err != nil {
			t.Fatal(err)
		}
		return e, now, last
	}
	e, version, past := event(0, 0)
	by := map[string]Live{}
	for _, n := range e.Nodes {
		by[n.Node] = n
	}
	if !e.Whole || len(by) != 1002 || past != 6 || len(e.Past) != 2 || e.Now.Requests != 2000 || e.Now.Edges != 1000 ||
		e.Now.P50 <= .0003 || e.Now.P99 > .001 {
		t.Errorf("%d nodes, past %d, now %+v", len(by), past, e.Now)
	}
	if n := by["n7"]; !n.Leased || n.Location[0] != .35 || n.Report.Rates.Requests != 2 {
		t.Errorf("n7 is %+v", n)
	}
	if n := by["off"]; n.Leased || n.Live || n.Location[1] != 2 {
		t.Errorf("a node without a lease is %+v", n)
	}
	m.nodes[3].Draining = true
	m.err = context.DeadlineExceeded
	e, version, past = event(version, past)
	if e.Whole || len(e.Nodes) != 1 || !e.Nodes[0].Draining || len(e.Past) != 0 || e.Error == "" {
		t.Errorf("after a change: %+v", e)
	}
	m.nodes, m.err = m.nodes[:999], nil
	if e, _, _ = event(version, past); !e.Whole || len(e.Nodes) != 1001 || e.Error != "" {
		t.Errorf("after a node went: %v, %d nodes", e.Whole, len(e.Nodes))
	}
}

// The page runs its own script only, and loads nothing.
func TestPageIsClosed(t *testing.T) {
	t.Parallel()
	s, _ := startNode(t, nil, purge.Token{Secret: "x", Scopes: purge.Scopes()})
	resp := get(t, s, "/", "")
	var body bytes.Buffer
	if _, err := body.ReadFrom(resp.Body); err != nil {
		t.Fatal(err)
	}
	text := body.String()
	for field, want := range map[string]string{"Content-Type": "text/html; charset=utf-8", "X-Frame-Options": "DENY",
		"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store"} {
		if got := resp.Header.Get(field); got != want {
			t.Errorf("%s: %q, want %q", field, got, want)
		}
	}
	policy := resp.Header.Get("Content-Security-Policy")
	for _, want := range []string{"default-src 'none'", "script-src 'sha256-", "style-src 'sha256-",
		"connect-src 'self'",
		"frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'", "require-trusted-types-for 'script'"} {
		if !strings.Contains(policy, want) {
			t.Errorf("the policy lacks %s: %s", want, policy)
		}
	}
	if strings.Contains(policy, "unsafe") || resp.StatusCode != 200 || len(text) > 150<<10 {
		t.Errorf("%d, %d bytes, %s", resp.StatusCode, len(text), policy)
	}
	for _, bad := range []string{`(?i)\son[a-z]+=`, `(?i)(src|href)="(https?:)?//`,
		`innerHTML|outerHTML|insertAdjacent|document\.write|eval\(`,
		`(?i)\sstyle="`, `javascript:`, `/\*(CSS|JS)\*/|<!--WORLD-->`} {
		if found := regexp.MustCompile(bad).FindString(text); found != "" {
			t.Errorf("the page has %q", found)
		}
	}
	if n := strings.Count(text, "<script"); n != 1 {
		t.Errorf("the page has %d scripts", n)
	}
	for _, path := range []string{"/x", "/index.html"} {
		if got := get(t, s, path, "x").StatusCode; got != 404 {
			t.Errorf("%s: %d", path, got)
		}
	}
}

// A page by another name than an address is refused if there are no tokens: it may be the name of
// another web page that leads here.
func TestPageByName(t *testing.T) {
	t.Parallel()
	s, _ := startNode(t, nil)
	for host, want := range map[string]int{"rebound.example": 421, "localhost": 200, "127.0.0.1:1": 200, "[::1]": 200} {
		for _, path := range []string{"/", "/v1/session"} {
			r, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+s.Addr().String()+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Host = host
			resp, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != want {
				t.Errorf("%s%s: %d, want %d", host, path, resp.StatusCode, want)
			}
		}
	}
}

// The page learns what its token may do.
func TestSessionSays(t *testing.T) {
	t.Parallel()
	s, _ := startNode(t, &many{}, purge.Token{Secret: "r", Scopes: []string{purge.ScopeRead}, Sites: []string{"www"}})
	s.Purger.Sites.Set([]*site.Site{{Name: "www", Hosts: []string{"www.example"}}})
	var got Session
	if err := json.NewDecoder(get(t, s, "/v1/session", "r").Body).Decode(&got); err != nil {
		t.Fatal(err)
	}
	want := Session{Node: "c1", SignedIn: true, NameServers: []string{"n0"}, Fleet: true, Scopes: []string{"read"},
		Sites: []string{"www"}, Hosts: []string{"www.example"}}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	resp := get(t, s, "/v1/explain/dns?name=x&client=192.0.2.1", "r")
	var e purge.ErrorResponse
	if err := json.NewDecoder(resp.Body).Decode(&e); err != nil || resp.StatusCode != 404 ||
		!strings.HasSuffix(e.Error, "to n0") {
		t.Errorf("%d, %s, %v", resp.StatusCode, e.Error, err)
	}
}
