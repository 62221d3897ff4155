package config

import (
	"strings"
	"testing"
)

// The parts of a fleet file in which one thing is wrong.
const (
	oneSite = `sites: [{ name: www, hosts: [www.example.com], origin: { servers: ["http://origin.example.net"] } }]
`
	twoEdges = `nodes:
  hel1: { roles: [edge], location: [60.17, 24.94], addresses: [203.0.113.10] }
  nyc1: { roles: [edge], location: [40.71, -74.01], addresses: [198.51.100.20] }
`
	adminToken = "secrets: { admin_token: /etc/kaiku/admin.token }\n"
)

// withOrigin returns a fleet whose site has an origin.
func withOrigin(url string) string {
	return strings.Replace(oneSite, "http://origin.example.net", url, 1) + twoEdges
}

// withZone returns the end of a fleet file: a name server, and a zone with edge names.
func withZone(edges string) string {
	return "  ns1: { roles: [geodns] }\ngeodns: { zones: [{ name: example.com, file: example.com.zone, edges: { " +
		edges + " } }] }\n"
}

// mistakesOfNames name a role, a node, a site or a choice that does not exist, or one twice.
var mistakesOfNames = []mistake{
	{"all is fine", oneSite + twoEdges, ""},
	{"a server of HTTP/2", "edge: { http2: nginx }\n" + oneSite + twoEdges,
		`1:9: edge.http2: want own or go, not "nginx"`},
	{"no nodes", oneSite, "1:1: nodes: there are no nodes: a fleet has one at least"},
	{"a role", oneSite + "nodes: { hel1: { roles: [egde], location: [1, 2], addresses: [203.0.113.10] } }\n",
		`2:26: nodes.hel1.roles[0]: role "egde" is unknown: did you mean edge?`},
	{"a role of a control node", oneSite +
		"nodes:\n  a: { roles: [control], addresses: [203.0.113.1] }\n  b: { roles: [control], addresses: [203.0.113.2] }\n  c: { roles: [contorl], addresses: [203.0.113.3] }\nsecrets: { fleet_key: k }\n",
		`5:16: nodes.c.roles[0]: role "contorl" is unknown: did you mean control?`},
	{"a role like none beside two control nodes",
		oneSite + "nodes:\n  a: { roles: [control], addresses: [203.0.113.1] }\n  b: { roles: [control], addresses: [203.0.113.2] }\n  c: { roles: [leader], addresses: [203.0.113.3] }\nsecrets: { fleet_key: k }\n",
		`5:16: nodes.c.roles[0]: role "leader" is unknown: want edge, geodns or control`},
	{"two control nodes", oneSite +
		"nodes:\n  a: { roles: [control], addresses: [203.0.113.1] }\n  b: { roles: [control], addresses: [203.0.113.2] }\nsecrets: { fleet_key: k }\n",
		`2:1: nodes: 2 nodes have the role control: want 1, or 3 or 5 of which a majority has to be up`},
	{"the role of the only edge", strings.Replace(strings.Replace(oneSite+twoEdges, "  nyc1: { roles: [edge]",
		"  nyc1: { roles: [control]", 1), "hel1: { roles: [edge]", "hel1: { roles: [Edges]",
		1) + "geodns: { zones: [{ name: example.com, file: example.com.zone, edges: { www: {} } }] }\nsecrets: { fleet_key: k }\n",
		`3:19: nodes.hel1.roles[0]: role "Edges" is unknown: did you mean edge?`},
	{"a role twice", oneSite + "nodes: { hel1: { roles: [edge, edge], location: [1, 2], addresses: [203.0.113.10] } }\n", "2:32: nodes.hel1.roles[1]: node hel1 has the role edge twice"},
	{"a log level", oneSite + twoEdges + "log: { level: verbose }\n",
		`5:8: log.level: "verbose" is unknown: want debug, info, warn or error`},
	{"a log format", oneSite + twoEdges + "log: { format: jsn }\n",
		`5:8: log.format: "jsn" is unknown: did you mean json?`},
	{"a balance", strings.Replace(withOrigin("http://origin.example.net"), "] } }]", "], balance: roundrobin } }]", 1),
		`1:98: sites[0].origin.balance: "roundrobin" is unknown: did you mean round-robin?`},
	{"a shield", strings.Replace(withOrigin("http://origin.example.net"), "] } }]", "], shield: nyc } }]", 1),
		"1:98: sites[0].origin.shield: there is no node nyc: did you mean nyc1?"},
	{"a shield like no node", strings.Replace(withOrigin("http://origin.example.net"), "] } }]",
		"], shield: tokyo } }]", 1), "1:98: sites[0].origin.shield: there is no node tokyo: want hel1 or nyc1"},
	{"a site of a token", withOrigin("http://origin.example.net") +
		"secrets: { tokens: [{ file: t, scopes: [purges], sites: [ww] }] }\n",
		`5:41: secrets.tokens[0].scopes[0]: scope "purges" is unknown: did you mean purge?` +
			"\n5:58: secrets.tokens[0].sites[0]: there is no site ww: did you mean www?"},
	{"a host twice", strings.Replace(oneSite, "[www.example.com]", "[www.example.com, WWW.example.com.]", 1) + twoEdges,
		"1:47: sites[0].hosts[1]: host WWW.example.com. already belongs to site www"},
}

// mistakesOfOrigins are origins that lead back to an edge.
var mistakesOfOrigins = []mistake{
	{"an origin that is a host of its site", withOrigin("http://www.example.com"),
		"1:68: sites[0].origin.servers[0]: www.example.com is a host of this site, so a miss would come back to an edge: give the origin a name or an address of its own"},
	{"an origin that is a host of its site, on a port that edges don't have", withOrigin("http://www.example.com:8000"),
		""},
	{"an origin that is a host of its site, with a wildcard",
		strings.Replace(withOrigin("http://Origin.example.com."), "[www.example.com]", "[\"*.example.com\"]", 1),
		"1:68: sites[0].origin.servers[0]: origin.example.com is a host of this site, so a miss would come back to an edge: give the origin a name or an address of its own"},
	{"an origin that is a host of another site", strings.Replace(withOrigin("http://WWW.example.org"), "sites: [",
		"sites: [{ name: org, hosts: [www.example.org], origin: { servers: [\"http://192.0.2.9\"] } }, ", 1),
		"1:152: warning: sites[1].origin.servers[0]: www.example.org is a host of site org: where its name leads to the edges, a miss goes to an edge again"},
	{"an origin that is an edge name", withOrigin("http://www.example.com:8000") + withZone("www: {}"),
		"1:68: warning: sites[0].origin.servers[0]: the name servers answer www.example.com with the edges, so each asks an edge on port 8000: give the origin a name or an address of its own unless one is there"},
	{"an origin that is an edge name, on a port of the edges",
		withOrigin("http://cdn.example.com") + withZone("www: {}, cdn: {}"),
		"1:68: sites[0].origin.servers[0]: the name servers answer cdn.example.com with the edges, so a miss would come back to one: give the origin a name or an address of its own"},
	{"an origin that is an edge", withOrigin("http://203.0.113.10"),
		"1:68: sites[0].origin.servers[0]: this is the http listener of edge hel1, so a miss would come back to it: give the origin's own address and port"},
	{"an origin that is an edge's admin listener", withOrigin("http://127.0.0.1:9080"),
		"1:68: sites[0].origin.servers[0]: this is the admin listener of edge hel1, so a miss would come back to it: give the origin's own address and port"},
	{"an origin beside each edge", withOrigin("http://localhost:8000"),
		"1:68: warning: sites[0].origin.servers[0]: 127.0.0.1 means the edge's own machine: does this server run on every edge?"},
	{"an origin beside each edge, of IPv6", withOrigin("http://[::1]:8000"),
		"1:68: warning: sites[0].origin.servers[0]: ::1 means the edge's own machine: does this server run on every edge?"},
	{"an origin beside the only edge",
		withOrigin("http://localhost:8000")[:strings.Index(withOrigin("http://localhost:8000"), "  nyc1")], ""},
	{"an origin beside edges on one machine", strings.NewReplacer("203.0.113.10", "127.0.0.1", "198.51.100.20",
		"127.0.0.2").Replace(withOrigin("http://localhost:8000")), ""},
}

// mistakesOfAddresses are addresses of nodes that clients do not reach.
var mistakesOfAddresses = []mistake{
	{"an edge on the address of any machine", strings.Replace(oneSite+twoEdges, "203.0.113.10", "127.0.0.1", 1),
		"3:64: warning: nodes.hel1.addresses[0]: 127.0.0.1 is each machine itself, so nobody else reaches node hel1 there: give the address that others reach it at"},
	{"an edge in a private network", strings.Replace(oneSite+twoEdges, "203.0.113.10", "192.168.1.10", 1),
		"3:64: warning: nodes.hel1.addresses[0]: 192.168.1.10 is in a private network, so clients don't reach node hel1 there: give its public address"},
	{"an edge behind a provider's NAT", strings.Replace(oneSite+twoEdges, "203.0.113.10", "100.64.0.1", 1),
		"3:64: warning: nodes.hel1.addresses[0]: 100.64.0.1 is in a private network, so clients don't reach node hel1 there: give its public address"},
	{"a control node in a private network",
		oneSite + twoEdges + "  c1: { roles: [control], addresses: [10.0.0.9] }\nsecrets: { fleet_key: k }\n", ""},
	{"a lab", strings.NewReplacer("203.0.113.10", "10.77.0.11", "198.51.100.20",
		"192.168.1.10").Replace(oneSite + twoEdges), ""},
	{"an origin on the machine of an edge that has another port", withOrigin("http://203.0.113.10:8000"), ""},
	{"an origin on the port of an edge by the name of its machine", withOrigin("http://localhost"),
		"1:68: sites[0].origin.servers[0]: this is the http listener of edge hel1, so a miss would come back to it: give the origin's own address and port"},
}

// mistakesOfHosts are hosts that have no name in a zone.
var mistakesOfHosts = []mistake{
	{"a host without a name", withOrigin("http://origin.example.net") + withZone("\"@\": {}"),
		"1:30: warning: sites[0].hosts[0]: the zone has no name www.example.com, so nobody finds it: add it to geodns.zones, below edges\n" +
			`6:73: warning: geodns.zones[0].edges.@: no site has the host example.com: its clients get 421 from the edges`},
	{"a host that the zone file has", strings.Replace(withOrigin("http://origin.example.net"), "www.example.com",
		"mail.example.com", 1) + withZone(""), ""},
	{"a host below a wildcard", withOrigin("http://origin.example.net") + withZone("\"*\": {}"), ""},
	{"a host elsewhere", strings.Replace(withOrigin("http://origin.example.net"), "www.example.com", "www.shop.test",
		1) + withZone(""),
		"1:30: warning: sites[0].hosts[0]: www.shop.test is in none of the zones: unless its DNS is elsewhere, and leads to the edges from there, nobody finds it"},
	{"a host elsewhere by mistake", strings.Replace(withOrigin("http://origin.example.net"), "www.example.com",
		"www.exampel.com", 1) + withZone(""),
		"1:30: warning: sites[0].hosts[0]: www.exampel.com is in none of the zones: unless its DNS is elsewhere, and leads to the edges from there, nobody finds it; did you mean www.example.com?"},
	{"a wildcard without a name", strings.Replace(withOrigin("http://origin.example.net"), "[www.example.com]",
		"[\"*.example.com\"]", 1) + withZone("www: {}"),
		"1:30: warning: sites[0].hosts[0]: the zone has no name *.example.com, so nobody finds it: add it to geodns.zones, below edges"},
}

// mistakesOfOriginNames are origins that have no name in a zone.
var mistakesOfOriginNames = []mistake{
	{"an origin without a name", withOrigin("http://origin.example.com") + withZone("www: {}"),
		"1:68: warning: sites[0].origin.servers[0]: the zone has no name origin.example.com, so that edges don't find the server: put its address into the zone file"},
	{"an origin that the zone file has", withOrigin("http://mail.example.com") + withZone("www: {}"), ""},
}

// mistakesOfAdmin open the admin listener to other machines without a token.
var mistakesOfAdmin = []mistake{
	{"an admin listener for everybody", oneSite + twoEdges + "edge: { admin: \"0.0.0.0:9080\" }\n",
		"5:9: edge.admin: other machines reach 0.0.0.0:9080, and there is no token: name a file in secrets.admin_token, or listen on 127.0.0.1"},
	{"an admin listener for everybody, with a token", oneSite + twoEdges + "edge: { admin: \":9080\" }\n" + adminToken,
		""},
	{"an admin listener for everybody, with a token for some things",
		oneSite + twoEdges + "edge: { admin: \":9080\" }\nsecrets: { tokens: [{ file: t, scopes: [purge] }] }\n", ""},
	{"an admin listener of a name server",
		oneSite + twoEdges + "  fra1: { roles: [control], addresses: [203.0.113.30], admin: \":9080\" }\nsecrets: { fleet_key: k }\n", "5:56: nodes.fra1.admin: other machines reach :9080, and there is no token: name a file in secrets.admin_token, or listen on 127.0.0.1"},
	{"an admin listener on localhost", oneSite + twoEdges + "edge: { admin: \"localhost:9080\" }\n", ""},
}

// mistakesOfPorts have two listeners on one port.
var mistakesOfPorts = []mistake{
	{"two listeners on one port", oneSite + twoEdges + "edge: { http: \":9080\" }\n",
		"5:9: edge.http: node hel1 listens on 127.0.0.1:9080 for admin already: http needs a port of its own"},
	{"two listeners on one port, all given once",
		oneSite + twoEdges + "edge: { http: \":8080\", admin: \"127.0.0.1:8080\" }\n",
		"5:24: edge.admin: node hel1 listens on :8080 for http already: admin needs a port of its own"},
	{"two listeners on one port of a node",
		strings.Replace(oneSite+twoEdges, "[203.0.113.10] }", "[203.0.113.10], edge: { admin: \"[::1]:http\" } }", 1),
		"3:87: nodes.hel1.edge.admin: node hel1 listens on :80 for http already: admin needs a port of its own"},
	{"two listeners on one port of two addresses", oneSite + twoEdges + "edge: { http: \"203.0.113.10:9080\" }\n", ""},
	{"HTTP where HTTPS is", oneSite + twoEdges +
		"tls: { certificates: [{ cert: c, key: k }] }\nedge: { http: \":443\" }\n",
		"6:9: edge.http: node hel1 listens on :443 for https already: http needs a port of its own"},
	{"DNS and the control plane", oneSite +
		"nodes: { fra1: { roles: [geodns, control], addresses: [192.0.2.30], control: { listen: \":53\" } } }\nsecrets: { fleet_key: k }\ngeodns: { zones: [{ name: example.com, file: example.com.zone }] }\n",
		"2:80: nodes.fra1.control.listen: node fra1 listens on :53 for geodns already: control needs a port of its own"},
	{"any port", oneSite + twoEdges + "edge: { http: \":0\", admin: \"127.0.0.1:0\" }\n", ""},
}

// mistakesOfFleets lack a part that another part needs, or have a node in a wrong place.
var mistakesOfFleets = []mistake{
	{"no sites", twoEdges, "1:1: warning: sites: there are no sites: edges answer 421 to everything"},
	{"a control node without addresses", oneSite + "nodes: { c1: { roles: [control] } }\nsecrets: { fleet_key: k }\n",
		"2:10: nodes.c1.addresses: control node c1 has no addresses"},
	{"a control node without a key", oneSite + "nodes: { c1: { roles: [control], addresses: [203.0.113.30] } }\n",
		"2:16: nodes.c1.roles: the role control needs secrets.fleet_key: a file with the output of `openssl rand -base64 32`, the same on all nodes"},
	{"a shield without a key", strings.Replace(withOrigin("http://origin.example.net"), "] } }]",
		"], shield: nyc1 } }]", 1),
		"1:1: warning: secrets.fleet_key: edge hel1 would ask others, by its region or a shield, but does not without a fleet key: name its file\n" +
			"1:1: warning: secrets.fleet_key: edge nyc1 would ask others, by its region or a shield, but does not without a fleet key: name its file"},
	{"a name server without zones", oneSite + "nodes: { ns1: { roles: [geodns] } }\n",
		"2:17: nodes.ns1.roles: the role geodns has nothing to answer: there is no zone in geodns.zones"},
	{"a zone file that is not there",
		oneSite + twoEdges + "geodns: { zones: [{ name: example.com, file: exampel.com.zone }] }\n",
		"5:40: geodns.zones[0].file: there is no such file as DIR/exampel.com.zone: did you mean example.com.zone?"},
	{"a zone twice", oneSite + twoEdges +
		"  ns1: { roles: [geodns] }\ngeodns: { zones: [{ name: example.com, file: example.com.zone }, { name: EXAMPLE.com., file: example.com.zone }] }\n",
		"6:68: geodns.zones[1].name: zone EXAMPLE.com. is listed twice"},
	{"a network with bits of a host", oneSite + twoEdges + "geodns: { locate: { 10.0.0.1/8: [1, 2] } }\n",
		"5:21: geodns.locate.10.0.0.1/8: 10.0.0.1/8 has bits of a host: want 10.0.0.0/8"},
	{"a zone that nobody answers",
		oneSite + twoEdges + "geodns: { zones: [{ name: example.com, file: example.com.zone, edges: { www: {} } }] }\n",
		"5:11: warning: geodns.zones: no node has the role geodns, so nobody answers for the zones"},
	{"some edges without IPv6", strings.Replace(oneSite+twoEdges, "[203.0.113.10]", "[203.0.113.10, \"2001:db8::1\"]",
		1),
		"4:53: warning: nodes.nyc1.addresses: 1 edge of 2 without an IPv6 address: nyc1; clients near them get no AAAA record where the others are much farther, and use IPv4"},
	{"all edges with IPv6", strings.NewReplacer("[203.0.113.10]", "[203.0.113.10, \"2001:db8::1\"]",
		"[198.51.100.20]", "[198.51.100.20, \"2001:db8::2\"]").Replace(oneSite + twoEdges), ""},
	{"an edge without IPv4", strings.NewReplacer("[203.0.113.10]", "[203.0.113.10, \"2001:db8::1\"]",
		"[198.51.100.20]", "[\"2001:db8::2\"]").Replace(oneSite + twoEdges),
		"4:53: warning: nodes.nyc1.addresses: 1 edge of 2 without an IPv4 address: nyc1; clients that have IPv4 alone don't reach them"},
	{"an SSH address", strings.Replace(oneSite+twoEdges, "[203.0.113.10] }",
		"[203.0.113.10], ssh: \"ops@hel1 -p 22\" }",
		1), `3:79: nodes.hel1.ssh: "ops@hel1 -p 22" is not an SSH address: want [user@]host[:port]`},
	{"a port of SSH", strings.Replace(oneSite+twoEdges, "[203.0.113.10] }", "[203.0.113.10], ssh: \"ops@hel1:ssh\" }",
		1),
		`3:79: nodes.hel1.ssh: "ops@hel1:ssh" is not an SSH address: its port is not 1 to 65535`},
	{"latitude and longitude swapped",
		oneSite + "nodes: { hel1: { roles: [edge], location: [24.94, 60.17], addresses: [193.166.3.2] } }\n",
		"2:33: warning: nodes.hel1.location: 193.166.3.2 is in FI, and 24.94, 60.17 is 4830 km away from there; did you mean [60.17, 24.94]?"},
	{"a sign lost", oneSite + "nodes: { nyc1: { roles: [edge], location: [40.71, 74.01], addresses: [128.112.136.1] } }\n",
		"2:33: warning: nodes.nyc1.location: 128.112.136.1 is in US, and 40.71, 74.01 is 10999 km away from there; did you mean [40.71, -74.01]?"},
	{"a node in the sea", oneSite +
		"nodes: { hel1: { roles: [edge], location: [60.17, -24.94], addresses: [193.166.3.2] } }\n",
		"2:33: warning: nodes.hel1.location: 193.166.3.2 is in FI, and 60.17, -24.94 is 2650 km away from there; did you mean [60.17, 24.94]?"},
	{"a node far away", oneSite + "nodes: { syd1: { roles: [edge], location: [-33.87, 151.21], addresses: [193.166.3.2] } }\n",
		"2:33: warning: nodes.syd1.location: 193.166.3.2 is in FI, and -33.87, 151.21 is 15177 km away from there"},
	{"a node in its country", oneSite +
		"nodes: { nyc1: { roles: [edge], location: [40.71, -74.01], addresses: [128.112.136.1] } }\n", ""},
}

// A file whose values have the right form gets one message for each that can't work, and a warning
// for each that is probably a mistake.
func TestMistakesOfMeaning(t *testing.T) {
	_, zone := fleetText(t)
	zone = strings.ReplaceAll(zone, "; www", ";")
	for _, table := range [][]mistake{mistakesOfNames, mistakesOfOrigins, mistakesOfAddresses, mistakesOfHosts,
		mistakesOfOriginNames, mistakesOfAdmin, mistakesOfPorts, mistakesOfFleets} {
		for _, c := range table {
			t.Run(c.name, func(t *testing.T) {
				if got := wrongIn(t, writeFleet(t, c.text, zone)); got != c.want {
					t.Errorf("got\n%s\nwant\n%s", got, c.want)
				}
			})
		}
	}
}
