package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
	"github.com/kaiku-cdn/kaiku/cmd/kaiku/node"
	"github.com/kaiku-cdn/kaiku/fleet/freeport"
)

// until waits for what other goroutines bring about.
func until(t testing.TB, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(60 * time.Second); !cond(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// listenOn is an address in place of that of the fleet file, unless it is "".
func listenOn(addr string) []string {
	if addr == "" {
		return nil
	}
	return []string{addr}
}

// runNode runs all roles of a node of a fleet file until stop is called.
func runNode(t *testing.T, fleetFile, name string) (stop func()) {
	t.Helper()
	f, _, err := config.Load(fleetFile)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	p, err := node.New(fleetFile, name, f.Node(name).Roles, node.Overrides{}, log)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("%s: %v", name, err)
		}
	})
	t.Cleanup(func() { stop() })
	return stop
}

// command runs a command of kaiku.
func command(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	err := run(t.Context(), args, &out, io.Discard)
	return out.String(), err
}

// Two edges and a control node: a purge at one edge reaches the other, also after that slept.
func TestPurgeReachesEveryEdge(t *testing.T) {
	o := newCountingOrigin(t)
	dir := t.TempDir()
	names, control := []string{"hel1", "nyc1"}, freeport.Addr(t)
	nodes := map[string]*testNode{}
	text := fmt.Sprintf(`
sites: [{ name: www, hosts: [www.example.com], origin: { servers: ["%s"] } }]
edge: { disk: 128MiB, memory: 16MiB }
secrets: { fleet_key: fleet.key }
nodes:
  c1: { roles: [control], addresses: [127.0.0.9], admin: %q, control: { listen: %q, data: %q } }
`, o.URL, control, freeport.Addr(t), filepath.Join(dir, "c1"))
	for i, name := range names {
		n := &testNode{http: freeport.Addr(t), admin: freeport.Addr(t)}
		nodes[name] = n
		n.client = &http.Client{Timeout: time.Minute}
		text += fmt.Sprintf("  %s: { roles: [edge], location: [0, 0], addresses: [127.0.0.%d], edge: { http: %q, admin: %q, data: %q } }\n",
			name, i+1, n.http, n.admin, filepath.Join(dir, name))
	}
	config := filepath.Join(dir, "fleet.yaml")
	for file, content := range map[string]string{config: text,
		filepath.Join(dir, "fleet.key"): "0123456789abcdef0123456789abcdef0123"} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	runNode(t, config, "c1")
	stops := map[string]func(){}
	for _, name := range names {
		stops[name] = runNode(t, config, name)
	}
	get := func(name, path string) (status int, cache string) {
		r, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+nodes[name].http+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = "www.example.com"
		resp, err := nodes[name].client.Do(r)
		if err != nil {
			return 0, err.Error()
		}
		defer resp.Body.Close()
		_, _ = io.Copy(io.Discard, resp.Body)
		return resp.StatusCode, resp.Header.Get("Cache-Status")
	}
	healthy := func(name string) bool {
		status, _ := get(name, "/.kaiku/health")
		return status == 200
	}
	for _, name := range names {
		until(t, name+" trusts what it has", func() bool { return healthy(name) })
		get(name, "/a")
		if _, cache := get(name, "/a"); !strings.Contains(cache, "; hit") {
			t.Errorf("%s: %s", name, cache)
		}
	}
	out, err := command(t, "purge", "--all", "--wait", "--admin", nodes["hel1"].admin)
	if err != nil || !strings.Contains(out, "hel1  applied after") || !strings.Contains(out, "nyc1  applied after") {
		t.Errorf("purge: %v\n%s", err, out)
	}
	for _, name := range names {
		if _, cache := get(name, "/a"); strings.Contains(cache, "; hit") {
			t.Errorf("%s has what was purged: %s", name, cache)
		}
	}
	// A node that is no edge takes purges too.
	if out, err = command(t, "purge", "http://www.example.com/none", "--wait", "--admin", control); err != nil ||
		!strings.Contains(out, "nyc1  applied after") {
		t.Errorf("purge at the control node: %v\n%s", err, out)
	}
	if out, err = command(t, "drain", "nosuch", "--admin", control); err == nil ||
		!strings.Contains(err.Error(), `there is no node "nosuch": the nodes are c1, hel1, nyc1`) {
		t.Errorf("drain of a node that is not there: %v\n%s", err, out)
	}
	if out, err = command(t, "drain", "nyc1", "--admin", control); err != nil {
		t.Errorf("drain: %v\n%s", err, out)
	}
	until(t, "status tells of the drain", func() bool {
		out, err = command(t, "status", "--admin", nodes["hel1"].admin)
		return err == nil && strings.Contains(out, "draining")
	})

	// One sleeps while purges happen. The first that it says afterwards knows them.
	stops["nyc1"]()
	for i := range 1000 {
		if out, err := command(t, "purge", fmt.Sprintf("http://www.example.com/other/%d", i), "--admin",
			nodes["hel1"].admin); err != nil {
			t.Fatalf("purge: %v\n%s", err, out)
		}
	}
	if out, err := command(t, "purge", "http://www.example.com/a", "--admin", nodes["hel1"].admin); err != nil {
		t.Fatalf("purge: %v\n%s", err, out)
	}
	hammer, ended := make(chan struct{}), make(chan string, 1)
	go func() { // from the first moment that it takes connections
		bad := ""
		for {
			select {
			case <-hammer:
				ended <- bad
				return
			default:
			}
			before := o.count("/a")
			if status, cache := get("nyc1", "/a"); status == 200 && strings.Contains(cache, "; hit") && before < 5 {
				bad = cache
			}
		}
	}()
	runNode(t, config, "nyc1")
	until(t, "it is in touch and hits again", func() bool {
		_, cache := get("nyc1", "/a")
		return healthy("nyc1") && strings.Contains(cache, "; hit")
	})
	close(hammer)
	if bad := <-ended; bad != "" {
		t.Errorf("a hit of what was purged while it slept: %s", bad)
	}
	if n := o.count("/a"); n < 5 { // once and after the first purge for each, and after the second for who slept
		t.Errorf("the origin was asked %d times", n)
	}
}

// count is how often a path was asked for.
func (o *countingOrigin) count(path string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.asked[path]
}
