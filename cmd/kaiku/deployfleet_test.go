package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
	"github.com/kaiku-cdn/kaiku/fleet/freeport"
	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// A control node may restart while the others have a majority, of three nodes as of five.
func TestDeployFleetSpare(t *testing.T) {
	for _, all := range []int{3, 5} {
		t.Run(fmt.Sprint(all), func(t *testing.T) {
			dir := t.TempDir()
			var text strings.Builder
			text.WriteString("sites: [{ name: www, hosts: [a.example], origin: { servers: [\"http://127.0.0.1:1\"] } }]\nsecrets: { fleet_key: fleet.key }\nnodes:\n")
			for i := range all {
				fmt.Fprintf(&text, "  c%d: { roles: [control], addresses: [127.0.1.%d], control: { listen: %q, cluster: %q, data: %s/c%d } }\n",
					i+1, i+1, freeport.Addr(t), freeport.Addr(t), dir, i+1)
			}
			text.WriteString("  hel1: { roles: [edge], location: [60, 25], addresses: [127.0.2.1] }\n")
			fleetFile := filepath.Join(dir, "fleet.yaml")
			writeFiles(t, dir, map[string]string{"fleet.yaml": text.String(), "fleet.key": regionKey})
			stop := map[string]func(){}
			for i := range all {
				name := fmt.Sprintf("c%d", i+1)
				stop[name] = runNode(t, fleetFile, name)
			}
			f, _, err := config.Load(fleetFile)
			if err != nil {
				t.Fatal(err)
			}
			d, err := newDeployFleet(f)
			if err != nil {
				t.Fatal(err)
			}
			dial := (&net.Dialer{}).DialContext
			spare := func(name string) error { return d.Spare(t.Context(), name, dial) }
			for i := range all {
				name := fmt.Sprintf("c%d", i+1)
				testwait.Until(t, name+" can be spared", func() bool { err = spare(name); return err == nil })
			}
			// The fleet loses as many nodes as it can, and then no other can be spared.
			for i := range all / 2 {
				stop[fmt.Sprintf("c%d", all-i)]()
			}
			testwait.Until(t, "none can be spared, as too few have the log", func() bool {
				err = spare("c1")
				return err != nil && strings.Contains(err.Error(), "other control nodes have all data of the group")
			})
		})
	}
}

// A control node that accepts no connections gives ErrNoControl.
func TestDeployFleetRefused(t *testing.T) {
	f, _, err := config.Load(writeDeployed(t))
	if err != nil {
		t.Fatal(err)
	}
	f.Node("hel1").Control.Listen = freeport.Addr(t) // nothing listens there
	if err := os.WriteFile(f.LocalFile(f.Secrets.FleetKey), []byte(strings.Repeat("secret", 8)), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := newDeployFleet(f)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if err := d.Healthy(ctx, "hel1", (&net.Dialer{}).DialContext); err == nil ||
		!strings.Contains(err.Error(), "connection refused") {
		t.Errorf("%v", err)
	}
}
