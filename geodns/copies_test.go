package geodns

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// If a geoip database is damaged, the server keeps the open one, or else uses the copy. Once the
// database is repaired, the server uses it again.
func TestGeoIPCopy(t *testing.T) {
	good, err := os.ReadFile("testdata/finland.mmdb")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	cfg := testConfig(t)
	cfg.GeoIP, cfg.GeoIPCopy = write("geoip.mmdb", good[:len(good)/2]), filepath.Join(dir, "copy.mmdb")
	s := new(Server)
	if err := s.Reload(cfg); err == nil || !strings.Contains(err.Error(), "no good copy of it") {
		t.Fatalf("without a copy the error is %v", err)
	}
	inFinland := func(step string, faulty bool) {
		t.Helper()
		if err := s.Reload(cfg); err != nil {
			t.Fatalf("%s: %v", step, err)
		}
		if err := s.GeoIPFault(); (err != nil) != faulty || faulty && !strings.Contains(err.Error(), cfg.GeoIP) {
			t.Errorf("%s: the fault is %v", step, err)
		}
		var buf Place
		if at := s.current.Load().locator.find(netip.MustParseAddr("203.0.113.9"), &buf); at.source != "geoip" ||
			at.country != "FI" {
			t.Errorf("%s: 203.0.113.9 is %+v", step, at)
		}
	}
	write("copy.mmdb", good)
	inFinland("a start with the copy", true)
	inFinland("a reload", true)
	write("geoip.mmdb", good)
	inFinland("repaired", false)
	write("geoip.mmdb", nil)
	write("copy.mmdb", nil)
	inFinland("damaged while it runs", true)
}

// Misfits reports the zone of an edge name that can't be there, and no other zone.
func TestMisfits(t *testing.T) {
	zones := []*Zone{
		mustZone(t, head+"www A 192.0.2.1\nsub NS ns.example.org.\n", "example.com"),
		mustZone(t, head, "example.net"), mustZone(t, head, "sub.example.com"),
	}
	for edge, want := range map[string]string{
		"www.example.com": "example.com.", "a.sub.example.com": "", "www.example.net": "", "www.example.org": "",
	} {
		got := Misfits(zones, []EdgeName{{Name: edge}})
		if want == "" && len(got) > 0 || want != "" && (len(got) != 1 || got[want] == nil) {
			t.Errorf("misfits of %s are %v, want %s", edge, got, want)
		}
	}
}
