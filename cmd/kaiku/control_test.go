package main

import (
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/fleet/freeport"
	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// purgeFleet is a control node and two edges with one origin.
type purgeFleet struct {
	file    string
	control string               // admin address of the control node
	nodes   map[string]*testNode // the edges
	origin  *countingOrigin
}

var purgeEdges = []string{"hel1", "nyc1"}

// startPurgeFleet starts the nodes, which run until the test ends.
func startPurgeFleet(t *testing.T) *purgeFleet {
	t.Helper()
	dir := t.TempDir()
	f := &purgeFleet{file: filepath.Join(dir, "fleet.yaml"), control: freeport.Addr(t), nodes: map[string]*testNode{},
		origin: newCountingOrigin(t)}
	text := fmt.Sprintf(`
sites: [{ name: www, hosts: [www.example.com], origin: { servers: ["%s"] } }]
edge: { disk: 128MiB, memory: 16MiB }
secrets: { fleet_key: fleet.key }
nodes:
  c1: { roles: [control], addresses: [127.0.0.9], admin: %q, control: { listen: %q, data: %q } }
`, f.origin.URL, f.control, freeport.Addr(t), filepath.Join(dir, "c1"))
	for i, name := range purgeEdges {
		n := &testNode{http: freeport.Addr(t), admin: freeport.Addr(t), client: &http.Client{Timeout: time.Minute}}
		f.nodes[name] = n
		text += fmt.Sprintf("  %s: { roles: [edge], location: [0, 0], addresses: [127.0.0.%d], edge: { http: %q, admin: %q, data: %q } }\n",
			name, i+1, n.http, n.admin, filepath.Join(dir, name))
	}
	writeFiles(t, dir, map[string]string{"fleet.yaml": text, "fleet.key": regionKey})
	runNode(t, f.file, "c1")
	for _, name := range purgeEdges {
		f.nodes[name].stop = runNode(t, f.file, name)
	}
	return f
}

// get requests a path from an edge. The status is 0 if the edge does not answer.
func (f *purgeFleet) get(t *testing.T, name, path string) (status int, cache string) {
	r, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+f.nodes[name].http+path, nil)
	if err != nil {
		t.Error(err)
		return 0, ""
	}
	r.Host = "www.example.com"
	resp, err := f.nodes[name].client.Do(r)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, resp.Header.Get("Cache-Status")
}

func (f *purgeFleet) healthy(t *testing.T, name string) bool {
	status, _ := f.get(t, name, "/.kaiku/health")
	return status == 200
}

// A purge at one edge reaches the other edge, even if that was down at the time.
func TestPurgeReachesEveryEdge(t *testing.T) {
	f := startPurgeFleet(t)
	for _, step := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"fill both edges", f.fill},
		{"purge at an edge", f.purgeAtEdge},
		{"purge and drain at the control node", f.purgeAtControl},
		{"purge while an edge is down", f.purgeWhileDown},
	} {
		if !t.Run(step.name, step.run) {
			return // the next step builds on it
		}
	}
	// Each edge fetched at the start and after the first purge, and nyc1 after the second one.
	if n := f.origin.count("/a"); n < 5 {
		t.Errorf("the origin was asked %d times", n)
	}
}

func (f *purgeFleet) fill(t *testing.T) {
	for _, name := range purgeEdges {
		testwait.Until(t, name+" trusts what it has", func() bool { return f.healthy(t, name) })
		f.get(t, name, "/a")
		if _, cache := f.get(t, name, "/a"); !strings.Contains(cache, "; hit") {
			t.Errorf("%s: %s", name, cache)
		}
	}
}

func (f *purgeFleet) purgeAtEdge(t *testing.T) {
	out, err := command(t, "purge", "--all", "--wait", "--admin", f.nodes["hel1"].admin)
	if err != nil || !strings.Contains(out, "hel1  applied after") || !strings.Contains(out, "nyc1  applied after") {
		t.Errorf("purge: %v\n%s", err, out)
	}
	for _, name := range purgeEdges {
		if _, cache := f.get(t, name, "/a"); strings.Contains(cache, "; hit") {
			t.Errorf("%s has what was purged: %s", name, cache)
		}
	}
}

func (f *purgeFleet) purgeAtControl(t *testing.T) {
	out, err := command(t, "purge", "http://www.example.com/none", "--wait", "--admin", f.control)
	if err != nil || !strings.Contains(out, "nyc1  applied after") {
		t.Errorf("purge at the control node: %v\n%s", err, out)
	}
	if out, err = command(t, "drain", "nosuch", "--admin", f.control); err == nil ||
		!strings.Contains(err.Error(), `there is no node "nosuch": the nodes are c1, hel1, nyc1`) {
		t.Errorf("drain of a node that is not there: %v\n%s", err, out)
	}
	if out, err = command(t, "drain", "nyc1", "--admin", f.control); err != nil {
		t.Errorf("drain: %v\n%s", err, out)
	}
	testwait.Until(t, "status shows the drain", func() bool {
		out, err = command(t, "status", "--admin", f.nodes["hel1"].admin)
		return err == nil && strings.Contains(out, "draining")
	})
}

// purgeWhileDown purges while nyc1 is down. The first response of nyc1 after its restart must
// respect the purges.
func (f *purgeFleet) purgeWhileDown(t *testing.T) {
	f.nodes["nyc1"].stop()
	for i := range 1000 {
		if out, err := command(t, "purge", fmt.Sprintf("http://www.example.com/other/%d", i), "--admin",
			f.nodes["hel1"].admin); err != nil {
			t.Fatalf("purge: %v\n%s", err, out)
		}
	}
	if out, err := command(t, "purge", "http://www.example.com/a", "--admin", f.nodes["hel1"].admin); err != nil {
		t.Fatalf("purge: %v\n%s", err, out)
	}
	stop, ended := make(chan struct{}), make(chan string, 1)
	go func() { // send requests from the first moment at which nyc1 accepts connections
		bad := ""
		for {
			select {
			case <-stop:
				ended <- bad
				return
			default:
			}
			before := f.origin.count("/a")
			status, cache := f.get(t, "nyc1", "/a")
			if status == 200 && strings.Contains(cache, "; hit") && before < 5 {
				bad = cache
			}
		}
	}()
	runNode(t, f.file, "nyc1")
	testwait.Until(t, "nyc1 is in touch and hits again", func() bool {
		_, cache := f.get(t, "nyc1", "/a")
		return f.healthy(t, "nyc1") && strings.Contains(cache, "; hit")
	})
	close(stop)
	if bad := <-ended; bad != "" {
		t.Errorf("nyc1 gave a hit that was purged while it was down: %s", bad)
	}
}

// count returns how often a path was requested.
func (o *countingOrigin) count(path string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.asked[path]
}
