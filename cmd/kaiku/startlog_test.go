package main

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/node"
	"github.com/kaiku-cdn/kaiku/fleet/freeport"
	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// logLines collects what nodes log.
type logLines struct {
	mu   sync.Mutex
	have strings.Builder
}

// Write appends a line.
func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.have.Write(p)
}

func (l *logLines) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.have.String()
}

// healthyFleet is a fleet of three nodes. All are control nodes and edges, and two are name
// servers.
type healthyFleet struct {
	file  string
	names []string
	dns   map[string]string // addresses of the name servers
}

// newHealthyFleet writes the files of the fleet. Its ACME authority accepts connections but never
// answers, so no order ends during the test.
func newHealthyFleet(t *testing.T) *healthyFleet {
	t.Helper()
	authority, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { authority.Close() })
	dir := t.TempDir()
	f := &healthyFleet{file: filepath.Join(dir, "fleet.yaml"), names: []string{"hel1", "fra1", "nyc1"},
		dns: map[string]string{"hel1": freeport.Addr(t), "fra1": freeport.Addr(t)}}
	text := fmt.Sprintf(`
sites: [{ name: www, hosts: [example.com, www.example.com], origin: { servers: ["%s"], health: { path: /health, interval: 1s, timeout: 1s, unhealthy_after: 20 } } }]
edge: { disk: 128MiB, memory: 16MiB }
secrets: { fleet_key: fleet.key }
tls: { acme: { email: ops@example.com, directory: "https://%s/directory" } }
geodns: { zones: [{ name: example.com, file: example.com.zone, edges: { "@": {}, www: {} } }], health: { interval: 1s, timeout: 1s, unhealthy_after: 20 } }
nodes:
`, newCountingOrigin(t).URL, authority.Addr())
	for i, name := range f.names {
		roles := "control, edge"
		if f.dns[name] != "" {
			roles += ", geodns"
		}
		text += fmt.Sprintf("  %s: { roles: [%s], location: [0, 0], region: eu, addresses: [127.0.0.%d], edge: { http: %q, https: %q, admin: %q, peer: %q, data: %q }, control: { listen: %q, cluster: %q, data: %q } }\n",
			name, roles, i+1, freeport.Addr(t), freeport.Addr(t), freeport.Addr(t), freeport.Addr(t), filepath.Join(dir,
				name), freeport.Addr(t), freeport.Addr(t), filepath.Join(dir, name+"-control"))
	}
	zone := "@ 3600 IN SOA ns1 hostmaster 1 3600 600 86400 60\n@ 3600 IN NS ns1\n@ 3600 IN NS ns2\nns1 3600 IN A 127.0.0.1\nns2 3600 IN A 127.0.0.2\n"
	writeFiles(t, dir, map[string]string{"fleet.yaml": text, "fleet.key": regionKey, "example.com.zone": zone})
	return f
}

// If the nodes of a fleet start for the first time, one after the other and without a fault, they
// log no warning and no error.
func TestHealthyStartIsQuiet(t *testing.T) {
	f := newHealthyFleet(t)
	var out logLines
	started := map[string]time.Time{}
	for _, name := range f.names {
		started[name] = time.Now()
		log := slog.New(slog.NewTextHandler(io.MultiWriter(&out, t.Output()), nil)).With("node", name)
		serveNode(t, name, newNode(t, f.file, name, node.Overrides{Listen: listenOn(f.dns[name])}, log))
		testwait.Until(t, name+" logs its first line",
			func() bool { return strings.Contains(out.text(), "node="+name+" ") })
	}
	for _, name := range f.names {
		testwait.Until(t, name+" follows the purges", func() bool {
			return strings.Contains(out.text(),
				`msg="purge log: followed for the first time; everything in the cache is now stale" node=`+name)
		})
	}
	testwait.Until(t, "an edge orders certificates",
		func() bool { return strings.Contains(out.text(), "this edge orders and renews") })
	for line := range strings.Lines(out.text()) {
		checkQuiet(t, line, started)
	}
	if text := out.text(); !strings.Contains(text, "control server: waiting for a majority") ||
		strings.Contains(text, "PRODUCTION") {
		t.Errorf("the control servers log:\n%s", text)
	}
}

// checkQuiet fails the test for a line above level Info. Two kinds are allowed: lines about the
// machine, and lines 15 s or more after the node's start, because on a busy machine a node may
// rightly warn of a slow start.
func checkQuiet(t *testing.T, line string, started map[string]time.Time) {
	t.Helper()
	m := regexp.MustCompile(`^time=(\S+) level=(\S+) .*? node=(\S+)`).FindStringSubmatch(line)
	if m == nil {
		t.Fatalf("a line is %s", line)
	}
	at, err := time.Parse(time.RFC3339Nano, m[1])
	if err != nil {
		t.Fatal(err)
	}
	early := at.Sub(started[m[3]]) < 15*time.Second
	if early && m[2] != "INFO" && !strings.Contains(line, "UDP buffers") {
		t.Errorf("a start without a fault logs %s", line)
	}
}
