package fleet

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// leased is the registry of a node, which is served until stop.
func leased(t *testing.T, nodes []*control, name, role string, edges ...string) (r *Registry, stop func()) {
	t.Helper()
	r = &Registry{Client: dial(t, nodes, name, role), OnDemand: role == RoleEdge, Edges: edges,
		Self: func() Lease { return Lease{Roles: []string{role}, Ready: true} }}
	return r, serveParts(t, r.Serve)
}

// of is what a registry knows of a node.
func (r *Registry) of(node string) Lease {
	for _, l := range r.Nodes() {
		if l.Node == node {
			return l
		}
	}
	return Lease{}
}

// Edges know what the control node that they ask knows, and it is one consumer of the leases for
// all of them.
func TestRegistryOnDemand(t *testing.T) {
	t.Parallel()
	nodes := startControl(t, t.TempDir(), 1)
	name, _ := leased(t, nodes, "ns1", RoleGeoDNS)
	hel1, _ := leased(t, nodes, "hel1", RoleEdge)
	nyc1, leave := leased(t, nodes, "nyc1", RoleEdge)
	for _, r := range []*Registry{name, hel1, nyc1} {
		testwait.Until(t, "all know all",
			func() bool { return r.of("ns1").Live && r.of("hel1").Live && r.of("nyc1").Live })
	}
	if got := consumersOf(t, nodes[0], "KV_leases"); len(got) != 2 {
		t.Errorf("%d consumers of the leases, want one of the name server and one of the control node", len(got))
	}
	if err := hel1.Client.Drain(t.Context(), "nyc1", true); err != nil {
		t.Fatal(err)
	}
	testwait.Until(t, "a drain is seen", func() bool { return hel1.of("nyc1").Draining && hel1.Draining("nyc1") })
	news, stop := hel1.listen()
	leave()
	testwait.Until(t, "who ends is gone", func() bool {
		<-news // without a question
		return hel1.of("nyc1").Node == ""
	})
	stop()
	// A control plane that is gone freezes what is known.
	nodes[0].stop()
	if l := hel1.of("ns1"); !l.Live {
		t.Errorf("without a control plane ns1 is %+v", l)
	}
	nodes[0].start(t)
	late, _ := leased(t, nodes, "nyc2", RoleEdge)
	testwait.Until(t, "its next process answers", func() bool { return hel1.of("nyc2").Live && late.of("ns1").Live })
}

// Purges are waited for by who has no news but what the control node tells.
func TestWaitOnDemand(t *testing.T) {
	t.Parallel()
	nodes := startControl(t, t.TempDir(), 1)
	var first *Registry
	edges := []string{"e0", "e1", "e2"}
	for i, name := range edges {
		r := &Registry{Client: dial(t, nodes, name, RoleEdge), OnDemand: true, Edges: edges}
		e := startEdge(t, r.Client, Position{})
		e.Changed = r.Renew
		r.Self = func() Lease { return Lease{Roles: []string{RoleEdge}, Ready: true, Applied: e.Applied()} }
		serveParts(t, r.Serve)
		testwait.Until(t, "it is in touch", e.InTouch)
		if i == 0 {
			first = r
		}
	}
	for i := range 20 {
		for _, p := range first.Wait(t.Context(), appendPurge(t, first.Client, i)) {
			if !p.Applied || !p.Live {
				t.Errorf("purge %d: %+v", i, p)
			}
		}
	}
}

// Control nodes of the version before, which tell nothing, have an edge watch all leases, until one
// tells.
func TestRegistryOfBefore(t *testing.T) {
	t.Parallel()
	nodes := makeControl(t, t.TempDir(), 1)
	nodes[0].older = true
	nodes[0].start(t)
	leased(t, nodes, "ns1", RoleGeoDNS)
	hel1, _ := leased(t, nodes, "hel1", RoleEdge)
	testwait.Until(t, "it knows of others", func() bool { return hel1.of("ns1").Live && hel1.of("hel1").Live })
	if hel1.queriesRoster() {
		t.Error("it was told")
	}
	nodes[0].stop()
	nodes[0].older = false
	nodes[0].start(t)
	testwait.Until(t, "it asks", func() bool { return hel1.queriesRoster() && hel1.of("ns1").Live })
}

// What is told in pieces is the same as all of it at once.
func TestRosterChanges(t *testing.T) {
	r := &roster{id: "a", table: &Registry{leases: map[string]seen{}, drains: map[string]bool{}},
		entries: map[string]rosterEntry{}, gone: map[string]uint64{}}
	told := &Registry{OnDemand: true}
	say := func(node string, load float64) {
		// so that none ends meanwhile
		r.table.leases[node] = seen{Lease: Lease{Node: node, Load: load, Renewed: time.Now()},
			at: time.Now().Add(time.Hour)}
	}
	check := func() {
		t.Helper()
		r.update()
		b, err := r.encode(rosterQuestion{Roster: told.view.roster, Since: told.view.since})
		if err != nil {
			t.Fatal(err)
		}
		a, err := parseRoster(b)
		if err != nil {
			t.Fatal(err)
		}
		told.learn(a)
		var want, got []string
		for _, l := range r.table.Nodes() {
			want = append(want, fmt.Sprint(l.Node, l.Load, l.Live, l.Draining))
		}
		for _, l := range told.view.leases {
			got = append(got, fmt.Sprint(l.Node, l.Load, l.Live, l.Draining))
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%d leases at version %d are told as %d others", len(want), r.version, len(got))
		}
	}
	check()
	for i := range 2*maxRosterGone + 10 {
		say(fmt.Sprint("n", i), 0)
		if i%500 == 0 {
			check()
		}
	}
	check()
	say("n1", 0.5)
	r.table.drains["n2"] = true
	r.table.leases["n3"] = seen{Lease: r.table.leases["n3"].Lease, at: time.Now().Add(-LeaseTime)}
	check()
	version := r.version
	say("n1", 0.5) // renewed, and nothing else
	if check(); r.version != version {
		t.Error("a renewal is a change")
	}
	for i := range maxRosterGone + 1 { // more than is remembered
		delete(r.table.leases, fmt.Sprint("n", i))
		if i < 5 {
			check()
		}
	}
	check()
	say("n1", 1)
	check()
	r.id = "b" // another process
	check()
}

// No answer makes a node fail.
func FuzzRoster(f *testing.F) {
	r := &roster{id: "a", entries: map[string]rosterEntry{"n": {Lease{Node: "n"}, 1}}, version: 1}
	b, err := r.encode(rosterQuestion{})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b, []byte(`{"roster":"a"}`))
	f.Fuzz(func(t *testing.T, answer, question []byte) {
		r := &Registry{OnDemand: true}
		if a, err := parseRoster(answer); err == nil {
			r.learn(a)
		}
		var a rosterAnswer
		if json.Unmarshal(question, &a) == nil {
			r.learn(a)
			r.learn(a)
		}
	})
}
