package admin

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kaiku-cdn/kaiku/edge/purge"
	"github.com/kaiku-cdn/kaiku/edge/site"
)

// A node that is no edge answers what it can, and refuses the rest with a reason. Fields of what it
// lacks are nil.
func TestNodeThatIsNoEdge(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	p := &purge.Purger{Node: "c1", Sites: &site.Table{}, Tokens: &purge.Tokens{}, Log: log}
	p.Sites.Set([]*site.Site{{Name: "www", Hosts: []string{"www.example"}}})
	s := &Server{Address: "127.0.0.1:0", Purger: p, Registry: prometheus.NewRegistry(), Log: log}
	if err := s.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	for _, c := range []struct {
		method, path, body string
		status             int
		says               string
	}{
		{"GET", HealthPath, "", 200, "ok"},
		{"GET", "/v1/status", "", 200, `"name":"c1"`},
		{"GET", "/metrics", "", 200, "kaiku_edge_panics_total 0"},
		{"GET", "/v1/explain?url=http://www.example/", "", 404, "this node is not an edge"},
		{"POST", "/v1/warm", `{"urls":["http://www.example/"]}`, 404, "this node is not an edge"},
		{"POST", "/v1/purge", `{"all":true}`, 503, "this node is not an edge, and the fleet has no control plane"},
		{"GET", "/v1/purges/1", "", 200, `"sequence":1`},
		{"PUT", "/v1/nodes/c1/drain", "", 409, "no control plane"},
	} {
		r, err := http.NewRequestWithContext(t.Context(), c.method, "http://"+s.Addr().String()+c.path,
			strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != c.status || !strings.Contains(string(body), c.says) {
			t.Errorf("%s %s: %d, %s, %v; want %d, %s", c.method, c.path, resp.StatusCode, body, err, c.status, c.says)
		}
	}
}
