package fleet

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/kaiku-cdn/kaiku/fleet/freeport"
	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// startControl starts n control nodes with the data below dir.
func startControl(t testing.TB, dir string, n int) []*control {
	t.Helper()
	nodes := makeControl(t, dir, n)
	for _, c := range nodes {
		c.start(t)
	}
	return nodes
}

// makeControl makes n control nodes that know each other.
func makeControl(t testing.TB, dir string, n int) []*control {
	t.Helper()
	var nodes []*control
	for i := range n {
		conf, err := key(t, "k").TLS(fmt.Sprintf("c%d", i+1), RoleControl)
		if err != nil {
			t.Fatal(err)
		}
		c := &Control{Node: fmt.Sprintf("c%d", i+1), Addr: freeport.Addr(t), Dir: filepath.Join(dir, fmt.Sprint(i)),
			TLS: conf, Log: logTo(t), Turn: i}
		c.Cluster = freeport.Addr(t)
		nodes = append(nodes, &control{Control: c})
	}
	for _, c := range nodes {
		for _, o := range nodes {
			if o != c {
				c.Peers, c.Others = append(c.Peers, o.Cluster), append(c.Others, o.Addr)
			}
		}
	}
	return nodes
}

// replicasOf asks until the log is kept by so many control nodes, which all have all of it.
func replicasOf(t *testing.T, c *Client, want int) {
	t.Helper()
	testwait.Until(t, "all control nodes keep the log", func() bool {
		replicas, err := c.Replicas(t.Context())
		if err != nil || len(replicas) != want {
			return false
		}
		for _, current := range replicas {
			if !current {
				return false
			}
		}
		return true
	})
}

// Five control nodes all keep the log, also where there were three before; nothing of it is lost
// with that.
func TestFiveControlNodes(t *testing.T) {
	t.Parallel()
	five := makeControl(t, t.TempDir(), 5)
	var peers [][]string
	for i, c := range five {
		peers = append(peers, c.Peers)
		if i < 3 {
			var known []string
			for j, o := range five[:3] {
				if j != i {
					known = append(known, o.Cluster)
				}
			}
			c.Peers = known
			c.start(t)
		}
	}
	edge := dial(t, five, "hel1", RoleEdge)
	replicasOf(t, edge, 3)
	one := startEdge(t, edge, Position{})
	testwait.Until(t, "an edge follows", one.InTouch) // one that begins later has no purge to apply
	for i := range 3 {
		appendPurge(t, edge, i)
	}
	testwait.Until(t, "an edge has all", func() bool { return one.has() == 3 })
	lost := one.timesLost()
	for i, c := range five { // one at a time, as a deploy does
		if i < 3 {
			c.stop()
		}
		c.Peers = peers[i]
		c.start(t)
	}
	replicasOf(t, edge, 5)
	if seq := appendPurge(t, edge, 3); seq != 4 {
		t.Errorf("the fourth purge has sequence %d", seq)
	}
	for _, c := range five[3:] { // two may be lost
		c.stop()
	}
	if seq := appendPurge(t, edge, 4); seq != 5 {
		t.Errorf("the fifth purge has sequence %d", seq)
	}
	testwait.Until(t, "an edge has all", func() bool { return one.has() == 5 })
	if one.timesLost() != lost {
		t.Error("the log was taken for another")
	}
}

func (e *testEdge) timesLost() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.lost
}
