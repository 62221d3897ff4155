//go:build linux

package promise

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kaiku-cdn/kaiku/bench/world"
)

// nodeOf returns the node's name that a host uses.
func nodeOf(host string) string {
	if host == hostClone {
		return "e2"
	}
	return host
}

// folder returns the data folder of a host.
func (r *rig) folder(host string) string { return filepath.Join(r.dir, host, "data") }

// siteOf returns the name of the site in a host's fleet file.
func (r *rig) siteOf(host string) string {
	if s := r.sites[host]; s != "" {
		return s
	}
	return "www"
}

// configure writes the fleet file of a host. Each host has its own copy.
func (r *rig) configure(host string) error {
	n := r.setup.controls
	if g := r.grown[host]; g != 0 {
		n = g
	}
	var b strings.Builder
	key := filepath.Join(r.dir, host, "fleet.key")
	fmt.Fprintf(&b, `sites: [{ name: %s, hosts: [%s], origin: { servers: ["http://%s"] } }]
secrets: { fleet_key: %s }
edge: { disk: %s, memory: 16MiB, max_disconnected: %v }
geodns: { data: %s, zones: [{ name: example.com, file: zone, edges: { www: { ttl: 5s } } }] }
nodes:
`, r.siteOf(host), siteHost, r.addressOf(hostOrigin), key, r.setup.disk, r.setup.disconnected, r.folder(host))
	where := world.Locations()
	for _, h := range r.hosts() {
		place := where[h.At]
		common := fmt.Sprintf("location: [%v, %v], addresses: [%s]", place.Lat, place.Lon, h.Addr)
		i := slices.Index(controls(), h.Name)
		switch {
		case slices.Contains(edges(), h.Name):
			region := map[string]string{"e1": "us", "e2": "us", "e3": "fi"}[h.Name]
			limit := ""
			if r.setup.credential && h.Name == "e2" {
				limit = fmt.Sprintf(", sites: [%s]", r.siteOf(host))
			}
			fmt.Fprintf(&b, "  %s: { roles: [edge], region: %s, %s, edge: { data: %s }%s }\n", h.Name, region, common,
				r.folder(host), limit)
		case i >= 0 && i < n:
			fmt.Fprintf(&b, "  %s: { roles: [control], %s, control: { data: %s } }\n", h.Name, common, r.folder(host))
		case h.Name == hostDNS:
			fmt.Fprintf(&b, "  %s: { roles: [geodns], %s }\n", h.Name, common)
		}
	}
	zone := "$ORIGIN example.com.\n$TTL 300\n@ SOA ns1 hostmaster 1 7200 1800 1209600 60\n@ NS ns1\nns1 A " +
		r.addressOf(hostDNS) + "\n"
	if err := os.MkdirAll(r.folder(host), 0o700); err != nil {
		return err
	}
	for name, text := range map[string]string{"fleet.yaml": b.String(), "zone": zone,
		"fleet.key": strings.Repeat("secret", 8) + "\n"} {
		file := filepath.Join(r.dir, host, name)
		if _, err := os.Stat(file); err == nil && name == "fleet.key" {
			continue // a credential may be there instead
		}
		if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
			return err
		}
		if err := os.Rename(file+".new", file); err != nil {
			return err
		}
	}
	return nil
}

// limit gives a node a credential instead of the fleet key.
func (r *rig) limit(ctx context.Context, node string) error {
	key := filepath.Join(r.dir, node, "fleet.key")
	if _, err := r.world.Run(ctx, node, r.log(node), r.options.Kaiku, "credential", "--config", r.config(node),
		"--node", node, "--out", key+".own"); err != nil {
		return err
	}
	return os.Rename(key+".own", key)
}
