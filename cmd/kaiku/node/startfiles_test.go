package node

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
)

// A node does not start without a secret that its fleet file names, if the node needs it.
func TestStartWithoutSecrets(t *testing.T) {
	dir := t.TempDir()
	const fleet = `sites: [{ name: www, hosts: [a.example], origin: { servers: ["https://b.example"] } }]
edge: { disk: 64MiB, memory: 8MiB, data: DIR }
geodns: { zones: [{ name: example.com, file: example.com.zone }] }
nodes:
  hel1: { roles: [edge], location: [1, 2], addresses: [203.0.113.10] }
  ns1: { roles: [geodns] }
`
	const zone = "@ 60 IN SOA ns1 hostmaster 1 7200 1800 1209600 60\n@ 60 IN NS ns1\nns1 60 IN A 192.0.2.72\n"
	fleetFile := filepath.Join(dir, "fleet.yaml")
	for _, c := range []struct {
		name, rest, node, missing string
	}{
		{"an admin token", "secrets: { admin_token: admin.token }\n", "hel1", "admin.token"},
		{"a token", "secrets: { tokens: [{ file: a.token, scopes: [purge] }] }\n", "hel1", "a.token"},
		{"a fleet key of a control plane",
			"  c1: { roles: [control], addresses: [203.0.113.11] }\nsecrets: { fleet_key: fleet.key }\n", "hel1",
			"fleet.key"},
		{"a fleet key of a control node",
			"  c1: { roles: [control], addresses: [203.0.113.11] }\nsecrets: { fleet_key: fleet.key }\n", "c1",
			"fleet.key"},
		{"a fleet key for cookies", "secrets: { fleet_key: fleet.key }\n", "ns1", "fleet.key"},
		{"a fleet key for session tickets",
			"secrets: { fleet_key: fleet.key }\ntls: { acme: { email: a@b.example } }\n", "hel1", "fleet.key"},
		{"a fleet key for nothing", "secrets: { fleet_key: fleet.key }\n", "hel1", ""},
		{"none", "", "hel1", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			writeFiles(t, dir, map[string]string{"fleet.yaml": strings.Replace(fleet, "DIR", filepath.Join(dir, "data"),
				1) + c.rest, "example.com.zone": zone})
			f, _, err := config.Load(fleetFile)
			if err != nil {
				t.Fatal(err)
			}
			p, err := New(fleetFile, c.node, f.Node(c.node).Roles, Overrides{}, slog.New(slog.DiscardHandler))
			if err == nil {
				if err := p.Close(); err != nil {
					t.Error(err)
				}
			}
			if c.missing == "" && err != nil || c.missing != "" &&
				(!errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), filepath.Join(dir, c.missing))) {
				t.Errorf("%v", err)
			}
		})
	}
}

// A node logs the warnings of its fleet file when it starts.
func TestNodesLogWarnings(t *testing.T) {
	dir := t.TempDir()
	fleetFile := filepath.Join(dir, "fleet.yaml")
	writeFiles(t, dir, map[string]string{"fleet.yaml": oneEdge +
		"edge: { disk: 64MiB, memory: 8MiB, data: " + filepath.Join(dir,
		"data") + " }\nsecrets: { tokens: [] }\ngeodns: { zones: [{ name: example.com, file: example.com.zone }] }\n",
		"example.com.zone": "@ 60 IN SOA ns1 hostmaster 1 7200 1800 1209600 60\n@ 60 IN NS ns1\nns1 60 IN A 192.0.2.72\n"})
	var log bytes.Buffer
	p, err := New(fleetFile, "hel1", []string{config.RoleEdge}, Overrides{}, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if want := `level=WARN msg="the fleet file: geodns.zones: no node has the role geodns, so nobody answers for the zones" at=` + fleetFile + ":5:11\n"; !strings.Contains(log.String(), want) {
		t.Errorf("it logs\n%swant\n%s", log.String(), want)
	}
}

const oneEdge = `sites: [{ name: www, hosts: [a.example], origin: { servers: ["https://b.example"] } }]
nodes: { hel1: { roles: [edge], location: [1, 2], addresses: [203.0.113.10] } }
`

func writeFiles(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
