package node

import (
	"strings"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/fleet"
)

// A node with a credential for some sites may purge only these, and only if all edges have the
// same sites.
func TestMayPurge(t *testing.T) {
	t.Parallel()
	nodes := []fleet.Lease{{Node: "hel1", Live: true, Sites: "a"}, {Node: "ns1", Live: true},
		{Node: "nyc1", Sites: "b"}}
	renamed := append([]fleet.Lease{{Node: "fra1", Live: true, Sites: "b"}, {Node: "sgp1", Live: true, Sites: "b"}},
		nodes...)
	for name, c := range map[string]struct {
		site  string
		nodes []fleet.Lease
		want  string // in the error; "" is none
	}{
		"its own":           {"www", nodes, ""},
		"of several":        {"", nodes, "of its sites: www, shop"},
		"of another":        {"new", nodes, "belongs to site new, but node hel1 may purge only www, shop"},
		"renamed by others": {"www", renamed, "fra1, sgp1 may not treat it as a purge of site www"},
	} {
		t.Run(name, func(t *testing.T) {
			err := mayPurge(c.site, "hel1", []string{"www", "shop"}, "a", c.nodes)
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

func TestLoad(t *testing.T) {
	sent := uint64(0)
	l := &load{sent: func() uint64 { return sent }, capacity: 1000}
	at := time.Now()
	l.now(at)
	for range 120 { // two minutes at half of the capacity
		sent += 500
		at = at.Add(time.Second)
		l.now(at)
	}
	if got := l.now(at); got < 0.49 || got > 0.51 {
		t.Errorf("the load is %.2f, want 0.5", got)
	}
	for range 120 {
		sent += 5000
		at = at.Add(time.Second)
		l.now(at)
	}
	if got := l.now(at); got != 1 {
		t.Errorf("the load is %.2f, want 1", got)
	}
}
