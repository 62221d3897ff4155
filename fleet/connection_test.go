package fleet

import (
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// delivers counts the consumers of the log that are on a control node.
func (c *control) delivers(t *testing.T) int {
	t.Helper()
	all, err := c.nats().Jsz(&server.JSzOptions{Accounts: true, Streams: true, Consumer: true})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, a := range all.AccountDetails {
		for _, s := range a.Streams {
			for _, consumer := range s.Consumer {
				if s.Name == purgeStream && consumer.Cluster != nil && consumer.Cluster.Leader == c.Node {
					n++
				}
			}
		}
	}
	return n
}

// A node that had to take a control node that is far away moves to the nearest one when it is
// there, and no purge fails for it. What delivers the log to an edge is where the edge is connected
// to.
func TestMovesToTheNearest(t *testing.T) {
	nodes := startControl(t, t.TempDir(), 3)
	c := dial(t, nodes, "hel1", RoleEdge)
	replicasOf(t, c, 3)
	nodes[0].stop()
	far := dial(t, nodes, "nyc1", RoleEdge)
	testwait.Until(t, "it is connected to the second", func() bool { return far.server() == 1 })
	e := startEdge(t, far, Position{})
	testwait.Until(t, "the edge is in touch", e.InTouch)
	name := &Registry{Client: dial(t, nodes, "ns1", RoleGeoDNS)} // moves too
	serveParts(t, (&Registry{Client: far, Self: func() Lease { return Lease{Roles: []string{RoleEdge}} }}).Serve,
		name.Serve)
	live := func() bool {
		return slices.ContainsFunc(name.Nodes(), func(l Lease) bool { return l.Node == "nyc1" && l.Live })
	}
	testwait.Until(t, "the name server hears of the edge", live)
	nodes[0].start(t)
	purges := 0
	testwait.Until(t, "it has moved", func() bool {
		ctx := t.Context()
		if _, err := far.Append(ctx, "", "", purges); err != nil {
			t.Errorf("purge %d: %v", purges, err)
		}
		purges++
		if !live() {
			t.Error("the edge is taken for dead while it moves")
		}
		return far.server() == 0 && name.Client.server() == 0
	})
	appendPurge(t, far, purges)
	testwait.Until(t, "the edge has all", func() bool { return e.has() == purges+1 })
	testwait.Until(t, "the log comes from there", func() bool { return nodes[0].delivers(t) > 0 })
	if e.lost > 1 { // once at the start
		t.Errorf("lost %d times", e.lost)
	}
}

// Who was dead before a watcher moves is dead after it.
func TestDeadStayDead(t *testing.T) {
	nodes := startControl(t, t.TempDir(), 1)
	edge := &Registry{Client: dial(t, nodes, "nyc1", RoleEdge),
		Self: func() Lease { return Lease{Roles: []string{RoleEdge}} }}
	name := &Registry{Client: dial(t, nodes, "ns1", RoleGeoDNS),
		Self: func() Lease { return Lease{Roles: []string{RoleGeoDNS}} }}
	serveParts(t, name.Serve)
	testwait.Until(t, "the edge has a lease", func() bool {
		_, leases, _, err := edge.Client.ready(t.Context())
		return err == nil && edge.renew(t.Context(), leases) == nil
	})
	find := func(node string) (l Lease) {
		for _, n := range name.Nodes() {
			if n.Node == node {
				l = n
			}
		}
		return l
	}
	testwait.Until(t, "it is heard of", func() bool { return find("nyc1").Live })
	testwait.Until(t, "it is dead", func() bool { return !find("nyc1").Live })
	name.Client.move(t.Context(), 0)
	moved := time.Now()
	testwait.Until(t, "the name server is heard of again", func() bool {
		if find("nyc1").Live {
			t.Fatal("it lives again")
		}
		return find("ns1").Renewed.After(moved.Add(2 * renewEvery)) // two rounds with the new watch
	})
}

// A control plane that refuses connections is down; an edge that hears nothing at all may be cut
// off from one that is not, and is so until it has caught up.
func TestCutOff(t *testing.T) {
	nodes := startControl(t, t.TempDir(), 1)
	wall := newRelay(t, nodes[0].Addr)
	c := dial(t, nodes, "hel1", RoleEdge)
	e := startEdge(t, dial(t, []*control{{Control: &Control{Addr: wall.Addr().String()}}}, "nyc1", RoleEdge),
		Position{})
	near := startEdge(t, c, Position{})
	testwait.Until(t, "both are in touch", func() bool { return e.InTouch() && !e.CutOff() && near.InTouch() })
	wall.set(true)
	for i := range 20 {
		appendPurge(t, c, i)
	}
	testwait.Until(t, "it notices", e.CutOff)
	if !e.InTouch() || near.CutOff() {
		t.Errorf("in touch %v; one that is not cut off is %v", e.InTouch(), near.CutOff())
	}
	wall.set(false)
	testwait.Until(t, "it is not any more", func() bool { return !e.CutOff() })
	if n := e.has(); n != 20 {
		t.Errorf("it trusts what it has with %d of 20 purges", n)
	}
	nodes[0].stop()
	testwait.Until(t, "it is out of touch for long",
		func() bool { return age(*near.touched.Load()) > quietAfter+time.Second })
	if near.CutOff() {
		t.Error("an edge takes itself for cut off when the control node refuses it")
	}
}

// A node whose fleet key is another one is told so, whichever side refuses the other.
func TestOtherKeyIsTold(t *testing.T) {
	nodes := startControl(t, t.TempDir(), 1)
	for letters, other := range map[string]bool{"k": false, "kz": false, "z": true, "zk": true} {
		conf, err := keys(t, letters).TLS("hel1", RoleEdge)
		if err != nil {
			t.Fatal(err)
		}
		log := &lockedLog{}
		c := &Client{Node: "hel1", Servers: []string{nodes[0].Addr}, TLS: conf,
			Log: slog.New(slog.NewTextHandler(log, nil))}
		if err := c.Dial(); err != nil {
			t.Fatal(err)
		}
		testwait.Until(t, "the log tells of a connection, or why there is none",
			func() bool { return log.has("connected") || log.has("their fleet keys differ") })
		if log.has("their fleet keys differ") != other {
			t.Errorf("with %s, the log has\n%s", letters, log)
		}
		c.Close()
	}
}

// lockedLog is a log that can be read while it is written.
type lockedLog struct {
	mu   sync.Mutex
	text string
}

// Write writes.
func (l *lockedLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text += string(b)
	return len(b), nil
}

// String is all of it.
func (l *lockedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text
}

func (l *lockedLog) has(text string) bool { return strings.Contains(l.String(), text) }
