package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/deploy"
	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// roll brings a fleet file to the nodes in the order of a deploy: members, then new control nodes,
// then removed ones.
func (f *rotatedFleet) roll(from []string, control ...string) {
	f.t.Helper()
	text := f.read(f.config)
	for _, n := range f.nodes {
		before, after := n.name+": { roles: [edge, control]", n.name+": { roles: [edge]"
		if slices.Contains(control, n.name) {
			before, after = after, before
		}
		text = strings.Replace(text, before, after, 1)
	}
	if err := replaceFile(f.config, []byte(text)); err != nil {
		f.t.Fatal(err)
	}
	d, dial := f.running(), (&net.Dialer{}).DialContext
	restart := func(n *rotatedNode) {
		n.stop()
		if err := replaceFile(filepath.Join(n.dir, "fleet.yaml"), []byte(text)); err != nil {
			f.t.Fatal(err)
		}
		f.start(n)
		f.untilHealthy(n)
	}
	for _, n := range f.nodes { // members are the first of them
		if slices.Contains(control, n.name) {
			var err error
			testwait.Until(f.t, n.name+" can be spared", func() bool {
				err = d.Spare(f.t.Context(), n.name, dial)
				return err == nil || errors.Is(err, deploy.ErrNoControl)
			})
			restart(n)
		}
	}
	for _, name := range from {
		if !slices.Contains(control, name) {
			ctx, cancel := context.WithTimeout(f.t.Context(), 2*time.Minute)
			if err := d.Remove(ctx, control[0], dial, name); err != nil {
				f.t.Fatal(err)
			}
			cancel()
		}
	}
	for _, n := range f.nodes {
		if !slices.Contains(control, n.name) {
			restart(n)
		}
	}
	m, err := d.Members(f.t.Context(), control[0], dial)
	if err != nil || !slices.Equal(m.Names, control) {
		f.t.Errorf("the members are %q: %v", m.Names, err)
	}
}

// One control node becomes three and one again, under load. No acknowledged purge is lost, their
// sequences continue, and no edge marks everything as stale.
func TestControlPlaneUnderPurges(t *testing.T) {
	f := newRotatedFleet(t, 1)
	kept := func() {
		t.Helper()
		for _, n := range f.nodes {
			r, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+n.http+"/kept", nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Host = "www.example.com"
			resp, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
	}
	kept()
	asked := f.kept.Load()
	load := f.purging()
	f.roll([]string{"n1"}, "n1", "n2", "n3")
	f.roll([]string{"n1", "n2", "n3"}, "n1")
	load.lostNone()
	kept()
	if n := f.kept.Load(); n != asked {
		t.Errorf("the origin was asked %d times for what nobody purged, and %d times before", n, asked)
	}
}
