package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// fetch requests a path from a node with some fields. It returns the response and its body.
func (n *testNode) fetch(t *testing.T, path string, fields map[string]string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "GET", "http://www.example.com"+path, nil)
	if err != nil {
		t.Error(err)
		return nil, ""
	}
	for name, value := range fields {
		r.Header.Set(name, value)
	}
	resp, err := n.client.Do(r)
	if err != nil {
		t.Errorf("%s: %v", path, err)
		return nil, ""
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Errorf("%s: %v", path, err)
	}
	return resp, string(body)
}

// A deleted page disappears from all tiers, even if the origin's 404 can't be stored.
func TestSupersededThroughTiers(t *testing.T) {
	var deleted atomic.Bool
	o := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if deleted.Load() {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.Header().Set("Cache-Control", "max-age=1, stale-while-revalidate=86400, stale-if-error=86400")
		w.Header().Set("Age", "2")
		_, _ = io.WriteString(w, "page")
	}))
	defer o.Close()
	nodes := startRegion(t, o.URL)
	for name, n := range nodes {
		if resp, body := n.fetch(t, "/page", nil); resp == nil || body != "page" {
			t.Fatalf("%s: %v, %q", name, resp, body)
		}
	}
	deleted.Store(true)
	for name, n := range nodes {
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			resp, _ := n.fetch(t, "/page", nil)
			if resp == nil || resp.StatusCode == http.StatusNotFound {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("%s still has the deleted page: %v", name, resp.Header["Cache-Status"])
			}
		}
	}
	o.Close()
	for name, n := range nodes {
		if resp, body := n.fetch(t, "/page", nil); resp == nil || resp.StatusCode < 500 {
			t.Errorf("%s, once the origin is down: %v, %q", name, resp, body)
		}
	}
}

// Requests with credentials, and requests for a URL whose response is an error, reach the origin
// concurrently through all tiers.
func TestWhoCannotShareDoesNotQueueInTiers(t *testing.T) {
	const clients = 20
	for _, c := range []struct {
		path   string
		before int64
		token  bool
		status int
	}{{"/me", 0, true, 200}, {"/error", 1, false, 500}} {
		var asked atomic.Int64
		all := make(chan struct{})
		o := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if n := asked.Add(1); n == c.before+clients {
				close(all)
			} else if n > c.before {
				select {
				case <-all:
				case <-r.Context().Done():
					return
				}
			}
			if c.status == 200 {
				w.Header().Set("Cache-Control", "private, no-store")
			}
			w.WriteHeader(c.status)
			_, _ = io.WriteString(w, "for "+r.Header.Get("X-Me"))
		}))
		t.Cleanup(o.Close)
		nodes := startRegion(t, o.URL)
		var askers sync.WaitGroup
		ask := func(n *testNode, i int) {
			fields := map[string]string{"X-Me": fmt.Sprint(i)}
			if c.token {
				fields["Authorization"] = fmt.Sprintf("Bearer %d", i)
			}
			if resp, body := n.fetch(t, c.path, fields); resp == nil || resp.StatusCode != c.status ||
				body != fmt.Sprintf("for %d", i) {
				t.Errorf("%s, client %d: %v, %q", c.path, i, resp, body)
			}
		}
		for i := range c.before {
			ask(nodes["eu1"], int(i))
		}
		for i := range clients {
			askers.Go(func() { ask(nodes["eu1"], i) })
		}
		askers.Wait() // each gets an answer once all have come, or the client times out
	}
}

// Behind owner and shield too, once one request has waited in vain, later ones get the stored
// response at once.
func TestOriginThatHangsBehindTiers(t *testing.T) {
	var hangs atomic.Bool
	o := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if hangs.Load() {
			<-r.Context().Done()
			return
		}
		w.Header().Set("Cache-Control", "max-age=1, stale-if-error=86400")
		w.Header().Set("Age", "2")
		_, _ = io.WriteString(w, "old")
	}))
	t.Cleanup(o.Close)
	nodes := startRegion(t, o.URL, ", first_byte_timeout: 1500ms")
	for _, path := range []string{"/a", "/b"} {
		if resp, body := nodes["eu1"].fetch(t, path, nil); resp == nil || body != "old" {
			t.Fatalf("%s: %v, %q", path, resp, body)
		}
	}
	hangs.Store(true)
	nodes["eu1"].fetch(t, "/a", nil) // waits
	for _, name := range []string{"eu1", "us1"} {
		for range 5 {
			resp, body := nodes[name].fetch(t, "/a", nil)
			if resp == nil || body != "old" || !strings.Contains(strings.Join(resp.Header["Cache-Status"], ","),
				"hit; ttl=-") {
				t.Errorf("%s: %v, %q", name, resp, body)
			}
		}
	}
}

// A client that already has a private page gets a 304 through the tiers.
func TestConditionsThroughTiers(t *testing.T) {
	o := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "private")
		w.Header().Set("Etag", `"1"`)
		if r.Header.Get("If-None-Match") == `"1"` {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		_, _ = io.WriteString(w, "page")
	}))
	t.Cleanup(o.Close)
	nodes := startRegion(t, o.URL)
	for _, token := range []string{"", "Bearer ann"} {
		for range 2 {
			fields := map[string]string{"If-None-Match": `"1"`}
			if token != "" {
				fields["Authorization"] = token
			}
			if resp, body := nodes["eu1"].fetch(t, "/page"+token[:min(1, len(token))], fields); resp == nil ||
				resp.StatusCode != 304 || body != "" {
				t.Errorf("token %q: %v, %q", token, resp, body)
			}
		}
	}
}
