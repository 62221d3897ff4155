package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"
)

// fetch asks a node for a path with some fields, and returns the answer and its body.
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

// A page that was deleted goes from all tiers, though the origin's 404 can't be stored.
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
