package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestInit(t *testing.T) {
	for _, c := range []struct {
		name, stdin string
		args        []string
		nodes       int
	}{
		{"one node by flags", "", []string{"--domain", "example.com", "--origin", "http://192.0.2.9:8000", "--node", "hel1=203.0.113.10@60.17,24.94"}, 1},
		{"four nodes", "", []string{"--domain", "Example.com.", "--origin", "https://origin.example.net", "--node", "hel1=203.0.113.10@60.17,24.94",
			"--node", "nyc1=2001:db8::1@40.71,-74.01", "--node", "sin1=192.0.2.40@1.35,103.82", "--node", "fra1=192.0.2.41@50,8"}, 4},
		{"asked", "example.com\nhttps://origin.example.net\nhel1=203.0.113.10@60.17,24.94\nnyc1=198.51.100.20@40.71,-74.01\n\nops@example.com\n", nil, 2},
		{"asked, without TLS", "example.com\nhttps://origin.example.net\nhel1=203.0.113.10@60.17,24.94\n\n\n", nil, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "fleet")
			cmd := initCommand()
			var out bytes.Buffer
			cmd.SetIn(strings.NewReader(c.stdin))
			cmd.SetOut(&out)
			cmd.SetArgs(append(c.args, "--dir", dir))
			if err := cmd.ExecuteContext(t.Context()); err != nil {
				t.Fatalf("%v\n%s", err, out.String())
			}
			config := filepath.Join(dir, "fleet.yaml")
			f, zones, err := loadFleet(config)
			if err != nil {
				t.Fatal(err)
			}
			if len(f.Nodes) != c.nodes || len(zones) != 1 || len(f.GeoDNS.Zones[0].Edges) != 2 {
				t.Errorf("%d nodes, %d zones", len(f.Nodes), len(zones))
			}
			if controls, _ := f.controlAddrs(); len(controls) != map[int]int{1: 0, 2: 1, 4: 3}[c.nodes] {
				t.Errorf("%d control nodes of %d", len(controls), c.nodes)
			}
			for _, name := range []string{"fleet.key", "admin.token"} {
				info, err := os.Stat(filepath.Join(dir, name))
				if err != nil || info.Mode().Perm() != 0o600 {
					t.Errorf("%s: %v, %v", name, info.Mode(), err)
				}
			}
			// A second time nothing is overwritten.
			before, _ := os.ReadFile(filepath.Join(dir, "fleet.key"))
			cmd = initCommand()
			cmd.SetIn(strings.NewReader(c.stdin))
			cmd.SetOut(&out)
			cmd.SilenceErrors, cmd.SilenceUsage = true, true
			cmd.SetArgs(append(c.args, "--dir", dir))
			if err := cmd.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), "is there already") {
				t.Errorf("a second time: %v", err)
			}
			if after, _ := os.ReadFile(filepath.Join(dir, "fleet.key")); !bytes.Equal(before, after) {
				t.Error("the fleet key was overwritten")
			}
		})
	}
	for _, args := range [][]string{
		{"--domain", "nodomain", "--origin", "http://a.example"}, {"--domain", "example.com", "--origin", "ftp://a.example"},
		{"--domain", "example.com", "--origin", "http://a.example", "--node", "hel1"}, {"--domain", "example.com", "--origin", "http://a.example"},
	} {
		if _, err := command(t, append([]string{"init", "--dir", t.TempDir()}, args...)...); err == nil {
			t.Errorf("%q are taken", args)
		}
	}
}
