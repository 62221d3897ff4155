package geodns

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func TestReloadRefuses(t *testing.T) {
	s := newServer(t, testConfig(t))
	broken := filepath.Join(t.TempDir(), "broken.mmdb")
	if err := os.WriteFile(broken, []byte("not a database"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name   string
		change func(cfg *Config)
		want   []string
	}{
		{"no zone", func(cfg *Config) { cfg.Zones = nil }, []string{"no zone"}},
		{"zone twice", func(cfg *Config) { cfg.Zones = append(cfg.Zones, cfg.Zones[0]) },
			[]string{"zone example.com.: given twice"}},
		{"node twice", func(cfg *Config) { cfg.Nodes = append(cfg.Nodes, cfg.Nodes[0]) },
			[]string{"node hel1: given twice"}},
		{"bad node", func(cfg *Config) {
			cfg.Nodes = append(cfg.Nodes, Node{
				Name: "bad", Place: Place{200, 0}, Addresses: []netip.Addr{{}}, Probe: "ftp://x/",
			})
		}, []string{"node bad: place 200", "node bad: invalid IP", "node bad: probe ftp://x/"}},
		{"no address", func(cfg *Config) { cfg.Nodes = append(cfg.Nodes, Node{Name: "none"}) },
			[]string{"node none: no address"}},
		{"health", func(cfg *Config) { cfg.Health.Timeout = -1 }, []string{"health: "}},
		{"all at once", func(cfg *Config) {
			cfg.Edges = append(
				cfg.Edges,
				EdgeName{Name: "www.example.org"},
				EdgeName{Name: "www.example.com"},
				EdgeName{Name: "a..b"},
				EdgeName{Name: "alias.example.com"},
				EdgeName{Name: "mail.example.com"},
				EdgeName{Name: "x.sub.example.com"},
				EdgeName{Name: "sub.example.com"},
				EdgeName{Name: "x.old.example.com"},
			)
		}, []string{
			"edge name www.example.org: in none of the zones",
			"edge name www.example.com: given twice",
			`edge name a..b: "a..b" is not a domain name`,
			"edge name alias.example.com: the zone has CNAME there too",
			"edge name mail.example.com: the zone has A there too",
			"edge name x.sub.example.com: below the delegation of sub.example.com.",
			"edge name sub.example.com: below the delegation of sub.example.com.",
			"edge name x.old.example.com: below the DNAME of old.example.com.",
		}},
		{"unknown node", func(cfg *Config) {
			cfg.Edges[0].Nodes = []string{"hel1", "fra1", "hel1"}
		}, []string{"edge name www.example.com.: unknown node fra1", "node hel1 given twice"}},
		{"no nodes", func(cfg *Config) { cfg.Nodes, cfg.Edges = nil, cfg.Edges[2:3] },
			[]string{"edge name example.com: no nodes to answer with"}},
		{"answers and TTL", func(cfg *Config) {
			cfg.Edges[0].Answers, cfg.Edges[0].TTL = -1, -1
		}, []string{"-1 answers", "TTL -1ns"}},
		{"locate", func(cfg *Config) {
			cfg.Locate = map[netip.Prefix]Place{netip.MustParsePrefix("10.0.0.1/8"): {}}
		}, []string{"locate 10.0.0.1/8: not a network; did you mean 10.0.0.0/8?"}},
		{"no database", func(cfg *Config) { cfg.GeoIP = broken + "x" }, []string{"geoip database: ", "no such file"}},
		{"broken database", func(cfg *Config) { cfg.GeoIP = broken }, []string{"geoip database " + broken}},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg := testConfig(t)
			test.change(&cfg)
			before := s.current.Load()
			err := s.Reload(cfg)
			if err == nil {
				t.Fatal("taken")
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error is %v, want %s", err, want)
				}
			}
			if s.current.Load() != before {
				t.Error("the configuration has changed")
			}
		})
	}
	if err := new(Server).Reload(Config{}); err == nil {
		t.Error("an empty configuration is taken at first")
	}
}

func TestReloadSwaps(t *testing.T) {
	s := newServer(t, testConfig(t))
	cfg := testConfig(t)
	cfg.Zones[0] = mustZone(t, strings.Replace(testZone, "192.0.2.99", "192.0.2.100", 1), "example.com")
	cfg.Edges = cfg.Edges[:1]
	cfg.Edges[0].Nodes, cfg.Edges[0].TTL = []string{"nyc1"}, 1500*time.Millisecond
	if err := s.Reload(cfg); err != nil {
		t.Fatal(err)
	}
	wantRRs(t, "answer", mustAnswer(t, s, question("mail.example.com. A"), nowhere, false).Answer,
		"mail.example.com. 3600 IN A 192.0.2.100")
	wantRRs(t, "answer", mustAnswer(t, s, question("www.example.com. A"), inHelsinki, false).Answer,
		"www.example.com. 2 IN A 198.51.100.20")
	if resp := mustAnswer(t, s, question("two.example.com. A"), inHelsinki, false); resp.Rcode != dns.RcodeNameError {
		t.Errorf("a name that is gone gets %v", resp)
	}
	// Configurations share zones, so an edge name of one must not appear in another.
	if cfg.Zones[0].nodes["\x03two\x07example\x03com\x00"] != nil {
		t.Error("the edge name is in the zone")
	}
}

func TestExplain(t *testing.T) {
	s := newServer(t, testConfig(t))
	x, err := s.Explain("two.example.com", netip.MustParseAddr("10.1.1.1"))
	if err != nil {
		t.Fatal(err)
	}
	if x.Zone != "example.com." || x.Source != "locate" || x.Network.String() != "10.0.0.0/12" || *x.Place != helsinki {
		t.Errorf("explanation is %+v", x)
	}
	want := []Explained{
		{Node: "hel1", Healthy: true, A: true, AAAA: true},
		{Node: "nyc1", Healthy: true, A: true, AAAA: true},
		{Node: "tyo1", Healthy: true},
	}
	for i, n := range x.Nodes {
		got := Explained{Node: n.Node, Healthy: n.Healthy, A: n.A, AAAA: n.AAAA}
		if got != want[i] || n.Reason == "" {
			t.Errorf("node %d is %+v, want %+v", i, n, want[i])
		}
	}
	if x, err = s.Explain("a.wild.example.com", netip.MustParseAddr("193.166.3.2")); err != nil || x.Country != "FI" ||
		x.Name != "*.wild.example.com." {
		t.Errorf("explanation is %+v, %v", x, err)
	}
	for _, n := range []string{"mail.example.com", "nowhere.example.com", "example.org", "a..b"} {
		if x, err := s.Explain(n, netip.MustParseAddr("10.1.1.1")); err == nil {
			t.Errorf("%s is explained: %+v", n, x)
		}
	}
}
