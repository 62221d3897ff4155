package main

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
	"github.com/kaiku-cdn/kaiku/fleet"
	"github.com/kaiku-cdn/kaiku/fleet/freeport"
	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// aloneLease gives a node that is in no fleet file a lease in the control plane, until stop
// is called.
func (f *operated) aloneLease(t *testing.T, name string) (stop func()) {
	t.Helper()
	of, _, err := config.Load(f.config)
	if err != nil {
		t.Fatal(err)
	}
	key, err := fleet.ReadKey(filepath.Join(f.dir, "fleet.key"))
	if err != nil {
		t.Fatal(err)
	}
	conf, err := key.TLS(name, fleet.RoleEdge)
	if err != nil {
		t.Fatal(err)
	}
	c := &fleet.Client{Node: name, TLS: conf, Servers: []string{of.ControlOf(of.Node("c1")).Listen},
		Log: slog.New(slog.DiscardHandler)}
	if err := c.Dial(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	r := &fleet.Registry{Client: c,
		Self: func() fleet.Lease { return fleet.Lease{Roles: []string{config.RoleEdge}, Ready: true} }}
	go func() { done <- r.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		c.Close()
	})
	return func() { // like a machine that loses power
		c.Close()
		cancel()
		<-done
	}
}

func TestRemoveCommand(t *testing.T) {
	f := newOperated(t)
	knows := func(name string) bool {
		out, err := f.run(t, "status", "--config", f.config, "--admin", f.admin["nyc1"], "--json")
		return err == nil && strings.Contains(out, `"node":"`+name+`"`)
	}
	stop := f.aloneLease(t, "gone")
	testwait.Until(t, "the node that is in no file is heard of", func() bool { return knows("gone") })
	for _, c := range []struct{ args, fails string }{
		{"remove c1", "node c1 is a control node: first delete its role control in "},
		{"remove hel2", "has no node hel2: did you mean hel1?; if you have already deleted it from the file, give its machine by --ssh"},
		{"remove hel1 --lost", "node hel1 is not lost: it still reports to the control plane"},
		{"remove gone --lost --yes", "node gone is not lost: it still reports to the control plane"},
		{"remove hel1 --lost --ssh root@192.0.2.1", "give --lost or --ssh, not both"},
		{"remove a/b --lost", "can't be the name of a node"},
		{"remove down --yes", "no SSH server is at this port"},
	} {
		if out, err := f.run(t, append(strings.Fields(c.args), "--config", f.config)...); err == nil ||
			!strings.Contains(err.Error(), c.fails) {
			t.Errorf("%s: %v, want %q\n%s", c.args, err, c.fails, out)
		}
	}
	alone := f.write(t, "alone.yaml",
		"sites: [{ name: www, hosts: [www.example.com], origin: { servers: [\"http://192.0.2.1\"] } }]\nsecrets: { fleet_key: fleet.key }\n"+
			"nodes: { c9: { roles: [edge, control], location: [0, 0], addresses: [127.0.0.1], ssh: \"root@"+
			freeport.Addr(t)+"\" } }\n")
	if out, err := f.run(t, "remove", "c9", "--yes", "--config", alone); err == nil ||
		!strings.Contains(err.Error(), "no SSH server is at this port") {
		t.Errorf("the last node: %v\n%s", err, out)
	}
	stop()
	lost := []string{"remove", "gone", "--lost", "--config", f.config}
	if out, err := f.run(t, append(lost, "--dry-run")...); err != nil ||
		!strings.Contains(out, "gone:\n  leave the machine as it is, because it is lost\n  delete it from the registry\n") ||
		!knows("gone") {
		t.Errorf("a dry run: %v\n%s", err, out)
	}
	if _, err := f.run(t, lost...); !errors.As(err, new(usageError)) || !strings.Contains(err.Error(), "give --yes") ||
		!knows("gone") {
		t.Errorf("with nobody to ask: %v", err)
	}
	out, err := f.run(t, append(lost, "--yes")...)
	if err != nil || !strings.Contains(out, "node gone is removed\nit has the fleet key") ||
		!strings.Contains(out, "kaiku rotate fleet-key --config "+f.config) ||
		strings.Contains(out, "next: delete it from") {
		t.Errorf("%v\n%s", err, out)
	}
	testwait.Until(t, "nobody knows it any more", func() bool { return !knows("gone") })
}

// A removal first prints what the fleet loses without the node.
func TestRemovalWarnings(t *testing.T) {
	f, zones, err := config.Load(writeDeployed(t))
	if err != nil {
		t.Fatal(err)
	}
	f.Sites[0].Origin.Shield = "hel1"
	if got := strings.Join(lossesWithout(f, "ns1", zones), "\n"); !strings.Contains(got,
		"it is the only name server") ||
		!strings.Contains(got, "zone example.com lists it as name server ns1.example.com: first delete that name") {
		t.Errorf("ns1: %s", got)
	}
	if got := strings.Join(lossesWithout(f, "hel1", zones), "\n"); !strings.Contains(got, "it is the only edge") ||
		!strings.Contains(got, "it is the shield of site www") {
		t.Errorf("hel1: %s", got)
	}
	if got := lossesWithout(f, "gone", zones); got != nil {
		t.Errorf("a node that is not there: %s", got)
	}
}
