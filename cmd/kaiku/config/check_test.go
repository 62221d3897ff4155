package config

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func fleetText(t *testing.T) (fleet, zone string) {
	t.Helper()
	f, err := os.ReadFile("testdata/fleet.yaml")
	if err != nil {
		t.Fatal(err)
	}
	z, err := os.ReadFile("testdata/example.com.zone")
	if err != nil {
		t.Fatal(err)
	}
	return string(f), string(z)
}

func writeFleet(t *testing.T, fleet, zone string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"fleet.yaml": fleet, "example.com.zone": zone} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "fleet.yaml")
}

func TestTheContractLoads(t *testing.T) {
	f, zones, err := Load("testdata/fleet.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Sites) != 1 || len(f.Nodes) != 4 || len(zones) != 1 {
		t.Fatalf("%d sites, %d nodes, %d zones", len(f.Sites), len(f.Nodes), len(zones))
	}
	o := f.Sites[0].Origin
	if len(o.Servers) != 3 || o.Servers[0].URL.Host != "origin-a.example.net" || o.Servers[1].Weight != 2 ||
		!o.Servers[2].Backup {
		t.Errorf("origin servers: %+v", o.Servers)
	}
	if f.Nodes[0].Name != "hel1" || f.Nodes[3].Name != "sin1" {
		t.Errorf("nodes are not in the file's order")
	}
	if e := f.EdgeOf(f.Node("sin1")); e.Disk != 200<<30 || e.Memory != 1<<30 || e.HTTP != ":80" {
		t.Errorf("sin1's edge: %+v", e)
	}
	if e := f.EdgeOf(f.Node("hel1")); e.Disk != 50<<30 || e.Admin != "127.0.0.1:9080" {
		t.Errorf("hel1's edge: %+v", e)
	}
	c := f.GeoDNSConfig(zones)
	if len(c.Edges) != 2 || c.Edges[0].Name != "www.example.com" || len(c.Nodes) != 3 {
		t.Errorf("geodns: %+v", c)
	}
	if c.Nodes[0].Probe != "http://203.0.113.10:80/.kaiku/health" {
		t.Errorf("probe: %s", c.Nodes[0].Probe)
	}
}

// brokenContracts each replace one text of the contract's fleet file. The error must be at the line
// with the text at, and have the words in says.
var brokenContracts = []struct{ name, from, to, at, says string }{
	{"unknown key", "balance: least-requests", "ballance: least-requests", "ballance", "unknown key"},
	{"unknown key at the top", "geodns:", "geodns: {}\ngeo-dns:", "geo-dns", "unknown key"},
	{"key twice", "  disk: 50GiB", "  disk: 50GiB\n  disk: 60GiB", "disk: 60GiB",
		"stands here twice, first on line 58"},
	{"no origin", "    origin:\n      servers:\n", "    origin:\n      servers: []\n    x:\n      servers:\n",
		"servers: []", "no origin"},
	{"two sites with one host", "nodes:\n  hel1:",
		"  - name: two\n    hosts: [static.example.com]\n    origin: { servers: [http://a.example.net] }\nnodes:\n  hel1:", "hosts: [static", "already belongs to site www"},
	{"edge name with a node that isn't there", "nodes: [hel1, nyc1, sin1], answers",
		"nodes: [hel1, tokyo1, sin1], answers", "tokyo1", "no node tokyo1"},
	{"edge name with a node that is no edge", "nodes: [hel1, nyc1, sin1], answers",
		"nodes: [hel1, fra1, sin1], answers", "fra1, sin1", "not an edge"},
	{"bad CIDR", "10.0.0.0/8:", "10.0.0.0/88:", "10.0.0.0/88", "want a network"},
	{"latitude", "location: [60.17, 24.94]", "location: [160.17, 24.94]", "160.17", "latitude 160.17"},
	{"longitude of locate", "10.0.0.0/8: [60.17, 24.94]", "10.0.0.0/8: [60.17, 224.94]", "224.94",
		"longitude 224.94"},
	{"location of one number", "location: [1.35, 103.82]", "location: [1.35]", "location: [1.35]",
		"want [latitude, longitude]"},
	{"shield that isn't there", "shield: nyc1", "shield: nyc9", "shield: nyc9", "no node nyc9"},
	{"shield that is no edge", "shield: nyc1", "shield: fra1", "shield: fra1", "is not an edge"},
	{"size", "disk: 50GiB", "disk: 50Gbit", "disk: 50Gbit", "is not a size"},
	{"duration", "interval: 5s,", "interval: 5,", "interval: 5,", "is not a duration"},
	{"address", "addresses: [192.0.2.40]", "addresses: [192.0.2.400]", "192.0.2.400", "192.0.2.400"},
	{"address of two nodes", "addresses: [192.0.2.40]", "addresses: [192.0.2.30]",
		"addresses: [192.0.2.30]\n    ssh: root@192.0.2.40", "already belongs to node fra1"},
	{"role", "roles: [geodns, control]", "roles: [geodns, master]", "master", "role \"master\" is unknown"},
	{"origin with a path", "https://origin-a.example.net", "https://origin-a.example.net/www", "example.net/www",
		"more than scheme, host and port"},
	{"origin without scheme", "- https://origin-a.example.net", "- origin-a.example.net", "- origin-a",
		"want http://"},
	{"host with a port", "host: www.example.com ", "host: www.example.com:80", "www.example.com:80",
		"want a name, or client"},
	{"a field that the edge writes", "shield: nyc1", "shield: nyc1\n      pass_fields: [x-forwarded-for]",
		"x-forwarded-for", "the edge writes X-Forwarded-For itself"},
	{"a field that passes anyway", "shield: nyc1",
		"shield: nyc1\n      pass_fields: [X-HTTP-Method-Override, Accept]", "Accept", "Accept reaches the origin"},
	{"sni that is no name", "host: www.example.com ", "sni: https://x", "sni:", "not a host name"},
	{"sni without https", "nodes:\n  hel1:",
		"  - name: two\n    hosts: [two.example.com]\n    origin: { servers: [http://a.example.net], sni: a.example.net }\nnodes:\n  hel1:", "sni: a", "no server of site two is an https one"},
	{"listen", "admin: \"127.0.0.1:9080\"", "admin: \"127.0.0.1\"", "admin:", "not an address to listen on"},
	{"zone file that isn't there", "file: example.com.zone", "file: example.org.zone", "example.org.zone",
		"there is no such file as"},
	{"weight of words", "weight: 2 }", "weight: two }", "weight: two", "want a whole number"},
	{"negative weight", "location: [60.17, 24.94]", "location: [60.17, 24.94]\n    weight: -1", "weight: -1",
		"0 to take the node out, not -1"},
	{"YAML that does not parse", "roles: [edge]", "roles: [edge", "region: eu-north", "a , or ] is missing"},
	{"balance", "balance: least-requests", "balance: fastest", "balance: fastest", "is unknown"},
	{"list where a mapping is wanted",
		"  health: { path: /.kaiku/health, interval: 2s, timeout: 1s, unhealthy_after: 2, healthy_after: 2 }",
		"  health: [2s]", "health: [2s]", "want a mapping"},
	{"a network that isn't one", "  admin: \"127.0.0.1:9080\"",
		"  purge_from: [10.0.0.0/33]\n  admin: \"127.0.0.1:9080\"", "10.0.0.0/33", "want a network"},
	{"purges from everybody", "  admin: \"127.0.0.1:9080\"",
		"  purge_from: [127.0.0.1/32, \"::/0\"]\n  admin: \"127.0.0.1:9080\"", "::/0", "everybody"},
	{"purges from a host in a network", "  admin: \"127.0.0.1:9080\"",
		"  purge_from: [10.1.2.3/8]\n  admin: \"127.0.0.1:9080\"", "10.1.2.3/8", "want 10.0.0.0/8"},
	{"token without scopes", "  fleet_key:", "  tokens: [{ file: deploy.token }]\n  fleet_key:", "tokens:",
		"needs scopes"},
	{"token without file", "  fleet_key:", "  tokens: [{ scopes: [purge] }]\n  fleet_key:", "tokens:",
		"needs a file"},
	{"token with an unknown scope", "  fleet_key:",
		"  tokens: [{ file: deploy.token, scopes: [purge, write] }]\n  fleet_key:", "tokens:",
		"scope \"write\" is unknown"},
	{"token of an unknown site", "  fleet_key:",
		"  tokens: [{ file: deploy.token, scopes: [purge], sites: [shop] }]\n  fleet_key:", "tokens:",
		"no site shop"},
	{"token of no site", "  fleet_key:",
		"  tokens: [{ file: deploy.token, scopes: [purge], sites: [] }]\n  fleet_key:", "tokens:", "for no site"},
	{"two tokens in one file", "  fleet_key:",
		"  tokens: [{ file: /etc/kaiku/admin.token, scopes: [purge] }]\n  fleet_key:", "tokens:",
		"already the file of another token"},
	{"edge without location", "    location: [60.17, 24.94]", "", "hel1:", "no location"},
}

func TestCheckNamesTheLine(t *testing.T) {
	fleet, zone := fleetText(t)
	for _, c := range brokenContracts {
		t.Run(c.name, func(t *testing.T) {
			broken := strings.Replace(fleet, c.from, c.to, 1)
			if broken == fleet {
				t.Fatal("nothing was replaced")
			}
			line := 1 + strings.Count(broken[:strings.Index(broken, c.at)], "\n")
			file := writeFleet(t, broken, zone)
			_, _, err := Load(file)
			if err == nil {
				t.Fatal("nothing was found wrong")
			}
			got := err.Error()
			want := regexp.MustCompile(fmt.Sprintf(`(?m)^%s:%d:\d+: .*%s`, regexp.QuoteMeta(file), line,
				regexp.QuoteMeta(c.says)))
			if !want.MatchString(got) {
				t.Errorf("want line %d and %q, got\n%s", line, c.says, got)
			}
			source := strings.Split(broken, "\n")[line-1]
			if !strings.Contains(got, source) {
				t.Errorf("the line itself is not shown:\n%s", got)
			}
		})
	}
}

func TestCheckOfZones(t *testing.T) {
	cases := []struct {
		name, from, to string
		line           int
	}{
		{"no SOA", "@      IN SOA ns1 hostmaster 2026112301 7200 1800 1209600 300\n", "", 1},
		{"bad address", "mail   IN A   192.0.2.99", "mail   IN A   192.0.2.999", 10},
		{"unknown type", "*.dev  IN A   192.0.2.98", "*.dev  IN AA   192.0.2.98", 12},
		{"CNAME beside other data", "*.dev  IN A", "mail IN CNAME ns1\n*.dev  IN A", 12},
		{"address at an edge name", "*.dev  IN A   192.0.2.98", "www  IN A   192.0.2.98", 0},
	}
	fleet, zone := fleetText(t)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			broken := strings.Replace(zone, c.from, c.to, 1)
			if broken == zone {
				t.Fatal("nothing was replaced")
			}
			file := writeFleet(t, fleet, broken)
			_, _, err := Load(file)
			if err == nil {
				t.Fatal("nothing was found wrong")
			}
			if c.line > 0 && !strings.Contains(err.Error(), fmt.Sprintf("example.com.zone:%d:", c.line)) {
				t.Errorf("want line %d, got\n%v", c.line, err)
			}
		})
	}
}

// Zone files may also begin with a byte order mark, but must not be in UTF-16.
func TestCheckOfZonesInOtherEncodings(t *testing.T) {
	fleet, zone := fleetText(t)
	if _, _, err := Load(writeFleet(t, fleet, "\ufeff"+zone)); err != nil {
		t.Errorf("with a byte order mark: %v", err)
	}
	wide := "\xff\xfe"
	for _, c := range zone {
		wide += string([]byte{byte(c), 0})
	}
	if _, _, err := Load(writeFleet(t, fleet, wide)); err == nil ||
		!strings.Contains(err.Error(), "example.com.zone:1:1: the file is in UTF-16, and UTF-8 is wanted") {
		t.Errorf("in UTF-16: %v", err)
	}
}

func TestCheckTellsAllErrorsAtOnce(t *testing.T) {
	fleet, zone := fleetText(t)
	fleet = strings.NewReplacer("shield: nyc1", "shield: nope", "disk: 50GiB", "disk: much", "[1.35, 103.82]",
		"[1.35, 1030.82]").Replace(fleet)
	zone = strings.NewReplacer("192.0.2.99", "192.0.2", "192.0.2.98", "x").Replace(zone)
	_, _, err := Load(writeFleet(t, fleet, zone))
	if err == nil {
		t.Fatal("nothing was found wrong")
	}
	for _, want := range []string{"nope", "much", "1030.82", "example.com.zone:10:", "example.com.zone:12:"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not told:\n%v", want, err)
		}
	}
}

// A weight of 0 takes a node out of the answers; without one a node has 1.
func TestWeightZeroTakesANodeOut(t *testing.T) {
	fleet, zone := fleetText(t)
	f, zones, err := Load(writeFleet(t,
		strings.Replace(fleet, "location: [60.17, 24.94]", "location: [60.17, 24.94]\n    weight: 0", 1), zone))
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range f.GeoDNSConfig(zones).Nodes {
		if n.Out != (n.Name == "hel1") || n.Name != "hel1" && n.Weight != 1 {
			t.Errorf("node %s has the weight %d, out %v", n.Name, n.Weight, n.Out)
		}
	}
	_, _, err = Load(writeFleet(t,
		strings.NewReplacer("location: [60.17, 24.94]", "location: [60.17, 24.94]\n    weight: 0",
			"nodes: [hel1, nyc1, sin1]", "nodes: [hel1]").Replace(fleet), zone))
	if err == nil || !strings.Contains(err.Error(), "geodns.zones[0].edges.www: all of its nodes have the weight 0") {
		t.Errorf("an edge name whose nodes are all taken out: %v", err)
	}
}

// A geoip database without locations is an error that names the file.
func TestCheckRefusesADatabaseWithoutPlaces(t *testing.T) {
	fleet, zone := fleetText(t)
	asn, err := filepath.Abs("testdata/GeoLite2-ASN.mmdb")
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = Load(writeFleet(t, strings.Replace(fleet, `geoip: ""`, "geoip: "+asn, 1), zone))
	if want := "fleet.yaml:63:3: geodns.geoip: geoip database " + asn +
		": it is a GeoLite2-ASN, whose networks have neither"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v\nwant %s", err, want)
	}
}

func FuzzFleet(f *testing.F) {
	text, err := os.ReadFile("testdata/fleet.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte("sites: &a [{name: x}]\nnodes: *a\n"))
	f.Add([]byte("nodes: { a: { roles: [control] }, b: { roles: [edge, geodns] } }\n"))
	f.Fuzz(func(_ *testing.T, b []byte) {
		fleet := &Fleet{dir: "testdata"}
		fleet.file = decodeYAML("fleet.yaml", b, fleet)
		fleet.check()
		fleet.checkSandbox(fleet.warnf)
	})
}
