package deploy

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"
)

// testRegistry knows one node and records all calls.
type testRegistry struct {
	Registered
	events  []string
	onDrain func()
}

// Look returns the state of the node.
func (r *testRegistry) Look(context.Context, bool) (Registered, error) { return r.Registered, nil }

// Drain records the call.
func (r *testRegistry) Drain(_ context.Context, drain bool) error {
	r.Registered.Drain = drain
	if drain {
		r.events = append(r.events, "drain")
	} else {
		r.events = append(r.events, "undrain")
	}
	if r.onDrain != nil {
		r.onDrain()
	}
	return nil
}

// Forget records the call.
func (r *testRegistry) Forget(context.Context) error {
	r.events, r.Registered = append(r.events, "forget"), Registered{}
	return nil
}

func removalOf(f *testFleet, r *testRegistry) *Remover {
	return &Remover{Deploy: f.Deploy, Target: Node{Name: f.Nodes[0].Name, SSH: f.Nodes[0].SSH}, Registry: r}
}

func removalText(r *Removal) string {
	var b strings.Builder
	_, _ = r.WriteTo(&b)
	return b.String()
}

// A removal deletes what deploys installed and what the process wrote. The machine is as it was
// before, and keeps files that are not Kaiku's.
func TestRemove(t *testing.T) {
	f := newTestFleet(t, "hel1")
	n := f.nodes["hel1"]
	n.withResolved(t)
	f.Nodes[0].Service.Listen = []string{":80", ":53"}
	f.Nodes[0].Service.Writable = []string{"/srv/my cache", "/srv/shared"}
	n.write(t, "/srv/shared/dir/file", "of somebody else")
	n.write(t, "/etc/kaiku/by-hand.pem", "hush-hush")
	before := stripRun(n.tree(t, "/"))
	f.deploy(t)
	for _, file := range []string{"/srv/my cache/segments/1", "/var/lib/kaiku/control/log",
		"/var/log/kaiku/access.json"} {
		n.write(t, file, "of the process")
	}
	// In this test all files belong to one user. The files in the shared folder are made to look as
	// if they belonged to another.
	if err := os.Rename(n.root+"/srv/shared", n.root+"/srv/elsewhere"); err != nil {
		t.Fatal(err)
	}
	r := &testRegistry{Registered: Registered{Known: true, Edge: true}}
	m := removalOf(f, r)
	plan, err := m.Plan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	text := removalText(plan)
	for _, want := range []string{"  drain it", "  stop kaiku.service", "  remove /etc/kaiku/fleet.key (a secret)\n",
		"  remove /etc/kaiku/fleet.yaml\n", "  remove " + stubFile + "\n",
		"  remove /usr/local/lib/kaiku/" + f.Binaries[0].Version() + "/\n", "  remove /srv/my cache\n",
		"  remove /var/lib/kaiku\n", "  remove /var/log/kaiku\n",
		"  keep /etc/kaiku/by-hand.pem, which no deploy installed\n", "  delete it from the registry\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("the plan lacks %q:\n%s", want, text)
		}
	}
	if n.running() == "." || len(r.events) > 0 {
		t.Errorf("a plan did something: %q", r.events)
	}
	if err := m.Apply(t.Context(), plan); err != nil {
		t.Fatalf("%v\n%s", err, f.out.String())
	}
	if err := os.Rename(n.root+"/srv/elsewhere", n.root+"/srv/shared"); err != nil {
		t.Fatal(err)
	}
	if after := stripRun(n.tree(t, "/")); after != before {
		t.Errorf("the machine has\n%s\nbefore it had\n%s", after, before)
	}
	for _, dir := range []string{"/srv/my cache", "/var/lib/kaiku", "/var/log/kaiku", "/usr/local/lib/kaiku"} {
		if _, err := os.Stat(n.root + dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", dir, err)
		}
	}
	if n.running() != "." || n.read("/run/enabled") != "" || n.read("/run/user-kaiku") != "" ||
		n.resolvConf(t) != stubLink {
		t.Errorf("something is left: %s runs, resolv.conf is %s", n.running(), n.resolvConf(t))
	}
	if got := strings.Join(r.events, " "); got != "drain forget" {
		t.Errorf("the registry was told %q", got)
	}
	plan, err = m.Plan(t.Context())
	if err != nil || !plan.Nothing() {
		t.Errorf("there is more to remove: %v\n%s", err, removalText(plan))
	}
}

// A removal that is interrupted before the node is stopped changes nothing. One that loses its
// connection continues.
func TestRemoveInterrupted(t *testing.T) {
	f := newTestFleet(t, "hel1")
	n := f.nodes["hel1"]
	f.deploy(t)
	r := &testRegistry{Registered: Registered{Known: true, Edge: true}}
	m := removalOf(f, r)
	plan, err := m.Plan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	f.Settle = time.Hour
	ctx, cancel := context.WithCancel(t.Context())
	r.onDrain = cancel
	before := stripRun(n.tree(t, "/"))
	if err := m.Apply(ctx, plan); !errors.Is(err, context.Canceled) || strings.Join(r.events, " ") != "drain undrain" ||
		stripRun(n.tree(t, "/")) != before {
		t.Errorf("interrupted: %v, %q", err, r.events)
	}
	f.Settle = time.Millisecond
	n.cutAfter.Store(n.received.Load() + 100)
	if err := m.Apply(t.Context(), plan); err != nil {
		t.Fatal(err)
	}
	if got := n.tree(t, "/etc") + n.tree(t, "/usr") + n.tree(t, "/var"); got != "" {
		t.Errorf("something is left:\n%s", got)
	}
}

// Nothing is removed if the machine has another node name.
func TestRemoveWrongMachine(t *testing.T) {
	f := newTestFleet(t, "hel1", "nyc1")
	f.deploy(t)
	m := removalOf(f, &testRegistry{Registered: Registered{Known: true, Edge: true}})
	f.Close() // the connection to hel1
	m.Target.SSH = f.Nodes[1].SSH
	if _, err := m.Plan(t.Context()); err == nil ||
		err.Error() != "the machine "+f.Nodes[1].SSH+" is node nyc1, not hel1" {
		t.Errorf("another machine: %v", err)
	}
}

// The removal of a lost machine does not connect to it. A machine that sends heartbeats is not
// lost.
func TestRemoveLost(t *testing.T) {
	f := newTestFleet(t, "hel1")
	r := &testRegistry{Registered: Registered{Known: true, Edge: true, Live: true}}
	m := removalOf(f, r)
	m.Lost = true
	if _, err := m.Plan(t.Context()); err == nil || !strings.Contains(err.Error(), "node hel1 is not lost") {
		t.Errorf("one that is live: %v", err)
	}
	r.Live = false
	plan, err := m.Plan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Apply(t.Context(), plan); err != nil || strings.Join(r.events, " ") != "forget" ||
		f.nodes["hel1"].connections() != 0 {
		t.Errorf("%v, %q, %d connections", err, r.events, f.nodes["hel1"].connections())
	}
}

func FuzzParseRemoval(f *testing.F) {
	f.Add([]byte("name hel1\nactive active\nprogram /usr/local/lib/kaiku/a/\nfile 600 /etc/kaiku/fleet.key\nfolder /srv/my cache\nkept /etc/kaiku/a\nend\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := &Removal{}
		if _, err := r.parse(b); err != nil {
			return
		}
		for _, dir := range r.Written { // these are arguments of the script that deletes
			if CheckPath(strings.TrimSuffix(dir, "/")) != nil || bytes.ContainsRune([]byte(dir), '\n') {
				t.Errorf("%q would be deleted from", dir)
			}
		}
	})
}
