package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
	"github.com/kaiku-cdn/kaiku/deploy"
	"github.com/kaiku-cdn/kaiku/edge"
	"github.com/kaiku-cdn/kaiku/edge/purge"
	"github.com/kaiku-cdn/kaiku/geodns"
	"github.com/kaiku-cdn/kaiku/storage"
)

const deployedFleet = `sites:
  - name: www
    hosts: [www.example.com]
    origin: { servers: ["http://origin.example.net"], auth: { header: X-Auth, secret: origin.secret } }
nodes:
  hel1:
    roles: [edge, control]
    location: [60, 25]
    addresses: [203.0.113.10]
    ssh: ops@203.0.113.10
    edge: { data: /srv/cache, access_log: { file: /var/log/kaiku/access.json } }
  ns1: { roles: [geodns], addresses: [203.0.113.20] }
geodns:
  zones: [{ name: example.com, file: zones/example.com.zone, edges: { www: { ttl: 20s } } }]
secrets: { admin_token: /etc/kaiku/admin.token, fleet_key: fleet.key }
`

const deployedZone = "@ 300 IN SOA ns1 h 1 2 3 4 5\n@ 300 IN NS ns1\nns1 300 IN A 203.0.113.20\n"

func writeDeployed(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"fleet.yaml": deployedFleet, "zones/example.com.zone": deployedZone,
		"admin.token": "t\n", "fleet.key": "k\n", "origin.secret": "o\n"} {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "fleet.yaml")
}

// A node gets the secrets of its roles and no others, below /etc/kaiku.
func TestDeployNodes(t *testing.T) {
	fleetFile := writeDeployed(t)
	f, _, err := config.Load(fleetFile)
	if err != nil {
		t.Fatal(err)
	}
	nodes, err := deployNodes(f, fleetFile)
	if err != nil {
		t.Fatal(err)
	}
	const completion = "/usr/share/bash-completion/completions/kaiku"
	want := map[string][]string{
		"hel1": {"/etc/kaiku/admin.token secret", "/etc/kaiku/fleet.key secret", "/etc/kaiku/fleet.yaml",
			"/etc/kaiku/node", "/etc/kaiku/origin.secret secret", "/etc/kaiku/zones/example.com.zone", completion},
		"ns1": {"/etc/kaiku/fleet.key secret", "/etc/kaiku/fleet.yaml", "/etc/kaiku/node",
			"/etc/kaiku/zones/example.com.zone", completion},
	}
	for _, n := range nodes {
		var got []string
		for _, f := range n.Files {
			line := f.Path
			if f.Secret {
				line += " secret"
			}
			got = append(got, line)
		}
		slices.Sort(got)
		if !slices.Equal(got, want[n.Name]) {
			t.Errorf("%s gets %q, want %q", n.Name, got, want[n.Name])
		}
	}
	if h := nodes[0]; h.Phase != deploy.Control || !h.Edge || h.SSH != "ops@203.0.113.10" ||
		!slices.Equal(h.Listen, []string{":80"}) || !slices.Equal(h.Writable, []string{"/srv/cache"}) {
		t.Errorf("hel1 is %+v", h)
	}
	var binds []string
	for _, b := range nodes[0].Binds {
		binds = append(binds, b.Key+" "+b.Network+" "+b.Addr)
	}
	if want := []string{"control.listen tcp :4222", "edge.admin tcp 127.0.0.1:9080",
		"edge.http tcp :80"}; !slices.Equal(binds, want) {
		t.Errorf("hel1 binds %q, want %q", binds, want)
	}
	if want := []deploy.Bind{{Network: "tcp", Addr: ":53", Key: "geodns.listen"},
		{Network: "udp", Addr: ":53", Key: "geodns.listen"}}; !slices.Equal(nodes[1].Binds, want) {
		t.Errorf("ns1 binds %v, want %v", nodes[1].Binds, want)
	}
	if ns := nodes[1]; ns.Phase != deploy.NameServer || ns.SSH != "root@203.0.113.20" ||
		!slices.Equal(ns.Listen, []string{":53"}) {
		t.Errorf("ns1 is %+v", ns)
	}
	if got := settleTime(f).String(); got != "25s" {
		t.Errorf("settle is %s", got)
	}
	effect := nodes[0].Files[0].Effect
	if e := effect([]byte(strings.Replace(deployedFleet, "ttl: 20s", "ttl: 30s", 1))); e != deploy.Reload {
		t.Errorf("another TTL: %v", e)
	}
	if e := effect([]byte(strings.Replace(deployedFleet, "/srv/cache", "/srv/other", 1))); e != deploy.Restart {
		t.Errorf("another folder: %v", e)
	}
}

// Nodes are queried through their real listeners. Only the SSH connection is left out.
func TestDeployFleetHealthy(t *testing.T) {
	f, zones, err := config.Load(writeDeployed(t))
	if err != nil {
		t.Fatal(err)
	}
	quiet := slog.New(slog.DiscardHandler)
	store, err := storage.Open(storage.Options{Dir: t.TempDir(), Disk: config.MinDisk, Memory: 1 << 20, Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	server := &edge.Server{HTTP: "127.0.0.1:0", Admin: "127.0.0.1:0", Store: store, Log: quiet}
	server.Tokens.Set([]purge.Token{{Secret: "t", Scopes: purge.Scopes()}})
	dns := &geodns.Server{Addr: "127.0.0.1:0", Log: quiet}
	if err := dns.Reload(f.GeoDNSConfig(zones)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	for _, p := range []interface{ Listen(context.Context) error }{server, dns} {
		if err := p.Listen(ctx); err != nil {
			t.Fatal(err)
		}
	}
	ended := make(chan error, 2)
	go func() { ended <- errors.Join(server.Serve(ctx), store.Close()) }()
	go func() { ended <- dns.Serve(ctx) }()
	defer func() {
		cancel()
		if err := errors.Join(<-ended, <-ended); err != nil {
			t.Error(err)
		}
	}()
	n := f.Node("hel1")
	n.Roles, n.Edge.HTTP, n.Edge.Admin = []string{config.RoleEdge, config.RoleGeoDNS}, server.Addr().String(),
		server.AdminAddr().String()
	f.GeoDNS.Listen = config.AddressList{dns.LocalAddr().String()}
	d := &deployFleet{fleet: f, tokens: []string{"t"}}
	dial := (&net.Dialer{}).DialContext
	if err := d.Healthy(ctx, "hel1", dial); err != nil {
		t.Errorf("a healthy node: %v", err)
	}
	if _, err := d.Drain(ctx, "hel1", dial, true); err != deploy.ErrNoDrain {
		t.Errorf("a drain without a control plane: %v", err)
	}
	d.tokens = []string{"wrong", "too"}
	_, drainErr := d.Drain(ctx, "hel1", dial, true)
	for what, err := range map[string]error{"health": d.Healthy(ctx, "hel1", dial), "drain": drainErr} {
		if !errors.Is(err, deploy.ErrRefused) || !strings.Contains(err.Error(), "401") ||
			!strings.Contains(err.Error(), "the node accepts no token in /etc/kaiku/admin.token") {
			t.Errorf("%s with a wrong token: %v", what, err)
		}
	}
	d.had.set("hel1", []string{"older", "t"})
	if err := d.Healthy(ctx, "hel1", dial); err != nil {
		t.Errorf("with a token that the node had before: %v", err)
	}
	d.had.set("hel1", nil)
	d.tokens = []string{"new", "t"}
	if err := d.Healthy(ctx, "hel1", dial); err != nil {
		t.Errorf("with the old token and a new one: %v", err)
	}
	f.GeoDNS.Zones = append(f.GeoDNS.Zones, config.Zone{Name: "example.org"})
	if err := d.Healthy(ctx, "hel1", dial); err == nil {
		t.Error("a name server without a zone is healthy")
	}
}
