package fleet

import (
	"context"
	"slices"
	"testing"

	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// A node that will not come back is forgotten by who has its name, with its mark of a drain.
func TestForget(t *testing.T) {
	nodes := startControl(t, t.TempDir(), 1)
	lost, watcher := dial(t, nodes, "hel1", RoleEdge), dial(t, nodes, "ns1", RoleGeoDNS)
	run := func(r *Registry) (stop func()) {
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- r.Serve(ctx) }()
		return func() {
			cancel()
			<-done
		}
	}
	stop := run(&Registry{Client: lost, Self: func() Lease { return Lease{Roles: []string{RoleEdge}, Ready: true} }})
	seen := &Registry{Client: watcher, Self: func() Lease { return Lease{Roles: []string{RoleGeoDNS}} }}
	defer run(seen)()
	has := func() (known, draining bool) {
		for _, l := range seen.Nodes() {
			known = known || l.Node == "hel1"
		}
		return known, seen.Draining("hel1")
	}
	testwait.Until(t, "it can be drained", func() bool { return lost.Drain(t.Context(), "hel1", true) == nil })
	testwait.Until(t, "it is seen, and drained", func() bool { known, draining := has(); return known && draining })
	c := dial(t, nodes, "hel1", RoleEdge)
	var last Heard
	testwait.Until(t, "it is heard of", func() bool {
		_, heard, err := c.Lease(t.Context(), "hel1")
		last = heard
		return err == nil && heard.Revision != 0
	})
	for range 3 { // by its lease, and by beats
		testwait.Until(t, "it is heard of again", func() bool {
			_, heard, err := c.Lease(t.Context(), "hel1")
			if err != nil || !heard.Since(last) {
				return false
			}
			last = heard
			return true
		})
	}

	lost.Close() // so that it can't take its lease back
	stop()
	lease, heard, err := c.Lease(t.Context(), "hel1")
	if err != nil || !lease.Draining || !slices.Equal(lease.Roles, []string{RoleEdge}) {
		t.Fatalf("of one that is lost: %+v, %v", lease, err)
	}
	if _, again, err := c.Lease(t.Context(), "hel1"); err != nil || again.Since(heard) {
		t.Errorf("one that is lost is heard of: %+v after %+v, %v", again, heard, err)
	}
	if err := c.Forget(t.Context(), "hel1"); err != nil {
		t.Fatal(err)
	}
	testwait.Until(t, "it is forgotten", func() bool { known, draining := has(); return !known && !draining })
	if lease, _, err := c.Lease(t.Context(), "hel1"); err != nil || lease.Node != "" || lease.Draining {
		t.Errorf("of one that is forgotten: %+v, %v", lease, err)
	}
}
