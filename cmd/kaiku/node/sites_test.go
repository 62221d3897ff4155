package node

import (
	"crypto/tls"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
)

// A reload keeps the pools with unchanged settings, and replaces the others.
func TestReloadKeepsPools(t *testing.T) {
	dir := t.TempDir()
	fleetFile := filepath.Join(dir, "fleet.yaml")
	const text = `
sites:
  - { name: a, hosts: [a.example.com], origin: { servers: ["http://127.0.0.1:1"], shield: us1 } }
  - { name: b, hosts: [b.example.com], origin: { servers: ["http://127.0.0.1:2"] } }
nodes:
  eu1: { roles: [edge], region: eu, location: [0, 0], addresses: [127.0.0.1] }
  eu2: { roles: [edge], region: eu, location: [0, 0], addresses: [127.0.0.2] }
  us1: { roles: [edge], region: us, location: [0, 0], addresses: [127.0.0.4] }
`
	var before siteSet
	load := func(text string) siteSet {
		t.Helper()
		if err := os.WriteFile(fleetFile, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		f, _, err := config.Load(fleetFile)
		if err != nil {
			t.Fatal(err)
		}
		m := siteMaker{fleet: f, node: f.Node("eu1"), peers: &tls.Config{}, log: slog.New(slog.DiscardHandler),
			before: before}
		s, err := m.make()
		if err != nil {
			t.Fatal(err)
		}
		before.close(s)
		before = s
		return s
	}
	defer func() { before.close(siteSet{}) }()
	first := load(text)
	same := load(text)
	if first.sites[0].Origin.Origin != same.sites[0].Origin.Origin ||
		first.sites[0].Origin.Ring != same.sites[1].Origin.Ring ||
		first.sites[0].Origin.Shield != same.sites[0].Origin.Shield || same.sites[1].Origin.Shield != nil {
		t.Error("pools were made anew, or not shared")
	}
	more := load(text + "  eu3: { roles: [edge], region: eu, location: [0, 0], addresses: [127.0.0.3] }\n")
	if more.sites[0].Origin.Ring == same.sites[0].Origin.Ring ||
		more.sites[0].Origin.Origin != same.sites[0].Origin.Origin {
		t.Error("a new edge of the region is not in the ring, or other pools were made anew")
	}
	moved := load(strings.ReplaceAll(text, "127.0.0.1:1", "127.0.0.1:3"))
	if moved.sites[0].Origin.Origin == same.sites[0].Origin.Origin ||
		moved.sites[1].Origin.Origin != same.sites[1].Origin.Origin {
		t.Error("the wrong pool was made anew")
	}
	shield := load(strings.ReplaceAll(text, "127.0.0.4", "127.0.0.5"))
	if shield.sites[0].Origin.Shield == moved.sites[0].Origin.Shield {
		t.Error("the shield has another address, and its old one is asked")
	}
}
