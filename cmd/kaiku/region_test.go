package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
	"github.com/kaiku-cdn/kaiku/cmd/kaiku/node"
	"github.com/kaiku-cdn/kaiku/fleet"
	"github.com/kaiku-cdn/kaiku/fleet/freeport"
)

// countingOrigin answers each path with the path itself, and counts requests.
type countingOrigin struct {
	*httptest.Server
	mu    sync.Mutex
	asked map[string]int
	loops http.Header // header of the last request
}

func newCountingOrigin(t *testing.T) *countingOrigin {
	o := &countingOrigin{asked: map[string]int{}}
	o.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/health" {
			o.mu.Lock()
			o.asked[r.URL.Path]++
			o.loops = r.Header.Clone()
			o.mu.Unlock()
		}
		w.Header().Set("Cache-Control", "max-age=600")
		w.Header().Set("Surrogate-Key", "all")
		_, _ = io.WriteString(w, r.URL.Path)
	}))
	t.Cleanup(o.Close)
	return o
}

// twice returns how many paths with a prefix were requested, and how many of them more than once.
func (o *countingOrigin) twice(prefix string) (paths, more int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for p, n := range o.asked {
		if strings.HasPrefix(p, prefix) {
			paths++
			if n > 1 {
				more++
			}
		}
	}
	return paths, more
}

// testNode is an edge of a fleet that runs in this process.
type testNode struct {
	http, admin, peer string
	client            *http.Client
	stop              func()
}

const regionKey = "0123456789abcdef0123456789abcdef0123"

// startRegion starts the edges eu1, eu2 and eu3 of one region, and us1 of another one, which is the
// shield. more is added to the origin in the fleet file.
func startRegion(t *testing.T, originURL string, more ...string) map[string]*testNode {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "fleet.key"), []byte(regionKey), 0o600); err != nil {
		t.Fatal(err)
	}
	nodes := map[string]*testNode{}
	text := fmt.Sprintf(`
sites:
  - name: www
    hosts: [www.example.com]
    origin: { servers: ["%s"], shield: us1 %s }
edge: { disk: 256MiB, memory: 32MiB }
secrets: { fleet_key: fleet.key }
nodes:
`, originURL, strings.Join(more, ""))
	for i, name := range []string{"eu1", "eu2", "eu3", "us1"} {
		n := &testNode{http: freeport.Addr(t), admin: freeport.Addr(t), peer: freeport.Addr(t)}
		nodes[name] = n
		text += fmt.Sprintf("  %s: { roles: [edge], region: %s, location: [0, 0], addresses: [127.0.0.%d], edge: { http: %q, admin: %q, peer: %q, data: %q } }\n",
			name, name[:2], i+1, n.http, n.admin, n.peer, filepath.Join(dir, name))
	}
	config := filepath.Join(dir, "fleet.yaml")
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, n := range nodes {
		n.start(t, config, name)
	}
	return nodes
}

// start runs the node until it is stopped or the test ends.
func (n *testNode) start(t *testing.T, fleetFile, name string) {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	p, err := node.New(fleetFile, name, []string{config.RoleEdge}, node.Overrides{}, log)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Edge.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Edge.Serve(ctx) }()
	transport := &http.Transport{MaxIdleConnsPerHost: 64,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, n.http)
		}}
	n.client = &http.Client{Transport: transport, Timeout: time.Minute}
	n.stop = sync.OnceFunc(func() {
		transport.CloseIdleConnections()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("%s: %v", name, err)
		}
	})
	t.Cleanup(func() { n.stop() })
}

// get requests a path, and fails the test unless the response is right.
func (n *testNode) get(t *testing.T, path string) http.Header {
	resp, err := n.client.Get("http://www.example.com" + path)
	if err != nil {
		t.Errorf("%s: %v", path, err)
		return nil
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 || string(body) != path {
		t.Errorf("%s: %d, %.80q, error %v", path, resp.StatusCode, body, err)
	}
	return resp.Header
}

// askAll requests n paths from each of some nodes, from all nodes at the same time.
func askAll(t *testing.T, prefix string, n int, nodes ...*testNode) {
	t.Helper()
	var wg sync.WaitGroup
	paths := make(chan string)
	for range 8 {
		wg.Go(func() {
			for p := range paths {
				var each sync.WaitGroup
				for _, node := range nodes {
					each.Go(func() { node.get(t, p) })
				}
				each.Wait()
			}
		})
	}
	for i := range n {
		paths <- fmt.Sprintf("%s/%d", prefix, i)
	}
	close(paths)
	wg.Wait()
}

func TestRegionIsOneCache(t *testing.T) {
	o := newCountingOrigin(t)
	nodes := startRegion(t, o.URL)
	eu1, eu2, eu3, us1 := nodes["eu1"], nodes["eu2"], nodes["eu3"], nodes["us1"]
	const keys = 2_000
	askAll(t, "/all", keys, eu1, eu2, eu3)
	if paths, more := o.twice("/all"); paths != keys || more != 0 {
		t.Errorf("the origin was asked for %d paths of %d, for %d of them more than once", paths, keys, more)
	}
	o.mu.Lock()
	if loop := o.loops.Get("Cdn-Loop"); !strings.Contains(loop, "kaiku; node=") || o.loops.Get("Kaiku-Tier") != "" {
		t.Errorf("the origin sees %v", o.loops)
	}
	o.mu.Unlock()
	if h := eu1.get(t, "/all/0"); h.Get("Surrogate-Key") != "" || !strings.Contains(h.Get("Cache-Status"), "eu1; hit") {
		t.Errorf("a client sees %v", h)
	}

	eu2.stop() // it owned a third of the keys
	askAll(t, "/without-owner", 1000, eu1, eu3)
	// While edges disagree about which of them are up, two of them may fetch the same path. That is
	// rare.
	if paths, more := o.twice("/without-owner"); paths != 1000 || more > 10 {
		t.Errorf("without eu2 the origin was asked for %d paths of 1000, for %d of them more than once", paths, more)
	}
	us1.stop()
	askAll(t, "/without-shield", 1000, eu1, eu3)
	if paths, more := o.twice("/without-shield"); paths != 1000 || more > 10 {
		t.Errorf("without the shield the origin was asked for %d paths of 1000, for %d of them more than once", paths,
			more)
	}
}

// Only edges of the fleet can use the listener for peers.
func TestPeersAlone(t *testing.T) {
	o := newCountingOrigin(t)
	nodes := startRegion(t, o.URL)
	key, err := fleet.NewKey([]byte(regionKey))
	if err != nil {
		t.Fatal(err)
	}
	nameServer, err := key.TLS("eu1", fleet.RoleGeoDNS)
	if err != nil {
		t.Fatal(err)
	}
	nameServer.ServerName = "eu1"
	for want, conf := range map[string]*tls.Config{"certificate required": {InsecureSkipVerify: true,
		NextProtos: []string{"h2"}}, "bad certificate": nameServer} {
		c, err := tls.Dial("tcp", nodes["eu1"].peer, conf)
		if err == nil { // in TLS 1.3, the first read of a client returns the error
			_ = c.SetDeadline(time.Now().Add(10 * time.Second))
			_, err = io.ReadAll(c)
			c.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %s: %v", want, err)
		}
	}
	// A client can't forge the fields for other tiers, and doesn't see the fields of peers.
	r, err := http.NewRequestWithContext(t.Context(), "GET", "http://www.example.com/forged", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Kaiku-Tier", "origin")
	resp, err := nodes["eu1"].client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if got := resp.Header.Values("Cache-Status"); len(got) < 2 {
		t.Errorf("the tiers were skipped: %q", got)
	}
}

// forward listens, and forwards each connection to an address.
func forward(t *testing.T, to string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				in.Close()
				continue
			}
			for _, way := range [][2]net.Conn{{in, out}, {out, in}} {
				go func() {
					_, _ = io.Copy(way[0], way[1])
					way[0].Close()
				}()
			}
		}
	}()
	return l.Addr().String()
}

// An origin that leads back to the edge is a loop, even where check can't find it.
func TestLoopIsRefused(t *testing.T) {
	dir := t.TempDir()
	n := &testNode{http: freeport.Addr(t), admin: freeport.Addr(t)}
	config := filepath.Join(dir, "fleet.yaml")
	text := fmt.Sprintf(`
sites: [{ name: www, hosts: [www.example.com], origin: { servers: ["http://%[4]s"] } }]
nodes: { eu1: { roles: [edge], location: [0, 0], addresses: [127.0.0.1], edge: { http: "%[1]s", admin: "%[2]s", data: "%[3]s", disk: 64MiB } } }
`, n.http, n.admin, filepath.Join(dir, "data"), forward(t, n.http))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	n.start(t, config, "eu1")
	resp, err := n.client.Get("http://www.example.com/round")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusLoopDetected {
		t.Errorf("status %d, %q", resp.StatusCode, resp.Header["Cache-Status"])
	}
}
