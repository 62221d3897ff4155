package main

import (
	"encoding/json"
	"io"
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/kaiku-cdn/kaiku/"

// allowed says which packages of the module each one may import; the commands see all.
var allowed = map[string][]string{
	"cmd/kaiku/config": {"cmd/kaiku/words", "deploy", "edge/admin", "edge/cache", "edge/compress", "edge/httpcache",
		"edge/purge", "edge/rules", "fleet", "geodns", "geodns/dnssec", "origin"},
	"cmd/kaiku/demo": {"cmd/kaiku/config", "cmd/kaiku/node", "edge/admin", "edge/purge", "geodns", "storage"},
	"cmd/kaiku/node": {"cmd/kaiku/config", "deploy", "edge", "edge/admin", "edge/certs", "edge/front",
		"edge/httpcache", "edge/purge", "edge/site", "fleet", "geodns", "origin", "storage"},
	"cmd/kaiku/words":     {},
	"cmd/kaiku/capacity":  {"storage"},
	"cmd/kaiku/selfbench": {"cmd/kaiku/capacity", "geodns/dnssec", "storage"},
	"edge": {"edge/admin", "edge/cache", "edge/certs", "edge/front", "edge/httpcache", "edge/purge", "edge/rules",
		"edge/site", "origin", "storage"},
	"edge/admin": {"edge/cache", "edge/certs", "edge/front", "edge/httpcache", "edge/purge", "edge/rules", "edge/site",
		"origin", "storage"},
	"edge/compress": {"edge/httpcache"},
	"edge/cache": {"edge/compress", "edge/front", "edge/front/http2", "edge/httpcache", "edge/purge", "edge/rules",
		"edge/site",
		"edge/ttlset", "origin", "storage"},
	"edge/front":          {"edge/front/http2", "edge/httpcache", "edge/ttlset", "origin"},
	"edge/ttlset":         {},
	"edge/purge":          {"edge/httpcache", "edge/site", "origin", "storage"},
	"edge/site":           {"edge/compress", "edge/httpcache", "edge/rules", "origin", "storage"},
	"edge/rules":          {},
	"edge/certs":          {},
	"edge/front/http2":    {},
	"edge/httpcache":      {},
	"origin":              {"fleet/rendezvous"},
	"storage":             {},
	"geodns":              {"fleet/rendezvous", "geodns/dnssec"},
	"geodns/dnssec":       {},
	"fleet":               {},
	"fleet/freeport":      {},
	"fleet/rendezvous":    {},
	"fleet/testwait":      {},
	"deploy":              {},
	"deploy/sshtest":      {},
	"bench/dns":           {"bench/peer"},
	"bench/http":          {"bench/peer"},
	"bench/lab":           {"bench/promise", "bench/world", "bench/world/machine"},
	"bench/promise":       {"bench/world"},
	"bench/world":         {},
	"bench/world/machine": {},
}

// rooms are the only packages that may import a vendor directly. Benchmarks aside: they speak the
// protocols as clients, cmd/kaiku/selfbench among them. So does the SSH server of tests, as a
// server.
var rooms = map[string]string{
	"github.com/dgraph-io/badger":          "storage",
	"github.com/maypok86/otter":            "storage",
	"github.com/miekg/dns":                 "geodns",
	"github.com/oschwald/maxminddb-golang": "geodns",
	"github.com/phuslu/iploc":              "geodns",
	"github.com/dunglas/httpsfv":           "edge/httpcache",
	"github.com/quic-go/quic-go":           "edge/front",
	"github.com/caddyserver/certmagic":     "edge/certs",
	"github.com/klauspost/compress":        "edge/compress",
	"github.com/andybalholm/brotli":        "edge/compress",
	"github.com/nats-io":                   "fleet",
	"github.com/aws/smithy-go":             "origin",
	"golang.org/x/crypto/ssh":              "deploy",
	"github.com/spf13/cobra":               "cmd/kaiku",
	"github.com/goccy/go-yaml":             "cmd/kaiku/config",
}

type listed struct {
	ImportPath string
	Imports    []string
	Standard   bool
}

func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports,Standard", "-deps", module+"...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	seen := 0
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := d.Decode(&p); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		name, ours := strings.CutPrefix(p.ImportPath, module)
		if !ours {
			continue
		}
		seen++
		may, known := allowed[name]
		if !known && name != "cmd/kaiku" && !strings.HasPrefix(name, "bench") {
			t.Errorf("%s is a package that the design does not know", name)
		}
		for _, imp := range p.Imports {
			if sibling, ok := strings.CutPrefix(imp, module); ok && name != "cmd/kaiku" && !contains(may, sibling) {
				t.Errorf("%s imports %s", name, sibling)
			}
			if name == "edge/httpcache" && strings.Contains(strings.Split(imp, "/")[0], ".") && rooms[imp] != name {
				t.Errorf("edge/httpcache imports %s, which is not of the standard library, nor of this room", imp)
			}
			if imp == "text/template" || imp == "html/template" {
				// they look methods up by name, so that the linker keeps all of all types: 5 MB of
				// a program
				if !strings.HasPrefix(name, "bench") {
					t.Errorf("%s imports %s", name, imp)
				}
			}
			for vendor, room := range rooms {
				if (imp == vendor || strings.HasPrefix(imp, vendor+"/")) && name != room && name != room+"/sshtest" &&
					!strings.HasPrefix(name, "bench/") && name != "cmd/kaiku/selfbench" {
					t.Errorf("%s imports %s, whose room is %s", name, imp, room)
				}
			}
		}
	}
	if seen < len(allowed)-2 {
		t.Errorf("go list told of %d packages only", seen)
	}
}

func contains(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}
