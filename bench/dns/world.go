package main

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
)

// world is the data that all servers have: names, sites for the answers, and networks of clients.
type world struct {
	dir     string
	queries [oneName + 1]string // files for dnsperf, by loadKind
	load    loadKind
	health  net.Listener
}

const (
	origin   = "example.com"
	networks = 1000
)

var (
	names = []string{"www", "static", "img", "video", "api", "shop", "blog", "docs"}
	sites = []site{
		{"hel", "203.0.113.10", "2001:db8:1::10", "60.17, 24.94"},
		{"nyc", "198.51.100.20", "2001:db8:2::20", "40.71, -74.01"},
		{"sin", "192.0.2.40", "2001:db8:3::40", "1.35, 103.82"},
	}
)

type site struct{ name, four, six, place string }

// network returns the n-th client network, and the index of its site.
func network(n int) (netip.Prefix, int) {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{20, byte(n / 250), byte(n % 250), 0}), 24), n % len(sites)
}

// staticZone is the same for all servers: SOA, NS and the server's address.
const staticZone = `$ORIGIN example.com.
$TTL 3600
@   SOA ns1 hostmaster 1 7200 1800 1209600 300
@   NS  ns1
ns1 A   192.0.2.53
`

func newWorld(dir string) (*world, error) {
	w := &world{dir: dir}
	for kind := range w.queries {
		w.queries[kind] = filepath.Join(dir, fmt.Sprintf("queries%d", kind))
		if err := os.WriteFile(w.queries[kind], queries(loadKind(kind)), 0o644); err != nil {
			return nil, err
		}
	}
	var err error
	if w.health, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return nil, err
	}
	// Kaiku's health checks go here. The other servers have no health checks, and take all sites
	// as healthy.
	go func() {
		_ = http.Serve(w.health, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	}()
	return w, nil
}

func (w *world) close() { _ = w.health.Close() }

// queries returns A and AAAA queries for each name and network, in the format of dnsperf -B: each
// query follows its length, and dnsperf sets the ID. The random order is the same every time.
func queries(kind loadKind) []byte {
	var all [][]byte
	if kind == oneName {
		q := query(names[0]+"."+origin, 1, netip.Prefix{})
		return append(binary.BigEndian.AppendUint16(nil, uint16(len(q))), q...)
	}
	for n := range networks {
		prefix, _ := network(n)
		for _, name := range names {
			for _, qtype := range []uint16{1, 28} {
				q := query(name+"."+origin, qtype, prefix)
				if kind == signed {
					setDO(q)
				}
				all = append(all, q)
			}
		}
	}
	r := rand.New(rand.NewPCG(1, 2))
	r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	var out []byte
	for _, q := range all {
		out = binary.BigEndian.AppendUint16(out, uint16(len(q)))
		out = append(out, q...)
	}
	return out
}

// query returns a query with a client subnet (RFC 7871), or without EDNS if the prefix is invalid.
func query(name string, qtype uint16, client netip.Prefix) []byte {
	b := []byte{0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1}
	for label := range strings.SplitSeq(name, ".") {
		b = append(b, byte(len(label)))
		b = append(b, label...)
	}
	b = append(b, 0)
	b = binary.BigEndian.AppendUint16(b, qtype)
	b = append(b, 0, 1)
	if !client.IsValid() {
		b[11] = 0
		return b
	}
	b = append(b, 0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 11) // OPT, 1232 octets
	b = append(b, 0, 8, 0, 7, 0, 1, byte(client.Bits()), 0)
	addr := client.Addr().As4()
	return append(b, addr[:3]...)
}

// setDO sets the DO bit of a query with a client subnet, to request signatures.
func setDO(q []byte) { q[len(q)-15] = 0x80 }

// kaikuConfig writes Kaiku's fleet file and zone.
func (w *world) kaikuConfig(dir string, key bool) error {
	var b strings.Builder
	b.WriteString("sites:\n  - name: www\n    hosts: [www.example.com]\n    origin: { servers: [\"http://127.0.0.1:9\"] }\nnodes:\n")
	b.WriteString("  ns1: { roles: [geodns], location: [50.11, 8.68], addresses: [192.0.2.53] }\n")
	for _, s := range sites {
		fmt.Fprintf(&b, "  %s: { roles: [edge], location: [%s], addresses: [%s, \"%s\"] }\n", s.name, s.place, s.four,
			s.six)
	}
	fmt.Fprintf(&b, "edge: { http: \"%s\" }\ngeodns:\n  zones:\n    - name: example.com\n      file: zone\n",
		w.health.Addr())
	if key {
		b.WriteString("      dnssec: { key: key }\n")
	}
	b.WriteString("      edges:\n")
	for _, name := range names {
		fmt.Fprintf(&b, "        %s: { answers: 1, ttl: 30s }\n", name)
	}
	b.WriteString("  locate:\n")
	for n := range networks {
		prefix, at := network(n)
		fmt.Fprintf(&b, "    %s: [%s]\n", prefix, sites[at].place)
	}
	return write(dir, map[string]string{"fleet.yaml": b.String(), "zone": staticZone})
}

// gdnsdConfig writes gdnsd's configuration. Its geoip plugin has a table of networks, but no
// database and no health checks.
func (w *world) gdnsdConfig(dir, listen string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "options => { listen => \"%s\", udp_threads => 1, tcp_threads => 1, edns_client_subnet => true, run_dir => \"%s/run\", state_dir => \"%s/state\" }\n", listen, dir, dir)
	b.WriteString("plugins => { geoip => { maps => { m => { datacenters => [hel, nyc, sin], nets => {\n")
	for n := range networks {
		prefix, at := network(n)
		fmt.Fprintf(&b, "  %s => [%s, %s, %s]\n", prefix, sites[at].name, sites[(at+1)%3].name, sites[(at+2)%3].name)
	}
	b.WriteString("} } }\nresources => { edges => { map => m, dcmap => {\n")
	for _, s := range sites {
		fmt.Fprintf(&b, "  %s => { addrs_v4 => { a => %s }, addrs_v6 => { a => %s } }\n", s.name, s.four, s.six)
	}
	b.WriteString("} } } } }\n")
	zone := staticZone
	for _, name := range names {
		zone += name + " 30 DYNA geoip!edges\n"
	}
	return write(dir, map[string]string{"config": b.String(), "zones/example.com": zone})
}

// knotSigning is how Knot signs the answers of mod-geoip.
type knotSigning int

const (
	knotUnsigned knotSigning = iota
	knotOnline               // mod-onlinesign signs each answer anew
	knotAhead                // mod-geoip signs all answers when it starts
)

// knotConfig writes Knot's configuration, with mod-geoip in subnet mode.
func (w *world) knotConfig(dir, host, port string, signs knotSigning) error {
	zoneLines, policy := "    module: mod-geoip/geo", ""
	switch signs { // the default algorithm is ECDSA P-256
	case knotOnline:
		zoneLines = "    module: [mod-geoip/geo, mod-onlinesign]"
	case knotAhead:
		zoneLines += "\n    dnssec-signing: on\n    dnssec-policy: csk"
		policy = "\n    policy: csk"
	}
	conf := fmt.Sprintf(`server:
    listen: %s@%s
    rundir: "%s"
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
    edns-client-subnet: on
    user: root:root
database:
    storage: "%s/db"
policy:
  - id: csk
    single-type-signing: on
mod-geoip:
  - id: geo
    config-file: "%s/geo.conf"
    ttl: 30
    mode: subnet%s
template:
  - id: default
    storage: "%s"
zone:
  - domain: example.com
    file: zone
    zonefile-sync: -1
    journal-content: none
%s
`, host, port, dir, dir, dir, policy, dir, zoneLines)
	var b strings.Builder
	for _, name := range names {
		fmt.Fprintf(&b, "%s.%s:\n", name, origin)
		for n := range networks {
			prefix, at := network(n)
			fmt.Fprintf(&b, "  - net: %s\n    A: %s\n    AAAA: %s\n", prefix, sites[at].four, sites[at].six)
		}
	}
	zone := staticZone
	for _, name := range names { // for clients in unknown networks
		zone += fmt.Sprintf("%s 30 A %s\n%s 30 AAAA %s\n", name, sites[0].four, name, sites[0].six)
	}
	return write(dir, map[string]string{"knot.conf": conf, "geo.conf": b.String(), "zone": zone,
		"db/.keep": ""}) // makes the folder for the keys
}

func write(dir string, files map[string]string) error {
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}
