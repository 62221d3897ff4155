package fleet

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/fleet/freeport"
	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// among has a node know some, itself among them or not, as its fleet file says. It stops the node
// if that runs: the file is read at the start.
func (c *control) among(nodes ...*control) {
	if c.stop != nil {
		c.stop()
	}
	c.Peers, c.Others, c.Turn = nil, nil, 0
	for i, o := range nodes {
		if o == c {
			c.Turn = i
			continue
		}
		c.Peers, c.Others = append(c.Peers, o.Cluster), append(c.Others, o.Addr)
	}
}

func (c *control) restart(t testing.TB) {
	t.Helper()
	c.stop()
	c.start(t)
}

// membersAre waits until some nodes are the members, and keep the log.
func membersAre(t *testing.T, c *Client, nodes ...*control) {
	t.Helper()
	var want []string
	for _, n := range nodes {
		want = append(want, n.Node)
	}
	slices.Sort(want)
	var m *Members
	var replicas map[string]bool
	var err error
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("wanted %q, last %+v, %v, %v", want, m, replicas, err)
		}
	})
	testwait.Until(t, fmt.Sprintf("%q are members, and have the log", want), func() bool {
		if m, err = c.Members(t.Context()); err != nil || !slices.Equal(m.Names(), want) || m.Others("") != len(want) {
			return false
		}
		if replicas, err = c.Replicas(t.Context()); err != nil || len(replicas) != len(want) {
			return false
		}
		for _, n := range want {
			if !replicas[n] {
				return false
			}
		}
		return true
	})
}

// remove takes a control node out.
func remove(t *testing.T, c *Client, node string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	if err := c.RemoveMember(ctx, node); err != nil {
		t.Fatal(err)
	}
}

// One control node becomes three, and one again, by one step after the other as a deploy does;
// edges know the old addresses alone at first. No purge is lost, and nothing becomes stale.
func TestGrowAndShrink(t *testing.T) {
	t.Parallel()
	all := makeControl(t, t.TempDir(), 3)
	one := all[:1]
	all[0].among(one...)
	all[0].start(t)
	a, b := dial(t, one, "hel1", RoleEdge), dial(t, one, "nyc1", RoleEdge)
	old, admin := keep(t, a, Position{}), dial(t, all, "deploy", RoleAdmin)
	purges := purgeOn(t, b)
	purges.more(t)
	if m, err := admin.Members(t.Context()); err != nil || m.Grouped || !slices.Equal(m.Names(), []string{"c1"}) {
		t.Errorf("the members are %+v: %v", m, err)
	}

	all[0].among(all...)
	all[0].restart(t)
	purges.more(t)
	membersAre(t, admin, all[0])
	all[1].start(t)
	testwait.Until(t, "the second is a member", func() bool {
		m, err := admin.Members(t.Context())
		return err == nil && m.Current["c2"]
	})
	purges.more(t)
	all[2].start(t)
	membersAre(t, admin, all...)
	purges.more(t)
	// it knows the log from before, and has all of it to apply
	young := keep(t, dial(t, all, "sgp1", RoleEdge), Position{Log: old.Applied().Log})
	all[0].stop() // any may be lost now
	later := purgeOn(t, dial(t, all[1:], "fra1", RoleEdge))
	later.more(t)
	later.stop()
	all[0].start(t)
	membersAre(t, admin, all...)
	purges.more(t)
	later.check(t, young)
	purges.check(t, old, young)
	agree(t, all...)
	purges = purgeOn(t, dial(t, one, "lhr1", RoleEdge))

	all[0].among(one...)
	all[0].restart(t)
	purges.more(t)
	for _, n := range []string{"c3", "c2"} {
		remove(t, admin, n)
		remove(t, admin, n) // is done already
	}
	membersAre(t, admin, all[0])
	purges.more(t)
	all[1].stop()
	all[2].stop()
	all[0].restart(t)
	purges.more(t)
	if err := admin.RemoveMember(short(t), "c1"); err == nil || !strings.Contains(err.Error(), "only control node") {
		t.Errorf("the last one was removed: %v", err)
	}
	purges.check(t, old, young)
	later.check(t, young)
	if _, err := os.Stat(filepath.Join(all[2].Dir, "jetstream.removed")); err != nil {
		t.Errorf("what the removed node had is not aside: %v", err)
	}
}

func short(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// One of three is replaced by another machine, then one that lost its disk comes back under its
// name, then one gets other addresses.
func TestReplaceControlNodes(t *testing.T) {
	t.Parallel()
	four := makeControl(t, t.TempDir(), 4)
	before, after := four[:3], []*control{four[0], four[1], four[3]}
	for _, c := range before {
		c.among(before...)
		c.start(t)
	}
	edge, admin := keep(t, dial(t, before, "hel1", RoleEdge), Position{}), dial(t, four, "deploy", RoleAdmin)
	purges := purgeOn(t, dial(t, before[:2], "nyc1", RoleEdge))
	membersAre(t, admin, before...)
	purges.more(t)
	for _, c := range after { // c4 is new
		c.among(after...)
		c.start(t)
		testwait.Until(t, "it is a member and has all", func() bool {
			m, err := admin.Members(t.Context())
			return err == nil && m.Current[c.Node] && m.Others("") >= 3
		})
		purges.more(t)
	}
	four[2].stop() // its machine is lost
	purges.more(t)
	remove(t, admin, "c3")
	membersAre(t, admin, after...)
	purges.more(t)

	lost := four[1]
	lost.stop()
	if err := os.RemoveAll(lost.Dir); err != nil {
		t.Fatal(err)
	}
	purges.more(t)
	lost.start(t)
	membersAre(t, admin, after...)
	purges.more(t)

	moved := four[3]
	moved.stop()
	moved.Addr, moved.Cluster = freeport.Addr(t), freeport.Addr(t)
	admin = dial(t, four, "deploy", RoleAdmin)
	for _, c := range []*control{moved, four[0], four[1]} {
		c.among(after...)
		c.start(t)
		membersAre(t, admin, after...)
		purges.more(t)
	}
	purges.check(t, edge)
}

// agree waits until control nodes have the same log, to its last entry.
func agree(t *testing.T, nodes ...*control) {
	t.Helper()
	testwait.Until(t, "the copies of the log are the same", func() bool {
		var ends []logEnd
		for _, c := range nodes {
			s, err := c.copyState(t.Context())
			if err != nil {
				return false
			}
			ends = append(ends, s.logEnd)
		}
		return ends[0].Mark != 0 && len(slices.Compact(ends)) == 1
	})
}
