package deploy

import (
	"context"
	"slices"
	"strings"
	"testing"
)

// setControl makes the named nodes control nodes without the edge role.
func (f *testFleet) setControl(names ...string) {
	for i := range f.Nodes {
		n := &f.Nodes[i]
		n.Phase, n.Edge = Edge, true
		if slices.Contains(names, n.Name) {
			n.Phase, n.Edge = Control, false
		}
	}
}

func TestControlPlaneGrowsAndShrinks(t *testing.T) {
	f := newTestFleet(t, "a1", "c1", "c2", "e1")
	f.setControl("c1")
	f.deploy(t)
	f.members = []string{"c1"}

	roll := func(config string, control ...string) (string, []string) {
		t.Helper()
		f.setControl(control...)
		setConfig(f, config)
		f.events = nil
		p, _ := f.deploy(t)
		var turns []string
		for _, e := range f.events {
			if strings.Contains(e, "spare") || strings.Contains(e, "drain") || strings.Contains(e, "removed") {
				turns = append(turns, e)
			}
		}
		return planText(p), turns
	}
	// The member comes first, then the new ones. The edge is drained.
	text, turns := roll("a: 2\n", "a1", "c1", "c2")
	if want := []string{"c1 spare", "a1 spare", "c2 spare", "e1 drain", "e1 undrain"}; !slices.Equal(turns, want) {
		t.Errorf("turns %q, want %q", turns, want)
	}
	for _, want := range []string{"control plane: c1 -> a1, c1, c2\n", "the log of purges is kept\n",
		"purges wait for some seconds"} {
		if !strings.Contains(text, want) {
			t.Errorf("the plan lacks %q:\n%s", want, text)
		}
	}
	f.members, f.grouped = []string{"a1", "c1", "c2"}, true
	if p, _ := f.deploy(t); !p.Nothing() || strings.Contains(planText(p), "control plane") {
		t.Errorf("there is something to do:\n%s", planText(p))
	}

	// Former members are removed from the control plane before they are restarted as edges.
	text, turns = roll("a: 3\n", "c1")
	want := []string{"c1 spare", "a1 removed, asked c1", "c2 removed, asked c1"}
	if len(turns) < 4 || !slices.Equal(turns[:3], want) || !strings.Contains(strings.Join(turns[3:], ","), "c2 drain") {
		t.Errorf("turns %q, want %q first", turns, want)
	}
	if !strings.Contains(text, "  remove a1 from the control plane, once the others have all of its data\n") ||
		strings.Contains(text, "converted") {
		t.Errorf("the plan:\n%s", text)
	}

	// The next deploy finishes what an interrupted one left.
	f.members, f.events = []string{"c1", "c9"}, nil
	if p, _ := f.deploy(t); p.Nothing() || !slices.Equal(f.events, []string{"c9 removed, asked c1"}) {
		t.Errorf("events %q\n%s", f.events, planText(p))
	}
}

func TestLogIsLost(t *testing.T) {
	f := newTestFleet(t, "c1", "c2", "e1")
	f.setControl("c1")
	f.deploy(t)
	f.members = []string{"c1"}
	plan := func() *ControlPlan {
		t.Helper()
		p, err := f.Plan(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return p.Control
	}
	f.setControl("c2")
	if p := plan(); p == nil || !strings.Contains(p.Loses, "first deploy with c1 and the new control nodes together") ||
		len(p.Removes) > 0 {
		t.Errorf("all are replaced at once: %+v", p)
	}
	f.setControl("c1", "c2")
	if p := plan(); p == nil || p.Loses != "" {
		t.Errorf("one is added: %+v", p)
	}
	f.Binaries = []*Binary{testBinary(t, "two")}
	if p := plan(); p == nil || !strings.Contains(p.Loses, "edges with an earlier version (e1)") {
		t.Errorf("one is added, and edges are of an earlier version: %+v", p)
	}
	f.grouped = true
	if p := plan(); p == nil || p.Loses != "" {
		t.Errorf("nothing is converted: %+v", p)
	}
}

// splitFleet is a fleet whose nodes each form a control plane of their own.
type splitFleet struct{ *testFleet }

// Members returns only the node itself.
func (splitFleet) Members(_ context.Context, node string, _ DialFunc) (Members, error) {
	return Members{Names: []string{node}}, nil
}

func TestTwoControlPlanes(t *testing.T) {
	f := newTestFleet(t, "c1", "c2")
	f.setControl("c1", "c2")
	f.deploy(t)
	f.Fleet = splitFleet{f}
	if _, err := f.Plan(t.Context()); err == nil || !strings.Contains(err.Error(), "there are two control planes") {
		t.Errorf("%v", err)
	}
}
