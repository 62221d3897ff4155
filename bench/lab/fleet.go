//go:build linux

package main

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/kaiku-cdn/kaiku/bench/world"
)

// The host names that clients request.
const (
	hostWWW    = "www.example.com"    // answered with the nearest edge
	hostTwo    = "two.example.com"    // with the nearest two
	hostCold   = "cold.example.com"   // its origin closes each connection, so each miss opens a new one
	hostOrigin = "origin.example.com" // the origin itself
	hostCloses = "closes.example.com" // the origin itself, which closes each connection after a response
)

// operator is the host from which the fleet is deployed.
const operator = "admin"

// city is a place with a client, a resolver, an edge and a control node.
type city struct {
	key   string // part of the names of its hosts
	place world.Place
	edge  string
}

func cities() []city {
	return []city{{"hel", world.Helsinki, "hel1"}, {"nyc", world.NewYork, "nyc1"}, {"sin", world.Singapore, "sin1"}}
}

// hosts returns all machines. Name servers and control nodes are where `kaiku init` places them for
// three machines. Here each has a machine of its own, so that each can fail alone.
func hosts() world.Hosts {
	// A client's line is like that of many homes. A server's line is like that of rented machines.
	home, server := world.Line{Up: 50e6, Down: 200e6}, world.Line{Up: 1e9, Down: 1e9}
	var all world.Hosts
	add := func(name string, at world.Place, line world.Line) {
		all.Add(world.Host{Name: name, At: at, Line: line, Home: line == home})
	}
	for _, c := range cities() {
		add("client"+c.key, c.place, home)
		add("resolver"+c.key, c.place, server)
		add(c.edge, c.place, server)
	}
	add("ns1", world.Helsinki, server)
	add("ns2", world.NewYork, server)
	for i, c := range cities() {
		add(fmt.Sprintf("c%d", i+1), c.place, server)
	}
	add("origin", world.Washington, server)
	add(operator, world.Helsinki, server)
	return all
}

// address returns the address of a host.
func address(name string) string { return hosts().Address(name) }

// fleetHosts returns the hosts that run kaiku, control nodes first.
func fleetHosts() []string { return []string{"c1", "c2", "c3", "hel1", "nyc1", "sin1", "ns1", "ns2"} }

// fleetFile returns the fleet file. Nodes keep their data in folders of dir, or in the default
// place if dir is "".
func fleetFile(dir string, ttl, maxDisconnected time.Duration) (string, error) {
	var b strings.Builder
	data := func(role, node string) string {
		if dir == "" {
			return ""
		}
		return fmt.Sprintf(", %s: { data: %s }", role, filepath.Join(dir, node))
	}
	fmt.Fprintf(&b, `sites:
  - name: www
    hosts: [%s, %s]
    origin: { servers: ["https://%[4]s"], host: %[5]s, ca: ca.pem }
  - name: cold
    hosts: [%[3]s]
    origin: { servers: ["https://%[4]s:8443"], host: %[5]s, ca: ca.pem }
tls: { certificates: [{ cert: cert.pem, key: key.pem }] }
secrets: { fleet_key: fleet.key }
edge: { disk: 4GiB, memory: 64MiB, max_disconnected: %[6]v }
nodes:
`, hostWWW, hostTwo, hostCold, address("origin"), hostOrigin, maxDisconnected)
	where := world.Locations()
	for _, c := range cities() {
		at := where[c.place]
		fmt.Fprintf(&b, "  %s: { roles: [edge], location: [%v, %v], addresses: [%s]%s }\n", c.edge, at.Lat, at.Lon,
			address(c.edge), data("edge", c.edge))
	}
	for i, name := range []string{"ns1", "ns2"} {
		at := where[cities()[i].place]
		fmt.Fprintf(&b, "  %s: { roles: [geodns], location: [%v, %v], addresses: [%s] }\n", name, at.Lat, at.Lon,
			address(name))
	}
	for i, c := range cities() {
		name, at := fmt.Sprintf("c%d", i+1), where[c.place]
		fmt.Fprintf(&b, "  %s: { roles: [control], location: [%v, %v], addresses: [%s]%s }\n", name, at.Lat, at.Lon,
			address(name), data("control", name))
	}
	fmt.Fprintf(&b, "geodns:\n  zones: [{ name: example.com, file: zone, edges: { www: { ttl: %v }, cold: { ttl: %[1]v }, two: { answers: 2, ttl: %[1]v } } }]\n  locate:\n", ttl)
	for _, c := range cities() {
		at := where[c.place]
		for _, host := range []string{"client", "resolver"} {
			network, err := netip.MustParseAddr(address(host + c.key)).Prefix(24)
			if err != nil {
				return "", err
			}
			fmt.Fprintf(&b, "    %s: [%v, %v]\n", network, at.Lat, at.Lon)
		}
	}
	return b.String(), nil
}

// writeFleet writes the fleet file and the files that it names.
func writeFleet(dir string, ttl, maxDisconnected time.Duration) error {
	fleet, err := fleetFile(dir, ttl, maxDisconnected)
	if err != nil {
		return err
	}
	zone := fmt.Sprintf("$ORIGIN example.com.\n$TTL 300\n@ SOA ns1 hostmaster 1 7200 1800 1209600 60\n@ NS ns1\n@ NS ns2\nns1 A %s\nns2 A %s\norigin A %s\ncloses A %[3]s\n",
		address("ns1"), address("ns2"), address("origin"))
	if err := makeCertificates(dir, []string{hostWWW, hostTwo, hostCold, hostOrigin, hostCloses}); err != nil {
		return err
	}
	for name, text := range map[string]string{"fleet.yaml": fleet, "zone": zone,
		"fleet.key": strings.Repeat("secret", 8) + "\n", "nginx.conf": nginxConf(dir)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return writeFiles(filepath.Join(dir, "www"))
}

// bodies returns the sizes that are measured, in bytes, by the first part of their URLs.
func bodies() map[string]int {
	return map[string]int{"1k": 1 << 10, "1m": 1 << 20, "20m": 20 << 20, "page": 20 << 10, "asset": 20 << 10,
		"short": 1 << 10}
}

// pageObjects is the number of objects of a page, including itself.
const pageObjects = 30

func writeFiles(dir string) error {
	for _, d := range []string{"v", "obj"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	for name, size := range bodies() {
		if err := os.WriteFile(filepath.Join(dir, name+".bin"), bytes.Repeat([]byte("0123456789abcde\n"), size/16),
			0o644); err != nil {
			return err
		}
	}
	return nil
}

// nginxConf returns a configuration that serves any number of URLs of each size: each miss needs a
// new one.
func nginxConf(dir string) string {
	return fmt.Sprintf(`daemon off; master_process off; pid %[1]s/nginx.pid; error_log stderr error; user root;
events { worker_connections 8192; }
http {
  access_log off; sendfile on; tcp_nopush on; default_type application/octet-stream; root %[1]s/www;
  client_body_temp_path %[1]s/n1; proxy_temp_path %[1]s/n2; fastcgi_temp_path %[1]s/n3; uwsgi_temp_path %[1]s/n4; scgi_temp_path %[1]s/n5;
  ssl_certificate %[1]s/cert.pem; ssl_certificate_key %[1]s/key.pem; ssl_protocols TLSv1.3;
  keepalive_requests 100000; http2_max_concurrent_streams 256;
  map $uri $age { default "max-age=3600"; ~^/short/ "max-age=2"; }
  add_header Cache-Control $age;
  server {
    listen 443 ssl http2;
    keepalive_timeout 1h;
    location ~ ^/(1k|1m|20m|page|asset|short)/ { try_files /$1.bin =404; }
  }
  server {
    listen 443 ssl http2;
    listen 8443 ssl;
    server_name %[2]s;
    keepalive_timeout 0;
    location ~ ^/(1k|1m|20m|page|asset|short)/ { try_files /$1.bin =404; }
  }
}
`, dir, hostCloses)
}

// resolver returns the command line of a caching resolver. With subnets, it sends the client's
// subnet to name servers.
func resolver(dir, addr string, subnets bool) []string {
	args := []string{"pdns_recursor", "--config-dir=" + dir, "--socket-dir=" + dir, "--daemon=no", "--disable-syslog",
		"--write-pid=no", "--threads=1", "--local-address=" + addr,
		"--allow-from=198.18.0.0/15", "--dont-query=", "--dnssec=off", "--security-poll-suffix=", "--loglevel=3",
		"--forward-zones=example.com=" + address("ns1") + ";" + address("ns2")}
	if subnets {
		args = append(args, "--edns-subnet-allow-list=example.com", "--ecs-add-for=0.0.0.0/0", "--ecs-ipv4-bits=24")
	}
	return args
}
