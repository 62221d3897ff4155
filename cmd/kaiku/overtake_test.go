package main

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// viaOwner finds a path for which the node fetches from another edge, and makes both store it.
func (n *testNode) viaOwner(t *testing.T, other string) (path string) {
	tries := 0
	testwait.Until(t, "a path is found that "+other+" owns", func() bool {
		tries++
		path = fmt.Sprintf("/%s/%d", other, tries)
		resp, _ := n.ask(t, path)
		return strings.Contains(strings.Join(resp.Header["Cache-Status"], ""), other)
	})
	return path
}

// Two soft purges come while the origin is slow. A request after the second one, to an edge that
// does not own the URL, gets and stores a response from after that purge.
func TestSoftPurgeOvertakesTheOwner(t *testing.T) {
	t.Parallel()
	var version, asked atomic.Int64
	var holds atomic.Bool
	held, release := sync.Map{}, make(chan struct{})
	nodes := startPurgedRegion(t, func(w http.ResponseWriter, r *http.Request) {
		v := version.Load()
		if _, before := held.LoadOrStore(r.URL.Path, true); holds.Load() && !before {
			asked.Add(1)
			<-release
		}
		w.Header().Set("Cache-Control", "max-age=1000")
		_, _ = io.WriteString(w, fmt.Sprint(v))
	}, "", "eu1", "eu2")
	paths := map[string]string{"eu1": nodes["eu1"].viaOwner(t, "eu2"), "eu2": nodes["eu2"].viaOwner(t, "eu1")}
	type answer struct{ path, body string }
	answers := make(chan answer, 16)
	ask := func() {
		for name, path := range paths {
			go func() {
				_, body := nodes[name].ask(t, path)
				answers <- answer{path, body}
			}()
		}
	}
	soft := `{"hosts":["www.example.com"],"soft":true}`
	nodes["eu1"].purge(t, soft)
	held.Clear()
	holds.Store(true)
	ask()
	testwait.Until(t, "the origin is asked for both", func() bool { return asked.Load() == 2 })
	version.Store(1)
	nodes["eu2"].purge(t, soft)
	ask()
	for range paths { // the requests from before the purge still wait
		if got := <-answers; got.body != "1" {
			t.Errorf("%s: version %s after the second purge", got.path, got.body)
		}
	}
	close(release)
	for range paths {
		if got := <-answers; got.body != "0" {
			t.Errorf("%s: version %s, want that of before the purge", got.path, got.body)
		}
	}
	for _, path := range paths {
		for name, n := range nodes {
			if _, body := n.ask(t, path); body != "1" {
				t.Errorf("%s at %s: version %s in the end", path, name, body)
			}
		}
	}
}

// If the origin fails after a soft purge, an edge does not store another edge's stale response as
// fresh, and neither its confirmation.
func TestSoftPurgedAnswerOfAPeer(t *testing.T) {
	t.Parallel()
	var version atomic.Int64
	var fails atomic.Bool
	nodes := startPurgedRegion(t, func(w http.ResponseWriter, r *http.Request) {
		v := fmt.Sprint(version.Load())
		if fails.Load() {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		w.Header().Set("Cache-Control", "max-age=1000, stale-if-error=1000")
		w.Header().Set("Etag", `"`+v+`"`)
		if r.Header.Get("If-None-Match") == `"`+v+`"` {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		_, _ = io.WriteString(w, v)
	}, "", "eu1", "eu2")
	paths := []string{nodes["eu1"].viaOwner(t, "eu2")}
	for i, owned := 0, 1; i < 32 || owned < 3; i++ { // eu2 owns few at first, as new servers start slowly
		path := fmt.Sprint("/", i)
		resp, _ := nodes["eu1"].ask(t, path)
		of2 := strings.Contains(strings.Join(resp.Header["Cache-Status"], ""), "eu2")
		if of2 {
			owned++
		}
		if of2 || i < 32 {
			paths = append(paths, path)
		}
	}
	nodes["eu1"].purge(t, `{"hosts":["www.example.com"],"soft":true}`)
	fails.Store(true)
	stale := map[string]int{}
	for _, path := range paths {
		for name, n := range nodes {
			switch resp, body := n.ask(t, path); {
			case resp.StatusCode == http.StatusOK && body == "0":
				stale[name]++
			case name == "eu1" || resp.StatusCode == http.StatusOK: // eu2 has nothing of what it takes for its own
				t.Errorf("%s at %s: %d, %q, %q", path, name, resp.StatusCode, body, resp.Header["Cache-Status"])
			}
		}
	}
	if stale["eu1"] != len(paths) || stale["eu2"] < 2 { // of one of them it is the owner
		t.Errorf("stale answers: %v of %d", stale, len(paths))
	}
	fails.Store(false)
	version.Store(1)
	for _, path := range paths {
		for name, n := range nodes {
			if resp, body := n.ask(t, path); body != "1" {
				t.Errorf("%s at %s: version %s, %q", path, name, body, resp.Header["Cache-Status"])
			}
		}
	}
}
