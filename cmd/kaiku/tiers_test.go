package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// What rules choose holds on all tiers: the owner of a key and the shield fetch from the origin
// that the first edge chose, and keep what differs by the key apart. Traces pass through all of
// them.
func TestRulesThroughTiers(t *testing.T) {
	t.Parallel()
	const trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	var mu sync.Mutex
	asked := map[string]int{}
	start := func(name string) string {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			what := name + " " + r.URL.Path + " " + r.Header.Get("X-Device")
			mu.Lock()
			asked[what]++
			mu.Unlock()
			for field := range r.Header {
				if strings.HasPrefix(field, "Kaiku-") && field != "Kaiku-Purges" {
					t.Errorf("the origin sees %s", field)
				}
			}
			if got := r.Header.Get("Traceparent"); got != trace {
				t.Errorf("%s: traceparent %q", what, got)
			}
			if via := strings.Count(strings.Join(r.Header["Via"], ","), "us1"); via != 1 {
				t.Errorf("%s came by way of %s", what, r.Header["Via"])
			}
			w.Header().Set("Cache-Control", "max-age=600")
			_, _ = io.WriteString(w, what)
		}))
		t.Cleanup(srv.Close)
		return srv.URL
	}
	nodes := startRegion(t, start("main"), fmt.Sprintf(` }
    origins: { spare: { servers: [%q], shield: us1 } }
    rules:
      - { match: { header: { X-Beta: "" } }, origin: spare }
      - { match: { path: [/values/*] }, cache: { key: { header: [X-Device] } } }
    cache: { `, start("spare")))
	for i := range 9 { // their owners differ
		for _, name := range []string{"eu1", "eu2", "eu3", "eu1"} {
			for _, c := range []struct{ path, device, beta, origin string }{
				{"/values/%d", "tv", "", "main"}, {"/values/%d", "phone", "", "main"},
				{"/values/%d", "tv", "1", "spare"}, {"/plain/%d", "", "", "main"}, {"/plain/%d", "", "1", "spare"},
			} {
				r, err := http.NewRequestWithContext(t.Context(), "GET",
					"http://www.example.com"+fmt.Sprintf(c.path, i), nil)
				if err != nil {
					t.Fatal(err)
				}
				r.Header.Set("Traceparent", trace)
				r.Header.Set("Kaiku-Key", strings.Repeat("0", 32)) // of a client it means nothing
				r.Header.Set("Kaiku-Origin", "spare")
				if c.device != "" {
					r.Header.Set("X-Device", c.device)
				}
				if c.beta != "" {
					r.Header.Set("X-Beta", c.beta)
				}
				resp, err := nodes[name].client.Do(r)
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if want := c.origin + " " + r.URL.Path + " " + c.device; err != nil || string(body) != want {
					t.Errorf("%s from %s: %q, want %q (%v)", r.URL.Path, name, body, want, err)
				}
			}
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(asked) != 9*5 {
		t.Errorf("the origins were asked for %d responses of %d", len(asked), 9*5)
	}
	for what, n := range asked {
		if n > 1 {
			t.Errorf("the origin was asked %d times for %s", n, what)
		}
	}
}
