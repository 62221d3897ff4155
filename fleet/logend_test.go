package fleet

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"testing"
	"time"
)

// apart makes control nodes whose connections to each other can be cut.
func apart(t *testing.T, n int) (nodes []*control, cut func(node int, cut bool)) {
	t.Helper()
	nodes = makeControl(t, t.TempDir(), n)
	ways := make([][]*relay, n) // by from, to
	for from, c := range nodes {
		ways[from] = make([]*relay, n)
		c.Peers = nil
		for to, o := range nodes {
			if to != from {
				ways[from][to] = newRelay(t, o.Cluster)
				c.Peers = append(c.Peers, ways[from][to].Addr().String())
			}
		}
	}
	for _, c := range nodes {
		c.start(t)
	}
	for from, c := range nodes {
		until(t, "control nodes connect to each other by relays alone", func() bool {
			own, all := routesBy(t, c, ways[from])
			if !own {
				c.restart(t)
			}
			return own && all
		})
	}
	return nodes, func(node int, cut bool) {
		for other := range nodes {
			if other != node {
				ways[node][other].set(cut)
				ways[other][node].set(cut)
			}
		}
	}
}

// routesBy reports whether the connections that a node made to others go by its own relays, and
// whether it has one to each of them. NATS tells nodes of each other, and one that is told before its
// own connection is there makes one that goes another way.
func routesBy(t *testing.T, c *control, ways []*relay) (own, all bool) {
	t.Helper()
	found, err := c.nats().Routez(nil)
	if err != nil {
		t.Fatal(err)
	}
	others := map[string]bool{}
	for _, r := range found.Routes {
		others[r.RemoteName] = true
		by := slices.ContainsFunc(ways, func(w *relay) bool {
			return w != nil && w.Addr().String() == net.JoinHostPort(r.IP, strconv.Itoa(r.Port))
		})
		if r.DidSolicit && !by {
			return false, false
		}
	}
	return true, len(others) == len(ways)-1
}

// deliversAll reports whether a control node delivers the log to all who follow it.
func deliversAll(t *testing.T, c *control) bool {
	t.Helper()
	conn, js, err := inside(c.nats(), userFleet, c.secret)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	stream, err := js.Stream(t.Context(), purgeStream)
	if err != nil {
		t.Fatal(err)
	}
	list := stream.ListConsumers(t.Context())
	here, elsewhere := 0, 0
	for info := range list.Info() {
		switch {
		case info.NumWaiting == 0: // nobody takes anything from it any more
		case info.Cluster != nil && info.Cluster.Leader == c.Node:
			here++
		default:
			elsewhere++
		}
	}
	return list.Err() == nil && here > 0 && elsewhere == 0
}

// A control node that is cut off from the others, but takes itself for the leader of the log, gives
// an edge no trust in what it has.
func TestCutOffLeader(t *testing.T) {
	t.Parallel()
	nodes, cut := apart(t, 3)
	all := dial(t, nodes, "nyc1", RoleEdge)
	replicasOf(t, all, 3)
	lead := leader(t, all, nodes)
	at := 0
	var rest []*control
	for i, c := range nodes {
		if c == lead {
			at = i
		} else {
			rest = append(rest, c)
		}
	}
	purger := dial(t, rest, "fra1", RoleEdge)
	edge := startEdge(t, dial(t, []*control{lead}, "hel1", RoleEdge), Position{})
	edge.MaxDisconnected = 2 * time.Second
	appendPurge(t, purger, 1)
	until(t, "the edge is in touch", edge.InTouch)
	until(t, "what delivers the log to it is on its control node", func() bool { return deliversAll(t, lead) })
	cut(at, true)
	seq := appendPurge(t, purger, 2)
	acknowledged := time.Now()
	until(t, "the edge notices", func() bool {
		if touched := edge.touched.Load(); edge.Applied().Seq < seq && touched.After(acknowledged) {
			t.Fatalf("the edge was told %v after a purge was acknowledged that it lacks nothing", touched.Sub(acknowledged))
		}
		return !edge.InTouch()
	})
	cut(at, false)
	until(t, "the edge is in touch again", edge.InTouch)
	if have := edge.Applied().Seq; have < seq {
		t.Errorf("the edge trusts what it has with purge %d of %d", have, seq)
	}
	if n := edge.timesLost(); n != 1 {
		t.Errorf("the edge took all that it has as stale %d times, want once, at its start", n)
	}
}

// The end of the log is what a majority has, by the membership that each of its members knows.
func TestConfirm(t *testing.T) {
	copyOf := func(peer string, last uint64, peers ...string) copyState {
		return copyState{Peer: peer, Peers: peers, logEnd: logEnd{Log: 7, First: 1, Last: last}}
	}
	blank := copyOf("c", 0, "a", "b", "c")
	blank.Blank = true
	other := copyOf("b", 9, "a", "b", "c")
	other.Log = 8
	for i, c := range []struct {
		copies []copyState
		want   uint64
		ok     bool
	}{
		{nil, 0, false},
		{[]copyState{copyOf("a", 3, "a")}, 3, true},
		{[]copyState{copyOf("a", 3, "a", "b", "c")}, 0, false},
		{[]copyState{copyOf("a", 3, "a", "b", "c"), copyOf("b", 5, "a", "b", "c")}, 5, true},
		{[]copyState{copyOf("a", 5, "a", "b", "c"), copyOf("b", 3, "a", "b", "c")}, 5, true},
		{[]copyState{copyOf("a", 5, "a", "b", "c", "d"), copyOf("b", 3, "a", "b", "c", "d")}, 0, false},
		// a was removed, which it does not know yet.
		{[]copyState{copyOf("a", 5, "a", "b", "c"), copyOf("b", 6, "b", "c", "d")}, 0, false},
		{[]copyState{copyOf("a", 5, "a", "b", "c"), copyOf("b", 6, "b", "c", "d"), copyOf("c", 6, "b", "c", "d")}, 6, true},
		// c may have lost its disk.
		{[]copyState{copyOf("a", 5, "a", "b", "c"), blank}, 0, false},
		{[]copyState{copyOf("a", 5, "a", "b", "c"), copyOf("b", 6, "a", "b", "c"), blank}, 6, true},
		{[]copyState{copyOf("a", 5, "a", "b", "c"), other}, 0, false},
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			end, err := confirm(c.copies)
			if (err == nil) != c.ok || end.Last != c.want {
				t.Errorf("confirm = %+v, %v, want %d, %t", end, err, c.want, c.ok)
			}
		})
	}
}
