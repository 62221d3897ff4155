package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
	"github.com/kaiku-cdn/kaiku/cmd/kaiku/node"
	"github.com/kaiku-cdn/kaiku/fleet/freeport"
)

// logLines are what processes log.
type logLines struct {
	mu   sync.Mutex
	have strings.Builder
}

// Write takes a line.
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

// A fleet whose three control nodes, edges and name servers start for the first time, one after the
// other and with nothing amiss, logs nothing that an operator would look after.
func TestHealthyStartIsQuiet(t *testing.T) {
	o := newCountingOrigin(t)
	dir := t.TempDir()
	dns := map[string]string{"hel1": freeport.Addr(t), "fra1": freeport.Addr(t)}
	authority, err := net.Listen("tcp", "127.0.0.1:0") // which says nothing: orders take longer than the test
	if err != nil {
		t.Fatal(err)
	}
	defer authority.Close()
	text := fmt.Sprintf(`
sites: [{ name: www, hosts: [example.com, www.example.com], origin: { servers: ["%s"], health: { path: /health, interval: 1s, timeout: 1s, unhealthy_after: 20 } } }]
edge: { disk: 128MiB, memory: 16MiB }
secrets: { fleet_key: fleet.key }
tls: { acme: { email: ops@example.com, directory: "https://%s/directory" } }
geodns: { zones: [{ name: example.com, file: example.com.zone, edges: { "@": {}, www: {} } }], health: { interval: 1s, timeout: 1s, unhealthy_after: 20 } }
nodes:
`, o.URL, authority.Addr())
	names := []string{"hel1", "fra1", "nyc1"}
	for i, name := range names {
		roles := "control, edge"
		if dns[name] != "" {
			roles += ", geodns"
		}
		text += fmt.Sprintf("  %s: { roles: [%s], location: [0, 0], region: eu, addresses: [127.0.0.%d], edge: { http: %q, https: %q, admin: %q, peer: %q, data: %q }, control: { listen: %q, cluster: %q, data: %q } }\n",
			name, roles, i+1, freeport.Addr(t), freeport.Addr(t), freeport.Addr(t), freeport.Addr(t), filepath.Join(dir,
				name), freeport.Addr(t), freeport.Addr(t), filepath.Join(dir, name+"-control"))
	}
	zone := "@ 3600 IN SOA ns1 hostmaster 1 3600 600 86400 60\n@ 3600 IN NS ns1\n@ 3600 IN NS ns2\nns1 3600 IN A 127.0.0.1\nns2 3600 IN A 127.0.0.2\n"
	for name, content := range map[string]string{"fleet.yaml": text,
		"fleet.key": "0123456789abcdef0123456789abcdef0123", "example.com.zone": zone} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var out logLines
	started := map[string]time.Time{}
	for _, name := range names {
		started[name] = time.Now()
		log := slog.New(slog.NewTextHandler(io.MultiWriter(&out, t.Output()), nil)).With("node", name)
		f, _, err := config.Load(filepath.Join(dir, "fleet.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		p, err := node.New(filepath.Join(dir, "fleet.yaml"), name, f.Node(name).Roles,
			node.Overrides{Listen: listenOn(dns[name])}, log)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- p.Run(ctx) }()
		t.Cleanup(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
		until(t, name+" looks after its health", func() bool { return strings.Contains(out.text(), "node="+name+" ") })
	}
	for _, name := range names {
		until(t, name+" follows the purges", func() bool {
			return strings.Contains(out.text(),
				`msg="purge log: followed for the first time; what this edge has from before is stale" node=`+name)
		})
	}
	until(t, "an edge orders certificates",
		func() bool { return strings.Contains(out.text(), "this edge orders and renews") })
	for line := range strings.Lines(out.text()) {
		m := regexp.MustCompile(`^time=(\S+) level=(\S+) .*? node=(\S+)`).FindStringSubmatch(line)
		if m == nil {
			t.Fatalf("a line is %s", line)
		}
		at, err := time.Parse(time.RFC3339Nano, m[1])
		if err != nil {
			t.Fatal(err)
		}
		// What lasts for longer than this is told, and on a busy machine a start may last.
		early := at.Sub(started[m[3]]) < 15*time.Second
		if early && m[2] != "INFO" && !strings.Contains(line, "UDP buffers") { // which are a setting of the machine
			t.Errorf("a start with nothing amiss logs %s", line)
		}
	}
	if text := out.text(); !strings.Contains(text, "control server: it waits for a majority") ||
		strings.Contains(text, "PRODUCTION") {
		t.Errorf("what the control servers say:\n%s", text)
	}
}
