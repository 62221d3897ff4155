package fleet

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
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
	until(t, "control nodes connect to each other by relays alone", func() bool {
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
	until(t, c.Node+" leads "+stream, func() bool {
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

// A control node that is cut off from the others, but takes itself for the leader of the log, gives
// an edge no trust in what it has, nor a name server in what it knows of other nodes, and takes
// neither drains nor challenges.
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
	watching := &Registry{Client: dial(t, []*control{lead}, "ns1", RoleGeoDNS)}
	renewing := &Registry{Client: dial(t, []*control{lead}, "ns2", RoleGeoDNS),
		Self: func() Lease { return Lease{Roles: []string{RoleGeoDNS}} }}
	serveRegistry(t, watching)
	serveRegistry(t, renewing)
	until(t, "name servers are in touch",
		func() bool { return !watching.lastTouched().IsZero() && !renewing.lastTouched().IsZero() })
	client := dial(t, []*control{lead}, "sgp1", RoleEdge)
	until(t, "a challenge is taken", func() bool {
		_, err := (&Challenges{Client: client}).publish(t.Context(),
			challenge{Name: "_acme-challenge.a.example", Value: "before"})
		return err == nil
	})
	for _, bucket := range []string{leaseBucket, drainBucket, challengeBucket} {
		leadStream(t, lead, "KV_"+bucket)
	}
	until(t, "all groups have a leader, so that none asks for votes", func() bool {
		return campaign(lead.nats(), server.DEFAULT_GLOBAL_ACCOUNT) == 0
	})
	cut(at, true)
	seq := appendPurge(t, purger, 2)
	acknowledged := time.Now()
	taken := make(chan string, 2)
	go func() {
		if client.Drain(t.Context(), "hel1", true) == nil {
			taken <- "a drain"
		}
		taken <- ""
	}()
	go func() {
		_, err := (&Challenges{Client: client}).publish(t.Context(),
			challenge{Name: "_acme-challenge.a.example", Value: "after"})
		if err == nil {
			taken <- "a challenge"
		}
		taken <- ""
	}()
	until(t, "the edge notices", func() bool {
		if touched := edge.touched.Load(); edge.Applied().Seq < seq && touched.After(acknowledged) {
			t.Fatalf("the edge was told %v after a purge was acknowledged that it lacks nothing",
				touched.Sub(acknowledged))
		}
		return !edge.InTouch()
	})
	for range 2 {
		if what := <-taken; what != "" {
			t.Errorf("%s was taken without a majority", what)
		}
	}
	for _, r := range []*Registry{watching, renewing} {
		if touched := r.lastTouched(); touched.After(acknowledged) {
			t.Errorf("%s takes what it knows of other nodes for true %v after the cut", r.Client.Node,
				touched.Sub(acknowledged))
		}
	}
	until(t, "groups that lost their leader ask for votes", func() bool {
		return campaign(lead.nats(), server.DEFAULT_GLOBAL_ACCOUNT) > 0
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
