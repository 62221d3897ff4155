package node

import (
	"crypto/tls"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
)

// A site gets its further origins, its bucket and the countries of clients from the fleet file. A
// reload takes a new key of the bucket, and keeps what has not changed.
func TestOriginsOfSites(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	countries, err := filepath.Abs("../../../geodns/testdata/finland.mmdb")
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("404.html", "<h1>none</h1>")
	write("fleet.yaml", `
sites:
  - name: www
    hosts: [www.example.com]
    origin: { servers: ["http://127.0.0.1:1"], shield: us1 }
    origins:
      files:
        servers: ["https://s3.example.net"]
        s3: { bucket: assets, region: auto, style: host, credentials: key, query: [versionId] }
    rules:
      - { match: { path: [/files/**], country: [FI] }, origin: files, error_pages: { files: { 404: 404.html } } }
geodns: { geoip: `+countries+` }
nodes:
  eu1: { roles: [edge], region: eu, location: [0, 0], addresses: [127.0.0.1] }
  eu2: { roles: [edge], region: eu, location: [0, 0], addresses: [127.0.0.2] }
  us1: { roles: [edge], region: us, location: [0, 0], addresses: [127.0.0.4] }
`)
	var before siteSet
	defer func() { before.close(siteSet{}) }()
	load := func() siteSet {
		t.Helper()
		f, _, err := config.Load(filepath.Join(dir, "fleet.yaml"))
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
	write("key", "aws_access_key_id = one\naws_secret_access_key = s\n")
	first := load()
	www := first.sites[0]
	files := www.Origins["files"]
	b := files.Origin.S3
	if b == nil || b.KeyID != "one" || b.Bucket != "assets" || !b.HostStyle || !b.Allows("versionId") ||
		files.Origin.Servers[0].URL.Host != "assets.s3.example.net" || files.Origin.Name != "www/files" {
		t.Errorf("the bucket is %v of %v", b, files.Origin.Servers)
	}
	if www.Origin.Shield == nil || files.Shield != nil || files.Ring == nil || files.Ring != www.Origin.Ring {
		t.Error("the tiers of the origins are wrong")
	}
	if got := www.Country(netip.MustParseAddr("203.0.113.9")); got != "FI" {
		t.Errorf("203.0.113.9 is in %q", got)
	}
	if same := load(); same.sites[0].Origins["files"].Origin != files.Origin || same.countries != first.countries {
		t.Error("a pool or the database was made anew")
	}
	write("key", "aws_access_key_id = two\naws_secret_access_key = s\n")
	changed := load().sites[0]
	if to := changed.Origins["files"].Origin; to == files.Origin || to.S3.KeyID != "two" {
		t.Errorf("the key is still %s", to.S3.KeyID)
	}
	if changed.Origin.Origin != www.Origin.Origin {
		t.Error("the wrong pool was made anew")
	}
}
