package fleet

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// Two of three control nodes lose their disks. Without the third they begin no other log, and
// confirm no end of one; with it nothing is lost.
func TestTwoLoseTheirDisks(t *testing.T) {
	t.Parallel()
	all := makeControl(t, t.TempDir(), 3)
	for _, c := range all {
		c.start(t)
	}
	admin := dial(t, all, "deploy", RoleAdmin)
	edge := keep(t, dial(t, all, "hel1", RoleEdge), Position{})
	seq := appendPurge(t, admin, 0)
	replicasOf(t, admin, 3)
	testwait.Until(t, "the edge has it", func() bool { return edge.Applied().Seq == seq })
	before := edge.Applied()
	for _, c := range all {
		c.stop()
	}
	for _, c := range all[1:] {
		if err := os.RemoveAll(c.Dir); err != nil {
			t.Fatal(err)
		}
		c.start(t)
	}
	other := dial(t, all[1:], "nyc1", RoleEdge)
	testwait.Until(t, "a node that lost its disk takes an edge", func() bool { return other.conn.IsConnected() })
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if at, _, err := other.position(short(t)); err == nil {
			t.Fatalf("without the node that has the log it ends at %+v", at)
		}
	}
	all[0].start(t)
	if next := appendPurge(t, admin, 1); next != seq+1 {
		t.Errorf("after %d comes %d", seq, next)
	}
	replicasOf(t, admin, 3)
	agree(t, all...)
	testwait.Until(t, "the edge goes on", func() bool { return edge.Applied().Seq == seq+1 && edge.Proven() })
	edge.mu.Lock()
	defer edge.mu.Unlock()
	if now := edge.Applied(); now.Log != before.Log || len(edge.lost) > 0 {
		t.Errorf("an edge was at %+v and is at %+v, and took all as stale at %v", before, now, edge.lost)
	}
}

// As long as one control node of the fleet file is away that may have the log, the others begin no
// other one.
func TestNoLogWithoutAll(t *testing.T) {
	t.Parallel()
	all := makeControl(t, t.TempDir(), 3)
	all[0].among(all[0])
	all[0].start(t)
	admin := dial(t, all, "deploy", RoleAdmin)
	seq := appendPurge(t, admin, 0)
	at, _, err := admin.position(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all[0].stop()
	for _, c := range all[1:] {
		c.start(t)
	}
	// There is no end of waiting to be waited for: two elections' time is as good as any.
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		for _, c := range all[1:] {
			if c.nats().JetStreamIsLeader() {
				t.Fatalf("%s leads a group without the node that has the log", c.Node)
			}
		}
	}
	all[0].among(all...)
	all[0].start(t)
	membersAre(t, admin, all...)
	if next := appendPurge(t, admin, 1); next != seq+1 {
		t.Errorf("after %d comes %d", seq, next)
	}
	if now, _, err := admin.position(t.Context()); err != nil || now.Log != at.Log {
		t.Errorf("the log was %v and is %v: %v", at, now, err)
	}
}

// A control node that waited for others in vain goes on alone, when the fleet file has none any
// more.
func TestAloneAfterAll(t *testing.T) {
	t.Parallel()
	c := makeControl(t, t.TempDir(), 3)[0]
	c.start(t)
	testwait.Until(t, "it knows nobody", func() bool { m := c.meta(); return m != nil && m.Leader == "" })
	c.stop()
	c.among(c)
	c.start(t)
	if seq := appendPurge(t, dial(t, []*control{c}, "hel1", RoleEdge), 0); seq != 1 {
		t.Errorf("the first purge is %d", seq)
	}
}

// What two control nodes have is not mixed: the second does not start.
func TestTwoLogs(t *testing.T) {
	t.Parallel()
	two := makeControl(t, t.TempDir(), 2)
	for _, c := range two {
		c.among(c)
		c.start(t)
		appendPurge(t, dial(t, []*control{c}, "hel1", RoleEdge), 0)
		c.stop()
	}
	for _, c := range two {
		c.among(two...)
	}
	two[0].start(t)
	appendPurge(t, dial(t, two[:1], "hel1", RoleEdge), 1)
	if err := two[1].Listen(t.Context()); err == nil ||
		!strings.Contains(err.Error(), "control node c1 has another one") {
		t.Errorf("the other one starts: %v", err)
	}
}
