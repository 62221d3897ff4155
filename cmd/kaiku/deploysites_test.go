package main

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
	"github.com/kaiku-cdn/kaiku/deploy"
	"github.com/kaiku-cdn/kaiku/fleet/freeport"
	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// siteFleet is one edge with a site for each state that an origin may be in.
func siteFleet(t *testing.T) (config string, n *testNode, away *httptest.Server) {
	t.Helper()
	dir := t.TempDir()
	n = &testNode{http: freeport.Addr(t), admin: freeport.Addr(t)}
	sick := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "the database is away", http.StatusInternalServerError)
	}))
	t.Cleanup(sick.Close)
	away = newCountingOrigin(t).Server
	config = filepath.Join(dir, "fleet.yaml")
	text := fmt.Sprintf(`
sites:
  - { name: good, hosts: ["*.good.example"], origin: { servers: ["%s"] } }
  - { name: away, hosts: [away.example], origin: { servers: ["%s"] } }
  - { name: sick, hosts: [sick.example], origin: { servers: ["%s"] } }
  - { name: dead, hosts: [dead.example], origin: { servers: ["http://%s"] } }
edge: { http: %q, admin: %q, data: %q, disk: 128MiB, memory: 16MiB }
nodes:
  hel1: { roles: [edge], location: [0, 0], addresses: [127.0.0.1] }
`, newCountingOrigin(t).URL, away.URL, sick.URL, freeport.Addr(t), n.http, n.admin, filepath.Join(dir, "data"))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return config, n, away
}

// sitesOf requests all sites from an edge in this process.
func sitesOf(t *testing.T, fleetFile string) map[string]deploy.SiteAnswer {
	t.Helper()
	f, _, err := config.Load(fleetFile)
	if err != nil {
		t.Fatal(err)
	}
	// the edge does not have this site yet
	f.Sites = append(f.Sites, config.Site{Name: "new", Hosts: []string{"new.example"}, Origin: f.Sites[0].Origin})
	out := map[string]deploy.SiteAnswer{}
	for _, a := range (&deployFleet{fleet: f}).Sites(t.Context(), "hel1", (&net.Dialer{}).DialContext) {
		out[a.Site] = a
	}
	return out
}

// Each site is requested through the edge, past its store. If something is wrong with the origin,
// the answer says what to do about it.
func TestDeployAsksForSites(t *testing.T) {
	config, n, away := siteFleet(t)
	runNode(t, config, "hel1")
	testwait.Until(t, "the edge answers", func() bool { return sitesOf(t, config)["good"].Well() })
	_, port, err := net.SplitHostPort(n.http)
	if err != nil {
		t.Fatal(err)
	}
	got := sitesOf(t, config)
	if a := got["good"]; a.URL != "http://www.good.example:"+port+"/" || a.Status != 200 || a.Cache != "hit" ||
		!a.Well() {
		t.Errorf("a good origin: %+v", a)
	}
	if a := got["sick"]; a.Well() || a.Status != 500 ||
		!strings.Contains(a.Error, `itself sends this response: "the database is away"`) {
		t.Errorf("an origin that is sick: %+v", a)
	}
	if a := got["dead"]; a.Well() || a.Status != 502 || !strings.Contains(a.Error, "connection refused") ||
		!strings.Contains(a.Error, "check that the server runs, and the host and port in origin.servers") {
		t.Errorf("an origin that is dead: %+v", a)
	}
	if a, has := got["new"]; has {
		t.Errorf("a site that the edge does not have: %+v", a)
	}
	if a := got["away"]; !a.Well() {
		t.Errorf("an origin before it goes: %+v", a)
	}
	away.Close()
	if a := sitesOf(t, config)["away"]; a.Well() || a.Status != 200 || a.Cache != "hit" ||
		!strings.HasPrefix(a.Error, "it serves cached responses, but a request to the origin") ||
		!strings.Contains(a.Error, "connection refused") {
		t.Errorf("an origin that is gone: %+v", a)
	}
}

// Sites are requested over https once they have a certificate.
func TestDeployAsksForSitesByHTTPS(t *testing.T) {
	config, _, _ := siteFleet(t)
	text := readFile(t, config)
	secure := freeport.Addr(t)
	writeCertificates(t, filepath.Dir(config), "away.example")
	text = strings.Replace(text, "edge: { ",
		fmt.Sprintf("tls: { certificates: [{ cert: away.example.pem, key: away.example.key }] }\nedge: { https: %q, ",
			secure), 1)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	runNode(t, config, "hel1")
	testwait.Until(t, "the edge answers", func() bool { return sitesOf(t, config)["good"].Well() })
	_, port, err := net.SplitHostPort(secure)
	if err != nil {
		t.Fatal(err)
	}
	got := sitesOf(t, config)
	if a := got["away"]; a.URL != "https://away.example:"+port+"/" || !a.Well() ||
		!strings.HasPrefix(a.Note, "its certificate is not trusted on this machine") {
		t.Errorf("a site with a certificate: %+v", a)
	}
	if a := got["good"]; !strings.HasPrefix(a.URL, "http://www.good.example:") || !a.Well() ||
		a.Note != "it has no certificate for www.good.example yet" {
		t.Errorf("a site without one: %+v", a)
	}
}
