package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
	"github.com/kaiku-cdn/kaiku/deploy"
	"github.com/kaiku-cdn/kaiku/edge/admin"
	"github.com/kaiku-cdn/kaiku/edge/purge"
	"github.com/kaiku-cdn/kaiku/fleet"
	"github.com/kaiku-cdn/kaiku/fleet/freeport"
	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// rotatedFleet has three nodes in this process, each with a folder of its own, and the operator's
// folder. All nodes are edges of one region. Control nodes are the first node or all.
type rotatedFleet struct {
	t      *testing.T
	config string // the operator's
	nodes  []*rotatedNode
	// version is the current version of the origin's objects.
	version atomic.Int64
	kept    atomic.Int64 // number of requests for /kept at the origin
}

// rotatedNode is a node of a rotatedFleet.
type rotatedNode struct {
	name, dir, http, admin string
	stop                   func()
	// drained is locked while the node restarts: clients skip it, as after a drain.
	drained sync.RWMutex
}

const rotatedObjects = 8

// newRotatedFleet starts the nodes, of which the first ones are control nodes.
func newRotatedFleet(t *testing.T, control int) *rotatedFleet {
	t.Helper()
	f := &rotatedFleet{t: t}
	f.version.Store(1)
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/kept" {
			f.kept.Add(1)
		}
		w.Header().Set("Cache-Control", "max-age=10000")
		fmt.Fprint(w, f.version.Load())
	}))
	t.Cleanup(origin.Close)
	dir := t.TempDir()
	f.config = filepath.Join(dir, "operator", "fleet.yaml")
	text := fmt.Sprintf(`
sites: [{ name: www, hosts: [www.example.com], origin: { servers: [%q] } }]
edge: { disk: 128MiB, memory: 16MiB }
secrets: { fleet_key: fleet.key, admin_token: admin.token }
nodes:
`, origin.URL)
	for i := range 3 {
		n := &rotatedNode{name: fmt.Sprint("n", i+1), http: freeport.Addr(t), admin: freeport.Addr(t)}
		n.dir = filepath.Join(dir, n.name)
		f.nodes = append(f.nodes, n)
		roles := "edge"
		if i < control {
			roles = "edge, control"
		}
		text += fmt.Sprintf("  %s: { roles: [%s], region: eu, location: [0, 0], addresses: [127.0.0.%d], edge: { http: %q, admin: %q, peer: %q, data: %q }, control: { listen: %q, cluster: %q, data: %q } }\n",
			n.name, roles, i+1, n.http, n.admin, freeport.Addr(t), n.dir+"/data", freeport.Addr(t), freeport.Addr(t),
			n.dir+"/control")
	}
	for name, text := range map[string]string{"fleet.yaml": text, "fleet.key": strings.Repeat("old-key ", 8) + "\n",
		"admin.token": "old-token\n"} {
		for _, dir := range append([]string{filepath.Dir(f.config)}, f.nodes[0].dir, f.nodes[1].dir, f.nodes[2].dir) {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, n := range f.nodes {
		f.start(n)
	}
	for _, n := range f.nodes {
		f.untilHealthy(n)
	}
	return f
}

// file returns the path of a file in the operator's folder.
func (f *rotatedFleet) file(name string) string { return filepath.Join(filepath.Dir(f.config), name) }

func (f *rotatedFleet) read(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		f.t.Fatal(err)
	}
	return string(b)
}

func (f *rotatedFleet) start(n *rotatedNode) {
	f.t.Helper()
	n.stop = runNode(f.t, filepath.Join(n.dir, "fleet.yaml"), n.name)
}

// running returns the fleet as a deploy of the operator's files queries it.
func (f *rotatedFleet) running() *deployFleet {
	f.t.Helper()
	file, _, err := config.Load(f.config)
	if err != nil {
		f.t.Fatal(err)
	}
	d, err := newDeployFleet(file)
	if err != nil {
		f.t.Fatal(err)
	}
	return d
}

func (f *rotatedFleet) untilHealthy(n *rotatedNode) {
	f.t.Helper()
	d, dial := f.running(), (&net.Dialer{}).DialContext
	var err error
	defer func() {
		if err != nil {
			f.t.Logf("%s: %v", n.name, err)
		}
	}()
	testwait.Until(f.t, n.name+" is healthy",
		func() bool { err = d.Healthy(f.t.Context(), n.name, dial); return err == nil })
}

// rotation returns a rotation of a file of the operator's. Its deploy does what the real one does:
// it brings the file to one node after the other, and restarts those whose fleet key changes while
// they are drained. A node that a deploy would refuse fails the test.
func (f *rotatedFleet) rotation(file string, stages []stage) *rotation {
	r := &rotation{file: f.file(file), stages: stages, again: "kaiku rotate",
		say: func(format string, a ...any) { f.t.Logf(format, a...) }}
	r.before = func(context.Context) (other, anything bool, err error) {
		for _, n := range f.nodes {
			other = other || f.read(filepath.Join(n.dir, file)) != f.read(r.file)
		}
		return other, other, nil
	}
	r.deploy = func(context.Context) error {
		d := f.running()
		for _, n := range f.nodes {
			if err := f.change(d, n, file); err != nil {
				return fmt.Errorf("node %s: %w", n.name, err)
			}
		}
		return nil
	}
	direct := func(context.Context, *config.Node) (deploy.DialFunc, func() error, error) {
		return (&net.Dialer{}).DialContext, func() error { return nil }, nil
	}
	r.taken = func(ctx context.Context, secret string) error {
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		d := f.running()
		if file == "fleet.key" {
			d.fleet.TLS.ACME = &config.ACME{} // these edges have no certificates, but they share a vault
			return d.reseal(ctx, direct)
		}
		return d.accepted(ctx, direct, secret)
	}
	return r
}

// change copies a file of the operator's to a node.
func (f *rotatedFleet) change(d *deployFleet, n *rotatedNode, file string) error {
	own, now := filepath.Join(n.dir, file), f.read(f.file(file))
	if file == "fleet.key" {
		if replaces, err := d.replacesKey(n.name, []byte(now), []byte(f.read(own))); err != nil || !replaces {
			return fmt.Errorf("its key would be replaced: %v, %w", replaces, err)
		}
		testwait.Until(f.t, n.name+" can be spared",
			func() bool { return d.Spare(f.t.Context(), n.name, (&net.Dialer{}).DialContext) == nil })
		n.drained.Lock()
		defer n.drained.Unlock()
		n.stop()
		defer f.untilHealthy(n)
		defer f.start(n)
	}
	return replaceFile(own, []byte(now))
}

// vault returns the vault of edges with the operator's fleet key.
func (f *rotatedFleet) vault() (v *fleet.Vault, close func()) {
	f.t.Helper()
	d := f.running()
	secrets, err := d.key.CertificateSecrets()
	if err != nil {
		f.t.Fatal(err)
	}
	c, _, err := d.client(f.t.Context(), d.fleet.Node("n1"), (&net.Dialer{}).DialContext, "n1", fleet.RoleEdge)
	if err != nil {
		f.t.Fatal(err)
	}
	return &fleet.Vault{Client: c, Secrets: secrets}, c.Close
}

// rotatedLoad has clients that get objects from all edges, and one client that purges.
type rotatedLoad struct {
	*rotatedFleet
	token atomic.Value // of the client that purges

	gets, purges atomic.Int64
	purged       [rotatedObjects]int64 // versions that every edge must have, by object
	last         uint64                // sequence of the last purge
	client       *http.Client
	every        func(pause time.Duration, do func(i int) bool)
	end          func()
}

func (f *rotatedFleet) load() *rotatedLoad {
	l := f.purging()
	for _, n := range f.nodes {
		l.every(50*time.Millisecond, func(i int) bool {
			if _, err := l.get(l.client, n, i%rotatedObjects); err != nil {
				f.t.Errorf("a request is lost: %v", err)
				return false
			}
			l.gets.Add(1)
			return true
		})
	}
	return l
}

// purging starts a load that only purges.
func (f *rotatedFleet) purging() *rotatedLoad {
	l := &rotatedLoad{rotatedFleet: f,
		client: &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}}
	l.token.Store("old-token")
	stop := make(chan struct{})
	var all sync.WaitGroup
	l.every = func(pause time.Duration, do func(i int) bool) {
		all.Go(func() {
			tick := time.NewTicker(pause)
			defer tick.Stop()
			for i := 0; do(i); i++ {
				select {
				case <-stop:
					return
				case <-tick.C:
				}
			}
		})
	}
	l.every(100*time.Millisecond, func(i int) bool {
		version := f.version.Add(1)
		if err := l.purge(l.client, i%rotatedObjects); err != nil {
			f.t.Errorf("a purge is lost: %v", err)
			return false
		}
		l.purged[i%rotatedObjects] = version
		l.purges.Add(1)
		return true
	})
	l.end = sync.OnceFunc(func() {
		close(stop)
		all.Wait()
	})
	f.t.Cleanup(l.end)
	return l
}

// get requests an object from a node.
func (l *rotatedLoad) get(client *http.Client, n *rotatedNode, object int) (version int64, err error) {
	n.drained.RLock()
	defer n.drained.RUnlock()
	r, err := http.NewRequest("GET", fmt.Sprintf("http://%s/%d", n.http, object), nil)
	if err != nil {
		return 0, err
	}
	r.Host = "www.example.com"
	resp, err := client.Do(r)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 {
		return 0, fmt.Errorf("%s: status %d, %q, %v", n.name, resp.StatusCode, body, err)
	}
	return strconv.ParseInt(string(body), 10, 64)
}

// purge purges an object through the first node that accepts the purge. While a node restarts, it
// uses another one. During an election of control nodes, it tries all again. A refused token is an
// error at once.
func (l *rotatedLoad) purge(client *http.Client, object int) error {
	var last error
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); {
		for _, n := range l.nodes {
			r, err := http.NewRequest("POST", "http://"+n.admin+"/v1/purge",
				strings.NewReader(fmt.Sprintf(`{"urls":["http://www.example.com/%d"]}`, object)))
			if err != nil {
				return err
			}
			r.Header.Set("Authorization", "Bearer "+l.token.Load().(string))
			r.Header.Set("Content-Type", "application/json")
			resp, err := client.Do(r)
			if err != nil {
				last = err
				continue
			}
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			var done purge.Response
			switch {
			case err != nil, resp.StatusCode == http.StatusServiceUnavailable:
				last = fmt.Errorf("%s: status %d, %q, %v", n.name, resp.StatusCode, body, err)
				continue
			case resp.StatusCode != 200:
				return fmt.Errorf("%s: status %d, %q", n.name, resp.StatusCode, body)
			}
			if err := json.Unmarshal(body, &done); err != nil {
				return err
			}
			if done.Sequence <= l.last {
				return fmt.Errorf("%s: sequence %d after %d", n.name, done.Sequence, l.last)
			}
			l.last = done.Sequence
			return nil
		}
	}
	return last
}

// lostNone ends the load, and checks that each edge has applied all purges.
func (l *rotatedLoad) lostNone() {
	l.t.Helper()
	l.end()
	l.t.Logf("%d requests and %d purges", l.gets.Load(), l.purges.Load())
	if l.purges.Load() < 20 {
		l.t.Errorf("%d purges are no load", l.purges.Load())
	}
	d, dial := l.running(), (&net.Dialer{}).DialContext
	for _, n := range l.nodes {
		testwait.Until(l.t, n.name+" has applied all purges", func() bool {
			st, err := d.status(l.t.Context(), d.fleet.Node(n.name), dial)
			return err == nil && slices.ContainsFunc(st.Nodes,
				func(s admin.NodeStatus) bool { return s.Node == n.name && s.Purges == l.last })
		})
		for object, want := range l.purged {
			if got, err := l.get(http.DefaultClient, n, object); err != nil || got < want {
				l.t.Errorf("%s has version %d of object %d, which was purged at %d: %v", n.name, got, object, want, err)
			}
		}
	}
}

// Both secrets are replaced under load. No request and no purge is lost, whether the purging client
// has the old token or the new one.
func TestRotateUnderLoad(t *testing.T) {
	f := newRotatedFleet(t, 3)
	vault, end := f.vault()
	testwait.Until(t, "the vault has a value", func() bool {
		_, err := vault.Save(t.Context(), "certificates/x", []byte("private"), 0)
		return err == nil
	})
	end()
	load := f.load()

	token := f.rotation("admin.token", tokenStages)
	token.sure = func() (bool, error) { // both tokens are valid, and the purging client gets the new one
		before := load.purges.Load()
		testwait.Until(t, "there are purges with the old token",
			func() bool { return load.purges.Load() > before+5 || t.Failed() })
		load.token.Store(strings.Fields(f.read(token.file))[1])
		return true, nil
	}
	if err := token.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	old := f.running()
	old.tokens = []string{"old-token"}
	for _, n := range f.nodes {
		testwait.Until(t, n.name+" refuses the old token", func() bool {
			_, err := old.status(t.Context(), old.fleet.Node(n.name), (&net.Dialer{}).DialContext)
			return err != nil && strings.Contains(err.Error(), "401")
		})
	}

	oldKey := f.running().key
	if err := f.rotation("fleet.key", keyStages).run(t.Context()); err != nil {
		t.Fatal(err)
	}
	load.lostNone()
	if knows, err := f.running().key.Knows(*oldKey); knows || err != nil {
		t.Errorf("the new key knows the old one: %v", err)
	}
	vault, end = f.vault()
	defer end()
	testwait.Until(t, "the vault answers", func() bool { _, err := vault.Keys(t.Context()); return err == nil })
	if value, _, _, err := vault.Load(t.Context(), "certificates/x"); err != nil || string(value) != "private" {
		t.Errorf("what edges share of certificates can't be read with the new key: %q, %v", value, err)
	}
}
