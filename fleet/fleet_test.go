package fleet

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// control is a control node that runs in the test.
type control struct {
	*Control
	stop func()
}

func logTo(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
}

func (c *control) start(t testing.TB) {
	t.Helper()
	if err := c.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Serve(ctx) }()
	c.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { c.stop() })
}

// dial connects a node to the control nodes.
func dial(t testing.TB, nodes []*control, name, role string) *Client {
	t.Helper()
	conf, err := key(t, "k").TLS(name, role)
	if err != nil {
		t.Fatal(err)
	}
	c := &Client{Node: name, TLS: conf, Log: logTo(t)}
	for _, n := range nodes {
		c.Servers = append(c.Servers, n.Addr)
	}
	if err := c.Dial(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// testEdge applies purges to a list.
type testEdge struct {
	*Follower
	mu     sync.Mutex
	purges []string
	lost   int
	stop   func()
}

func startEdge(t *testing.T, c *Client, from Position) *testEdge {
	t.Helper()
	e := &testEdge{}
	e.Follower = &Follower{Client: c, Start: from,
		Apply: func(purges []Logged, _ Position) error {
			e.mu.Lock()
			defer e.mu.Unlock()
			for _, p := range purges {
				e.purges = append(e.purges, string(p.Purge))
			}
			return nil
		},
		Lost: func(Position) error {
			e.mu.Lock()
			defer e.mu.Unlock()
			e.lost++
			return nil
		}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Serve(ctx) }()
	e.stop = sync.OnceFunc(func() {
		cancel()
		<-done
	})
	t.Cleanup(func() { e.stop() })
	return e
}

// last is the newest purge.
func (e *testEdge) last() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.purges[len(e.purges)-1]
}

func (e *testEdge) has() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.purges)
}

// append appends a purge, and tries again until it is taken.
func appendPurge(t testing.TB, c *Client, n int) uint64 {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; {
		seq, err := c.Append(t.Context(), fmt.Sprintf("%s-%d", c.Node, n), "", n)
		if err == nil {
			return seq
		}
		if time.Now().After(end) {
			t.Fatalf("purge %d: %v", n, err)
		}
	}
}

func TestPurgesReachEdges(t *testing.T) {
	dir := t.TempDir()
	nodes := startControl(t, dir, 1)
	a, b := dial(t, nodes, "hel1", RoleEdge), dial(t, nodes, "nyc1", RoleEdge)
	one, two := startEdge(t, a, Position{}), startEdge(t, b, Position{})
	testwait.Until(t, "both are in touch", func() bool { return one.InTouch() && two.InTouch() })
	for i := range 5 {
		if seq := appendPurge(t, a, i); seq != uint64(i+1) {
			t.Errorf("purge %d has sequence %d", i, seq)
		}
	}
	testwait.Until(t, "both have all", func() bool { return one.has() == 5 && two.has() == 5 })

	// One that was away gets what it missed, in order, before it is in touch.
	at := two.Applied()
	two.stop()
	for i := range 1000 {
		appendPurge(t, a, 5+i)
	}
	two = startEdge(t, b, at)
	testwait.Until(t, "it is in touch", two.InTouch)
	if n := two.has(); n != 1000 || two.lost != 0 {
		t.Errorf("in touch with %d of 1000 purges, lost %d times", n, two.lost)
	}
	for i, p := range two.purges {
		if p != fmt.Sprint(5+i) {
			t.Fatalf("purge %d is %s", i, p)
		}
	}

	// The log is replaced by an empty one: all that edges have is stale.
	lost := one.lost
	nodes[0].stop()
	nodes[0].Dir = filepath.Join(dir, "another")
	nodes[0].start(t)
	testwait.Until(t, "both know", func() bool {
		one.mu.Lock()
		defer one.mu.Unlock()
		two.mu.Lock()
		defer two.mu.Unlock()
		return one.lost > lost && two.lost > 0
	})
	appendPurge(t, a, 5000)
	testwait.Until(t, "purges go on", func() bool { return one.last() == "5000" })
}

// An edge that is cut off from the log stops trusting what it has.
func TestOutOfTouch(t *testing.T) {
	nodes := startControl(t, t.TempDir(), 1)
	c := dial(t, nodes, "hel1", RoleEdge)
	e := startEdge(t, c, Position{})
	testwait.Until(t, "it is in touch", e.InTouch)
	nodes[0].stop()
	e.MaxDisconnected = 100 * time.Millisecond
	testwait.Until(t, "it is not any more", func() bool { return !e.InTouch() })
	if _, err := c.Append(t.Context(), "x", "", 1); err == nil {
		t.Error("a purge was taken")
	}
	nodes[0].start(t)
	e.MaxDisconnected = time.Minute
	testwait.Until(t, "it is again", e.InTouch)
	if e.lost > 1 {
		t.Errorf("lost %d times", e.lost)
	}
}

func TestRegistry(t *testing.T) {
	nodes := startControl(t, t.TempDir(), 1)
	a, b := dial(t, nodes, "hel1", RoleEdge), dial(t, nodes, "ns1", RoleGeoDNS)
	e := startEdge(t, a, Position{})
	run := func(r *Registry) (stop func()) { return serveRegistry(t, r) }
	one := &Registry{Client: a, Edges: []string{"hel1"},
		Self: func() Lease { return Lease{Roles: []string{RoleEdge}, Ready: e.InTouch(), Applied: e.Applied()} }}
	two := &Registry{Client: b, Edges: []string{"hel1"},
		Self: func() Lease { return Lease{Roles: []string{RoleGeoDNS}} }}
	stop := run(one)
	run(two)
	find := func(r *Registry, name string) Lease {
		for _, l := range r.Nodes() {
			if l.Node == name {
				return l
			}
		}
		return Lease{}
	}
	testwait.Until(t, "each sees the other", func() bool { return find(one, "ns1").Live && find(two, "hel1").Ready })
	if err := a.Drain(t.Context(), "hel1", true); err != nil {
		t.Fatal(err)
	}
	testwait.Until(t, "the drain is seen", func() bool { return find(two, "hel1").Draining })

	seq := appendPurge(t, a, 1)
	for _, p := range two.Wait(t.Context(), seq) {
		if p.Node != "hel1" || !p.Applied || !p.Live {
			t.Errorf("progress %+v", p)
		}
	}
	// A control plane that is gone freezes what is known.
	nodes[0].stop()
	testwait.Until(t, "it is noticed", func() bool {
		two.mu.Lock()
		defer two.mu.Unlock()
		return time.Since(two.touched) > LeaseTime+time.Second
	})
	if l := find(two, "hel1"); !l.Live || !l.Draining {
		t.Errorf("without a control plane hel1 is %+v", l)
	}
	nodes[0].start(t)
	testwait.Until(t, "the leases are renewed",
		func() bool { return find(two, "hel1").Live && time.Since(find(two, "hel1").Renewed) < 2*time.Second })
	if !find(two, "hel1").Draining {
		t.Error("a drain is lost with a restart")
	}
	stop()
	testwait.Until(t, "who ends is gone", func() bool { return find(two, "hel1").Node == "" })
}

// leader is the control node that leads the log of purges.
func leader(t *testing.T, c *Client, nodes []*control) *control {
	t.Helper()
	var found *control
	testwait.Until(t, "the log has a leader", func() bool {
		stream, _, _, err := c.ready(t.Context())
		if err != nil {
			return false
		}
		info, err := stream.Info(t.Context())
		if err != nil || info.Cluster == nil {
			return false
		}
		for _, n := range nodes {
			if n.Node == info.Cluster.Leader {
				found = n
			}
		}
		return found != nil
	})
	return found
}

// Three control nodes, of which the leader is killed under a stream of purges: none that was
// acknowledged is lost or comes in another order.
func TestLeaderKilled(t *testing.T) {
	nodes := startControl(t, t.TempDir(), 3)
	c := dial(t, nodes, "hel1", RoleEdge)
	e := startEdge(t, dial(t, nodes, "nyc1", RoleEdge), Position{})
	testwait.Until(t, "the edge is in touch", e.InTouch)
	victim := leader(t, c, nodes)
	const purges = 500
	var seqs []uint64
	for i := range purges {
		if i == purges/3 {
			go victim.stop()
		}
		seqs = append(seqs, appendPurge(t, c, i))
	}
	testwait.Until(t, "the edge has all", func() bool { return e.Applied().Seq >= seqs[purges-1] })
	e.mu.Lock()
	defer e.mu.Unlock()
	next := 0
	for _, p := range e.purges {
		if next < purges && p == fmt.Sprint(next) {
			next++
		}
	}
	if next != purges || e.lost > 1 { // once at the start
		t.Errorf("after %d purges the order ends; lost %d times", next, e.lost)
	}
	for i := 1; i < purges; i++ {
		if seqs[i] <= seqs[i-1] {
			t.Fatalf("purge %d has sequence %d after %d", i, seqs[i], seqs[i-1])
		}
	}
}

// An edge behind a network that drops everything notices, stops trusting what it has, and catches
// up afterwards before it trusts it again.
func TestPartition(t *testing.T) {
	nodes := startControl(t, t.TempDir(), 1)
	wall := newRelay(t, nodes[0].Addr)
	c := dial(t, nodes, "hel1", RoleEdge)
	behind := dial(t, []*control{{Control: &Control{Addr: wall.Addr().String()}}}, "nyc1", RoleEdge)
	e := startEdge(t, behind, Position{})
	e.MaxDisconnected = 3 * time.Second
	testwait.Until(t, "it is in touch", e.InTouch)
	wall.set(true)
	for i := range 20 {
		appendPurge(t, c, i)
	}
	testwait.Until(t, "it notices", func() bool { return !e.InTouch() })
	if n := e.has(); n != 0 {
		t.Errorf("%d purges came through the wall", n)
	}
	wall.set(false)
	testwait.Until(t, "it is in touch again", e.InTouch)
	if n := e.has(); n != 20 {
		t.Errorf("it trusts what it has with %d of 20 purges", n)
	}
}

// Only nodes of the fleet may connect, and each may only do what its roles need.
func TestPermissions(t *testing.T) {
	nodes := startControl(t, t.TempDir(), 1)
	edge := dial(t, nodes, "hel1", RoleEdge)
	appendPurge(t, edge, 1)
	dns := dial(t, nodes, "ns1", RoleGeoDNS)
	testwait.Until(t, "ns1 is connected", dns.conn.IsConnected)
	if _, err := dns.Append(t.Context(), "x", "", 1); err == nil {
		t.Error("a name server purges")
	}
	if err := dns.Drain(t.Context(), "hel1", true); err == nil {
		t.Error("a name server drains")
	}
	// Nor by having the server deliver what it may write to the subject of purges.
	before, _, err := edge.position(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dns.js.CreateStream(t.Context(),
		jetstream.StreamConfig{Name: "X", Sources: []*jetstream.StreamSource{{Name: "KV_" + leaseBucket}},
			RePublish: &jetstream.RePublish{Source: ">", Destination: "purge.all"}}); err == nil {
		t.Error("a name server makes a stream")
	}
	if seq := appendPurge(t, edge, 2); seq != before.Seq+1 {
		t.Errorf("the purge after %d has sequence %d: somebody else wrote to the log", before.Seq, seq)
	}
	_, leases, _, err := edge.ready(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := leases.Put(t.Context(), "nyc1", []byte("{}")); err == nil {
		t.Error("an edge renews the lease of another")
	}
	// The credential of a node is that node, and may be limited to sites.
	text, err := key(t, "k").Credential("hel2", []string{RoleEdge}, []string{"www"})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "hel2.pem")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	limited, err := ReadKey(file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := limited.TLS("nyc1"); err == nil {
		t.Error("the credential of hel2 is that of nyc1")
	}
	if _, err := limited.Credential("nyc1", nil, nil); err == nil {
		t.Error("a credential makes credentials")
	}
	hel2conf, err := limited.TLS("hel2")
	if err != nil {
		t.Fatal(err)
	}
	hel2 := &Client{Node: "hel2", Servers: []string{nodes[0].Addr}, TLS: hel2conf, Log: slog.New(slog.DiscardHandler)}
	if err := hel2.Dial(); err != nil {
		t.Fatal(err)
	}
	defer hel2.Close()
	testwait.Until(t, "hel2 is connected", hel2.conn.IsConnected)
	if _, err := hel2.Append(t.Context(), "a", "www", 1); err != nil {
		t.Errorf("hel2 can't purge its site: %v", err)
	}
	for _, site := range []string{"shop", ""} {
		if _, err := hel2.Append(t.Context(), "b"+site, site, 1); err == nil {
			t.Errorf("hel2 purges site %q", site)
		}
	}
	conf, err := key(t, "z").TLS("hel1", RoleEdge)
	if err != nil {
		t.Fatal(err)
	}
	stranger := &Client{Node: "hel1", Servers: []string{nodes[0].Addr}, TLS: conf, Log: slog.New(slog.DiscardHandler)}
	if err := stranger.Dial(); err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	if _, err := stranger.Append(t.Context(), "x", "", 1); err == nil {
		t.Error("who has another fleet key purges")
	}
}
