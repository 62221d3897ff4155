package fleet

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// apart makes control nodes whose connections to each other can be cut.
func apart(t testing.TB, n int) (nodes []*control, cut func(node int, cut bool)) {
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
	testwait.Until(t, "control nodes connect to each other by relays alone", func() bool {
		good := true
		for from, c := range nodes { // all of them again, as one that is restarted connects to others anew
			own, all := routesBy(t, c, ways[from])
			if !own {
				c.restart(t)
			}
			good = good && own && all
		}
		return good
	})
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
// whether it has one to each of them. NATS tells nodes of each other, and one that is told before
// its own connection is there makes one that goes another way.
func routesBy(t testing.TB, c *control, ways []*relay) (own, all bool) {
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

// leadStream has a control node lead a stream, so that it takes itself for its leader once it is
// cut off.
func leadStream(t *testing.T, c *control, stream string) {
	t.Helper()
	conn, _, err := inside(c.nats(), userFleet, c.secret)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	testwait.Until(t, c.Node+" leads "+stream, func() bool {
		if c.nats().JetStreamIsStreamLeader(server.DEFAULT_GLOBAL_ACCOUNT, stream) {
			return true
		}
		_, _ = conn.Request("$JS.API.STREAM.LEADER.STEPDOWN."+stream,
			fmt.Appendf(nil, `{"placement":{"preferred":%q}}`, c.Node), time.Second)
		time.Sleep(100 * time.Millisecond)
		return false
	})
}

func (r *Registry) lastTouched() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.touched
}

// cutOff is a fleet in which one control node leads all streams and is to be cut off. All its other
// nodes, but the purger, know that control node only.
type cutOff struct {
	leader   *control
	cut      func(bool) // cuts the leader off from the other control nodes, or ends that
	purger   *Client    // of the other control nodes
	edge     *testEdge
	watching *Registry // of a name server without a lease
	renewing *Registry // of one with a lease
	client   *Client
}

func newCutOff(t *testing.T) *cutOff {
	t.Helper()
	nodes, cut := apart(t, 3)
	all := dial(t, nodes, "nyc1", RoleEdge)
	replicasOf(t, all, 3)
	f := &cutOff{leader: leader(t, all, nodes)}
	at := slices.Index(nodes, f.leader)
	f.cut = func(cutting bool) { cut(at, cutting) }
	f.purger = dial(t, slices.Delete(slices.Clone(nodes), at, at+1), "fra1", RoleEdge)
	only := []*control{f.leader}
	f.edge = startEdge(t, dial(t, only, "hel1", RoleEdge), Position{})
	f.edge.MaxDisconnected = 2 * time.Second
	appendPurge(t, f.purger, 1)
	testwait.Until(t, "the edge is in touch", f.edge.InTouch)
	testwait.Until(t, "the consumer of the edge is on its control node",
		func() bool { return deliversAll(t, f.leader) })
	f.watching = &Registry{Client: dial(t, only, "ns1", RoleGeoDNS)}
	f.renewing = &Registry{Client: dial(t, only, "ns2", RoleGeoDNS),
		Self: func() Lease { return Lease{Roles: []string{RoleGeoDNS}} }}
	serveRegistry(t, f.watching)
	serveRegistry(t, f.renewing)
	testwait.Until(t, "name servers are in touch",
		func() bool { return !f.watching.lastTouched().IsZero() && !f.renewing.lastTouched().IsZero() })
	f.client = dial(t, only, "sgp1", RoleEdge)
	testwait.Until(t, "a challenge is taken", func() bool { return f.challenge(t, "before") == nil })
	for _, bucket := range []string{leaseBucket, drainBucket, challengeBucket} {
		leadStream(t, f.leader, "KV_"+bucket)
	}
	testwait.Until(t, "all groups have a leader, so that none asks for votes", func() bool {
		return campaign(f.leader.nats(), server.DEFAULT_GLOBAL_ACCOUNT) == 0
	})
	return f
}

// challenge publishes a challenge through the leader.
func (f *cutOff) challenge(t *testing.T, value string) error {
	_, err := (&Challenges{Client: f.client}).publish(t.Context(),
		challenge{Name: "_acme-challenge.a.example", Value: value})
	return err
}

// A control node that is cut off from the others, but still takes itself for the leader of the log,
// does not let an edge trust its store or a name server trust its registry, and takes neither
// drains nor challenges.
func TestCutOffLeader(t *testing.T) {
	t.Parallel()
	f := newCutOff(t)
	f.cut(true)
	seq := appendPurge(t, f.purger, 2)
	acknowledged := time.Now()
	drained, challenged := make(chan error, 1), make(chan error, 1)
	go func() { drained <- f.client.Drain(t.Context(), "hel1", true) }()
	go func() { challenged <- f.challenge(t, "after") }()
	testwait.Until(t, "the edge notices", func() bool {
		if touched := f.edge.touched.Load(); f.edge.Applied().Seq < seq && touched.After(acknowledged) {
			t.Fatalf("the edge was told %v after a purge was acknowledged that it lacks nothing",
				touched.Sub(acknowledged))
		}
		return !f.edge.InTouch()
	})
	if <-drained == nil || <-challenged == nil {
		t.Error("a drain or a challenge was taken without a majority")
	}
	for _, r := range []*Registry{f.watching, f.renewing} {
		if touched := r.lastTouched(); touched.After(acknowledged) {
			t.Errorf("%s trusts its registry %v after the cut", r.Client.Node, touched.Sub(acknowledged))
		}
	}
	testwait.Until(t, "groups that lost their leader ask for votes", func() bool {
		return campaign(f.leader.nats(), server.DEFAULT_GLOBAL_ACCOUNT) > 0
	})
	f.cut(false)
	testwait.Until(t, "the edge is in touch again", f.edge.InTouch)
	if have := f.edge.Applied().Seq; have < seq {
		t.Errorf("the edge trusts its store with purge %d of %d", have, seq)
	}
	if n := f.edge.timesLost(); n != 1 {
		t.Errorf("the edge took its store as stale %d times, want once, at its start", n)
	}
}

// The end of the log is where a majority has no more, and that a majority has, by the membership
// that each of them knows.
func TestConfirm(t *testing.T) {
	t.Parallel()
	copyOf := func(peer string, last uint64, peers ...string) copyState {
		return copyState{Peer: peer, Peers: peers, logEnd: logEnd{Log: 7, First: 1, Last: last, Mark: 100 + last}}
	}
	abc := func(ends ...uint64) (out []copyState) {
		for i, end := range ends {
			out = append(out, copyOf("abc"[i:i+1], end, "a", "b", "c"))
		}
		return out
	}
	blank := copyOf("c", 0, "a", "b", "c")
	blank.Blank = true
	other := copyOf("b", 9, "a", "b", "c")
	other.Log = 8
	history := copyOf("c", 5, "a", "b", "c")
	history.Mark = 99
	unmarked := copyOf("b", 5, "a", "b", "c")
	unmarked.Mark = 0
	for name, c := range map[string]struct {
		first, last []copyState // nil is the same
		want        uint64
		ok          bool
	}{
		"nobody":       {nil, nil, 0, false},
		"one alone":    {[]copyState{copyOf("a", 3, "a")}, nil, 3, true},
		"one of three": {abc(3), nil, 0, false},
		"two of three": {abc(5, 5), nil, 5, true},
		"two of four": {[]copyState{copyOf("a", 5, "a", "b", "c", "d"), copyOf("b", 5, "a", "b", "c", "d")}, nil, 0,
			false},
		"one is behind": {abc(3, 5), nil, 0, false},
		"it catches up": {abc(3, 5), abc(6, 5), 5, true},
		"others go on":  {abc(3, 5), abc(6, 9), 5, true},
		// What was acknowledged was on a majority, so that it is up to 5.
		"the third is behind": {abc(1, 5, 5), nil, 5, true},
		"one is ahead":        {abc(9, 5, 5), nil, 5, true},
		"all differ":          {abc(1, 5, 9), nil, 5, true},
		// a was removed, which it does not know yet.
		"removed": {[]copyState{copyOf("a", 5, "a", "b", "c"), copyOf("b", 6, "b", "c", "d")}, nil, 0, false},
		"others have it": {[]copyState{copyOf("a", 5, "a", "b", "c"), copyOf("b", 6, "b", "c", "d"),
			copyOf("c", 6, "b", "c", "d")}, nil, 6, true},
		// c may have lost its disk.
		"blank":              {[]copyState{copyOf("a", 5, "a", "b", "c"), blank}, nil, 0, false},
		"blank among all":    {append(abc(6, 6), blank), nil, 6, true},
		"another log":        {[]copyState{copyOf("a", 5, "a", "b", "c"), other}, nil, 0, false},
		"another history":    {[]copyState{copyOf("a", 5, "a", "b", "c"), history}, nil, 0, false},
		"of three":           {append(abc(5, 5), history), nil, 5, true},
		"an older version's": {[]copyState{copyOf("a", 5, "a", "b", "c"), unmarked}, nil, 5, true},
	} {
		t.Run(name, func(t *testing.T) {
			if c.last == nil {
				c.last = c.first
			}
			end, err := confirm(c.first, c.last)
			if (err == nil) != c.ok || end.Last != c.want {
				t.Errorf("confirm = %+v, %v, want %d, %t", end, err, c.want, c.ok)
			}
		})
	}
}
