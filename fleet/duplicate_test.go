package fleet

import (
	"context"
	"encoding/json"
	"sync"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// serveRegistry keeps a registry until stop or the end of the test.
func serveRegistry(t *testing.T, r *Registry) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Serve(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		<-done
	})
	t.Cleanup(stop)
	return stop
}

// putLease writes a lease as a process does that is not there any more.
func putLease(t *testing.T, c *Client, l Lease) {
	t.Helper()
	testwait.Until(t, "the bucket is there", func() bool { _, _, _, err := c.ready(t.Context()); return err == nil })
	_, leases, _, err := c.ready(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	l.Node = c.Node
	b, err := json.Marshal(l)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := leases.Put(t.Context(), c.Node, b); err != nil {
		t.Fatal(err)
	}
}

// Of two processes that are the same node, the one that started later is refused, and takes no
// lease from the other one. One that comes after a process that was killed goes on at once.
func TestDuplicateNode(t *testing.T) {
	t.Parallel()
	nodes := startControl(t, t.TempDir(), 1)
	began := time.Now()
	lease := func(started time.Time) func() Lease {
		return func() Lease { return Lease{Roles: []string{RoleEdge}, Started: started} }
	}
	putLease(t, dial(t, nodes, "hel1", RoleEdge),
		Lease{Roles: []string{RoleEdge}, Process: "killed", Renewed: began, Started: began.Add(-time.Hour)})
	first := &Registry{Client: dial(t, nodes, "hel1", RoleEdge), Self: lease(began)}
	stopFirst := serveRegistry(t, first)
	reader := &Registry{Client: dial(t, nodes, "nyc1", RoleEdge), Self: lease(began)}
	serveRegistry(t, reader)
	find := func() (l Lease) {
		for _, n := range reader.Nodes() {
			if n.Node == "hel1" {
				l = n
			}
		}
		return l
	}
	testwait.Until(t, "the lease is renewed", func() bool { return find().Sure })
	if first.Refused() {
		t.Error("a process is refused because of one that was killed")
	}
	second := &Registry{Client: dial(t, nodes, "hel1", RoleEdge), Self: lease(began.Add(time.Second))}
	stopSecond := serveRegistry(t, second)
	testwait.Until(t, "the second is refused", second.Refused)
	if first.Refused() {
		t.Error("both are refused")
	}
	renewed := find().Renewed
	testwait.Until(t, "the first goes on", func() bool {
		l := find()
		return l.Renewed.After(renewed) && l.Started.Equal(began)
	})
	if find().Sure {
		t.Error("what a node says counts, of which there are two")
	}
	stopSecond()
	testwait.Until(t, "the first goes on", func() bool { return find().Renewed.After(renewed.Add(time.Second)) })
	stopFirst()
	testwait.Until(t, "the lease ends with the first", func() bool { return find().Node == "" })

	// A clone of a machine's memory has all that the process has.
	a := &Registry{Client: dial(t, nodes, "hel1", RoleEdge), Self: lease(began), process: "same"}
	b := &Registry{Client: dial(t, nodes, "hel1", RoleEdge), Self: lease(began), process: "same"}
	stopA, stopB := serveRegistry(t, a), serveRegistry(t, b)
	testwait.Until(t, "one of them is refused", func() bool { return a.Refused() || b.Refused() })
	refused, stop := a, stopB
	if b.Refused() {
		refused, stop = b, stopA
	}
	if a.Refused() && b.Refused() {
		t.Error("both are refused")
	}
	stop()
	testwait.Until(t, "the other one takes over once the first has ended", func() bool { return !refused.Refused() })
}

// An edge counts as having applied a purge if it says so now, of the log that there is.
func TestHasApplied(t *testing.T) {
	t.Parallel()
	last := Position{Log: 7, Seq: 20, Mark: 200}
	good := Lease{Live: true, Sure: true, Applied: Position{Log: 7, Seq: 15, Mark: 150}}
	for name, c := range map[string]struct {
		change func(*Lease)
		want   bool
	}{
		"good":            {func(*Lease) {}, true},
		"the end":         {func(l *Lease) { l.Applied = last }, true},
		"without marks":   {func(l *Lease) { l.Applied = Position{Log: 7, Seq: 20} }, true},
		"behind":          {func(l *Lease) { l.Applied.Seq = 14 }, false},
		"ended":           {func(l *Lease) { l.Live = false }, false},
		"not renewed":     {func(l *Lease) { l.Sure = false }, false},
		"unproven":        {func(l *Lease) { l.Unproven = true }, false},
		"another log":     {func(l *Lease) { l.Applied.Log = 8 }, false},
		"another history": {func(l *Lease) { l.Applied = Position{Log: 7, Seq: 20, Mark: 201} }, false},
		"beyond the end":  {func(l *Lease) { l.Applied.Seq = 21 }, false},
	} {
		t.Run(name, func(t *testing.T) {
			l := good
			c.change(&l)
			if got := l.hasApplied(15, last); got != c.want {
				t.Errorf("%+v: %t", l, got)
			}
		})
	}
}

// A lease that nobody renews says nothing, as of an edge that is with another fleet by now.
func TestLeaseThatIsNotRenewed(t *testing.T) {
	t.Parallel()
	nodes := startControl(t, t.TempDir(), 1)
	gone, client := dial(t, nodes, "hel1", RoleEdge), dial(t, nodes, "nyc1", RoleEdge)
	edge := startEdge(t, client, Position{})
	testwait.Until(t, "the edge is in touch", edge.InTouch)
	seq := appendPurge(t, client, 1)
	testwait.Until(t, "it has come", func() bool { return edge.Applied().Seq == seq && edge.Proven() })
	lease := Lease{Roles: []string{RoleEdge}, Applied: edge.Applied(), Process: "a",
		Renewed: time.Now().Add(-time.Hour)}
	putLease(t, gone, lease)
	r := &Registry{Client: client, Edges: []string{"hel1", "nyc1"}, Self: func() Lease {
		return Lease{Roles: []string{RoleEdge}, Applied: edge.Applied(), Unproven: !edge.Proven()}
	}}
	serveRegistry(t, r)
	testwait.Until(t, "the one that is there is known to have it", func() bool {
		p := r.Progress(t.Context(), seq)
		if p[0].Applied {
			t.Fatal("who is not there has it, too")
		}
		return p[1].Applied
	})
	lease.Renewed = time.Now()
	putLease(t, gone, lease)
	testwait.Until(t, "it is there again", func() bool { return r.Progress(t.Context(), seq)[0].Applied })
}

// What is said of a node by two processes in turn counts for nothing.
func TestLeasesInTurn(t *testing.T) {
	t.Parallel()
	now := time.Now()
	s := seen{}
	for i, c := range []struct {
		process string
		sure    bool // that it was renewed
		back    bool // a process that had been replaced
	}{
		{"a", false, false}, {"a", true, false}, {"b", true, false}, {"b", true, false}, {"c", true, false},
		{"b", true, true}, {"c", true, true}, {"d", true, false}, {"", true, false}, {"e", true, false}, {"", true,
			false},
	} {
		at := now.Add(time.Duration(i) * time.Second)
		s = s.next(Lease{Process: c.process, Renewed: at}, at)
		if s.Sure != c.sure || s.back.Equal(at) != c.back {
			t.Errorf("%d: after %q: %t, %t", i, c.process, s.Sure, s.back.Equal(at))
		}
	}
}
