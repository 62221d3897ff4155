package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The records of a zone in which all is well.
const (
	zoneSOA  = "@ 60 IN SOA ns1 h 1 2 3 4 5\n"
	zoneNS   = "@ 60 IN NS ns1\n@ 60 IN NS ns2\n"
	zoneGlue = "ns1 60 IN A 203.0.113.10\nns2 60 IN A 198.51.100.20\n"
)

// mistakesOfNameServers are NS records, and the addresses of name servers. The text is the zone
// file.
var mistakesOfNameServers = []mistake{
	{"all is well", zoneSOA + zoneNS + zoneGlue, ""},
	{"name servers of others", zoneSOA + "@ 60 IN NS ns.example.net.\n", ""},
	{"a name server without an address", zoneSOA + zoneNS + strings.Split(zoneGlue, "ns2")[0],
		"3:12: warning: the zone has no address of the name server ns2.example.com, so nobody finds it: add its A or AAAA record"},
	{"a name server that is no node", zoneSOA + zoneNS + strings.Replace(zoneGlue, "203.0.113.10", "203.0.113.99", 1),
		"4:13: warning: 203.0.113.99 of the name server ns1.example.com is no node with the role geodns: does a server outside of the fleet answer there?"},
	{"an address at an edge name", zoneSOA + zoneNS + zoneGlue + "www 60 IN A 203.0.113.10\n",
		"6:1: www.example.com is an edge name of the fleet file, and has A here: delete this line, because the edges answer for the name"},
	{"an alias at an edge name", zoneSOA + zoneNS + "www 60 IN CNAME mail\n" + zoneGlue,
		"4:1: www.example.com is an edge name of the fleet file, and has CNAME here: delete this line, because the edges answer for the name"},
	{"no name server with an address", zoneSOA + zoneNS,
		"2:12: the zone has no address of the name server ns1.example.com, so nobody finds it: add its A or AAAA record\n" +
			"3:12: the zone has no address of the name server ns2.example.com, so nobody finds it: add its A or AAAA record"},
	{"name servers that are no nodes", zoneSOA + zoneNS + "ns1 60 IN A 192.0.2.1\nns2 60 IN AAAA 2001:DB8::0:1\n",
		"4:13: 192.0.2.1 of the name server ns1.example.com is no node with the role geodns, and neither is any other name server of the zone, so nobody asks the fleet: write the address of one, such as 203.0.113.10\n" +
			"5:16: 2001:db8::1 of the name server ns2.example.com is no node with the role geodns, and neither is any other name server of the zone, so nobody asks the fleet: write the address of one, such as 203.0.113.10"},
	{"an NS without the dot at its end", zoneSOA + "@ 60 IN NS ns1.example.com\n@ 60 IN NS ns2\n" + zoneGlue,
		"2:12: NS ns1.example.com has no dot at its end, so it means ns1.example.com.example.com: write ns1.example.com."},
	{"an NS elsewhere without the dot at its end", zoneSOA + zoneNS + "@ 60 IN NS ns.dns.test ; of others\n" + zoneGlue,
		"4:12: warning: the zone has no address of the name server ns.dns.test.example.com, so nobody finds it: add its A or AAAA record, or write ns.dns.test. if that is the whole name"},
	{"an NS that is an alias", zoneSOA + zoneNS + "ns1 60 IN A 203.0.113.10\nns2 60 IN CNAME ns1\n",
		"3:12: the name server ns2.example.com is an alias (CNAME or DNAME), which resolvers don't follow (RFC 2181, 10.3): name the server that it leads to, or give it A or AAAA records"},
	{"an NS that is an edge name", zoneSOA + zoneNS + "@ 60 IN NS WWW\n" + zoneGlue,
		"4:12: warning: the name server www.example.com is an edge name, which is answered with the edges near a client: the zone above needs addresses that stay: name it otherwise, with A or AAAA records of nodes with the role geodns"},
	{"an NS that is an address", zoneSOA + zoneNS + "@ 60 IN NS 203.0.113.10\n" + zoneGlue,
		"4:12: NS wants a name, and 203.0.113.10 is an address: give it to a name by an A or AAAA record, and write that name here"},
	{"an NS that is the root", zoneSOA + zoneNS + "@ 60 IN NS .\n" + zoneGlue,
		"4:12: NS names no server: write the name of one"},
}

// mistakesOfDelegations are delegations without glue.
var mistakesOfDelegations = []mistake{
	{"a delegation without glue", zoneSOA + zoneNS + zoneGlue + "shop 60 IN NS ns.shop\n",
		"6:15: the delegation of shop.example.com has no address for its name server ns.shop.example.com, which is below it, so nobody finds it: add one as glue, such as: ns.shop IN A 192.0.2.53"},
	{"a delegation with some glue",
		zoneSOA + zoneNS + zoneGlue + "shop 60 IN NS ns.shop\n\t60 IN NS\tns4.shop\nns.shop 60 IN A 192.0.2.1\nmail.shop 60 IN MX 1 nowhere\n",
		"7:11: warning: the delegation of shop.example.com has no address for its name server ns4.shop.example.com, which is below it, so nobody finds it: add one as glue, such as: ns4.shop IN A 192.0.2.53"},
	{"a delegation to others", zoneSOA + zoneNS + zoneGlue +
		"shop 60 IN NS ns.example.net.\nb 60 IN NS ns1\nc 60 IN NS d.shop\n", ""},
}

// mistakesOfServices are MX and SRV records.
var mistakesOfServices = []mistake{
	{"an MX at an alias", zoneSOA + zoneNS + zoneGlue + "@ 60 IN MX 10 mail\nmail 60 IN CNAME ns1\n",
		"6:15: warning: mail.example.com is an alias (CNAME or DNAME), which MX must not name (RFC 2181, 10.3), so some don't find it: name the host that it leads to"},
	{"an MX without an address", zoneSOA + zoneNS + zoneGlue + "@ 60 IN MX 10 mail\n",
		"6:15: MX names mail.example.com, which has no address: add its A or AAAA record"},
	{"an MX without an address beside another",
		zoneSOA + zoneNS + zoneGlue + "@ 60 IN MX 10 mail\n@ 60 IN MX 20 mx.example.net.\n",
		"6:15: warning: MX names mail.example.com, which has no address: add its A or AAAA record"},
	{"an MX at an edge name", zoneSOA + zoneNS + zoneGlue + "@ 60 IN MX 10 www\n",
		"6:15: warning: www.example.com is an edge name, and edges take no mail: name the mail server"},
	{"an MX that is an address", zoneSOA + zoneNS + zoneGlue + "@ 60 IN MX 10 192.0.2.1.\n",
		"6:15: MX wants a name, and 192.0.2.1 is an address: give it to a name by an A or AAAA record, and write that name here"},
	{"no mail", zoneSOA + zoneNS + zoneGlue + "@ 60 IN MX 0 .\n", ""},
	{"an SRV without an address", zoneSOA + zoneNS + zoneGlue + "_sip._tcp 60 IN SRV 1 2 5060 sip\n",
		"6:30: warning: SRV names sip.example.com, which has no address: add its A or AAAA record"},
}

// mistakesOfAliases are CNAME records.
var mistakesOfAliases = []mistake{
	{"an alias that leads nowhere",
		zoneSOA + zoneNS + zoneGlue + "shop 60 IN CNAME shops.test\n_acme 60 IN CNAME later\n",
		"6:18: warning: the alias shop leads nowhere, because there is no shops.test.example.com, or write shops.test. if that is the whole name"},
	{"an alias without the dot at its end", zoneSOA + zoneNS + zoneGlue + "shop 60 IN CNAME www.example.com\n",
		"6:18: CNAME www.example.com has no dot at its end, so it means www.example.com.example.com: write www.example.com."},
	{"an alias of an address", zoneSOA + zoneNS + zoneGlue + "shop 60 IN CNAME 203.0.113.10\n",
		"6:18: CNAME wants a name, and 203.0.113.10 is an address: use an A or AAAA record"},
	{"aliases that lead somewhere",
		zoneSOA + zoneNS + zoneGlue + "shop 60 IN CNAME www\nshop2 60 IN CNAME shop\n*.dev 60 IN A 192.0.2.1\nshop3 60 IN CNAME a.dev\n", ""},
}

// mistakesOfWholeZones are zones that are signed, or lack what each zone has.
var mistakesOfWholeZones = []mistake{
	{"a signed zone", zoneSOA + zoneNS + zoneGlue + "www 60 IN NSEC @ A\n@ 60 IN DNSKEY 257 3 13 AAAA\n",
		"6:11: the zone file has signatures (NSEC), which can't be of the edges' answers: give the zone without them, and have the name servers sign it by the key dnssec of the zone in the fleet file"},
	{"a delegation that is signed",
		zoneSOA + zoneNS + zoneGlue + "shop 60 IN NS ns.example.net.\nshop 60 IN DS 12345 13 2 0000000000000000000000000000000000000000000000000000000000000000\n", ""},
	{"no SOA", zoneNS + zoneGlue, "1:1: no SOA at example.com.; add: @ 3600 IN SOA ns1 hostmaster 1 14400 3600 1209600 300"},
	{"no NS", zoneSOA + zoneGlue, "1:1: no NS at example.com.; add a line for each name server, with its A or AAAA record: @ 3600 IN NS ns1"},
}

// A record of a zone file that contradicts the fleet file gets a message with its line.
func TestMistakesOfZones(t *testing.T) {
	const fleet = `sites: [{ name: www, hosts: [www.example.com], origin: { servers: ["http://origin.example.net"] } }]
nodes:
  hel1: { roles: [edge, geodns], location: [60.17, 24.94], addresses: [203.0.113.10] }
  nyc1: { roles: [edge, geodns], location: [40.71, -74.01], addresses: [198.51.100.20] }
geodns: { zones: [{ name: example.com, file: example.com.zone, edges: { www: {} } }] }
`
	for _, table := range [][]mistake{mistakesOfNameServers, mistakesOfDelegations, mistakesOfServices,
		mistakesOfAliases, mistakesOfWholeZones} {
		for _, c := range table {
			t.Run(c.name, func(t *testing.T) {
				file := writeFleet(t, fleet, c.text)
				if got := wrongIn(t, file); got != c.want {
					t.Errorf("got\n%s\nwant\n%s", got, c.want)
				}
				told, _ := audited(t, file, Audit{})
				if place := strings.Split(c.want, ": ")[0]; c.want != "" &&
					!strings.Contains(told, "example.com.zone:"+place) {
					t.Errorf("the zone file is not named:\n%s", told)
				}
			})
		}
	}
}

// An edge name is no name server where one of its edges answers no DNS, also below a wildcard.
func TestNameServerThatIsAnEdge(t *testing.T) {
	const fleet = `sites: [{ name: www, hosts: ["*.example.com"], origin: { servers: ["http://origin.example.net"] } }]
nodes:
  hel1: { roles: [edge, geodns], location: [60.17, 24.94], addresses: [203.0.113.10] }
  nyc1: { roles: [edge], location: [40.71, -74.01], addresses: [198.51.100.20] }
geodns: { zones: [{ name: example.com, file: example.com.zone, edges: { "*": {} } }] }
`
	got := wrongIn(t, writeFleet(t, fleet,
		"@ 60 IN SOA ns1 h 1 2 3 4 5\n@ 60 IN NS ns1\n@ 60 IN NS ns2\nns1 60 IN A 203.0.113.10\n"))
	if want := "3:12: the name server ns2.example.com is an edge name, which is answered with the edges near a client: the zone above needs addresses that stay: name it otherwise, with A or AAAA records of nodes with the role geodns"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// What an included file says is told with its own name and lines.
func TestMistakesOfIncludedZones(t *testing.T) {
	file := writeFleet(t, `sites: [{ name: www, hosts: [www.example.com], origin: { servers: ["http://origin.example.net"] } }]
nodes: { hel1: { roles: [edge, geodns], location: [60.17, 24.94], addresses: [203.0.113.10] } }
geodns: { zones: [{ name: example.com, file: example.com.zone, edges: { www: {} } }] }
`, "@ 60 IN SOA ns1 h 1 2 3 4 5\n@ 60 IN NS ns1\nns1 60 IN A 203.0.113.10\n$INCLUDE mail.zone\n")
	if err := os.WriteFile(filepath.Join(filepath.Dir(file), "mail.zone"), []byte("; mail\n@ 60 IN MX 10 mail\n"),
		0o644); err != nil {
		t.Fatal(err)
	}
	told, failed := audited(t, file, Audit{})
	if want := filepath.Join(filepath.Dir(file), "mail.zone") +
		":2:15: MX names mail.example.com, which has no address: add its A or AAAA record\n    2 | @ 60 IN MX 10 mail\n"; !failed || !strings.Contains(told, want) {
		t.Errorf("failed is %v\n%s\nwant\n%s", failed, told, want)
	}
}
