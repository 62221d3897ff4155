package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kaiku-cdn/kaiku/edge/admin"
	"github.com/kaiku-cdn/kaiku/fleet/freeport"
	"github.com/kaiku-cdn/kaiku/fleet/testwait"
	"github.com/kaiku-cdn/kaiku/geodns"
)

// pageFleet is a fleet of three edges in this process. The first one is the control node and the
// name server.
type pageFleet struct {
	t      *testing.T
	dir    string
	http   map[string]string // by node
	admin  map[string]string
	dns    string
	origin *httptest.Server
	stop   map[string]func()
}

var pageNodes = []string{"hel1", "fra1", "nyc1"}

func startPageFleet(t *testing.T) *pageFleet {
	t.Helper()
	f := &pageFleet{t: t, dir: t.TempDir(), http: map[string]string{}, admin: map[string]string{},
		dns:  freeport.Addr(t),
		stop: map[string]func(){}}
	f.origin = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=1000")
		w.Header().Set("Surrogate-Key", "front")
		_, _ = io.WriteString(w, strings.Repeat(r.URL.Path, 1000))
	}))
	t.Cleanup(f.origin.Close)
	text := fmt.Sprintf(`
sites:
  - { name: www, hosts: [www.example.com], origin: { servers: [%q] } }
  - { name: gone, hosts: [gone.example.com], origin: { servers: ["http://127.0.0.1:1"] } }
edge: { disk: 128MiB, memory: 16MiB, https: "" }
geodns: { listen: %q, zones: [{ name: example.com, file: example.com.zone, edges: { www: {} } }], health: { interval: 1s, timeout: 500ms } }
secrets: { fleet_key: fleet.key, admin_token: admin.token, tokens: [{ file: read.token, scopes: [read] }] }
nodes:
`, f.origin.URL, f.dns)
	place := map[string]string{"hel1": "60.17, 24.94", "fra1": "50.11, 8.68", "nyc1": "40.71, -74.01"}
	for i, name := range pageNodes {
		f.http[name], f.admin[name] = freeport.Addr(t), freeport.Addr(t)
		roles, control := "edge", ""
		if i == 0 {
			roles, control = "edge, control, geodns", fmt.Sprintf(", control: { listen: %q, cluster: %q, data: %q }",
				freeport.Addr(t), freeport.Addr(t), filepath.Join(f.dir, "control"))
		}
		text += fmt.Sprintf("  %s: { roles: [%s], location: [%s], addresses: [127.0.0.%d], edge: { http: %q, admin: %q, peer: %q, data: %q }%s }\n",
			name, roles, place[name], 11+i, f.http[name], f.admin[name], freeport.Addr(t), filepath.Join(f.dir, name),
			control)
	}
	writeFiles(t, f.dir, map[string]string{"fleet.yaml": text, "fleet.key": strings.Repeat("k", 40),
		"admin.token": "all-may\n",
		"read.token":  "see-only\n", "example.com.zone": deployedZone})
	for _, name := range pageNodes {
		f.stop[name] = runNode(t, filepath.Join(f.dir, "fleet.yaml"), name)
	}
	return f
}

// live calls see with the events of a node's stream until it returns true.
func (f *pageFleet) live(node string, see func(admin.LiveEvent) bool) {
	f.t.Helper()
	r, err := http.NewRequestWithContext(f.t.Context(), "GET", "http://"+f.admin[node]+"/v1/live", nil)
	if err != nil {
		f.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer see-only")
	var resp *http.Response
	testwait.Until(f.t, "the node answers", func() bool {
		if resp, err = http.DefaultClient.Do(r); err != nil {
			return false
		}
		return resp.StatusCode == 200
	})
	defer resp.Body.Close()
	stream := bufio.NewReader(resp.Body)
	for range 60 {
		line, err := stream.ReadString('\n')
		if err != nil {
			f.t.Fatal(err)
		}
		var e admin.LiveEvent
		if text, ok := strings.CutPrefix(line, "data: "); ok && json.Unmarshal([]byte(text), &e) == nil && see(e) {
			return
		}
	}
	f.t.Fatal("the stream doesn't show it")
}

// Any node's page shows all nodes, where they are and what they do.
func TestPageShowsTheFleet(t *testing.T) {
	t.Parallel()
	f := startPageFleet(t)
	reports := map[string]*admin.Report{}
	f.live("nyc1", func(e admin.LiveEvent) bool {
		for _, n := range e.Nodes {
			if reports[n.Node] = n.Report; !n.Leased || !n.Live {
				reports[n.Node] = nil
			}
		}
		for _, name := range pageNodes {
			if r := reports[name]; r == nil || r.Store == nil || len(r.Sites) != 2 {
				return false
			}
		}
		return e.Error == ""
	})
	if at := reports["hel1"].Location; at == nil || at[0] != 60.17 {
		t.Errorf("hel1 is at %v", at)
	}
	r, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+f.http["hel1"]+"/a", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = "www.example.com"
	// The name server counts where clients are, and the edge what it does.
	f.live("hel1", func(e admin.LiveEvent) bool {
		if _, err := geodns.Lookup(t.Context(), f.dns, "www.example.com",
			netip.MustParsePrefix("193.166.0.0/16")); err != nil {
			t.Log(err)
		}
		if resp, err := http.DefaultClient.Do(r); err == nil {
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
		for _, n := range e.Nodes {
			if n.Node == "hel1" && n.Report != nil && n.Report.Served["hel1"]["FI"] > 0 &&
				n.Report.Rates.Requests > 0 &&
				n.Report.Rates.Hits > 0 && n.Report.Rates.HitBytes > 0 && n.Report.Rates.Origin > 0 {
				return true
			}
		}
		return false
	})
}
