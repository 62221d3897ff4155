package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// wrong loads a fleet file and returns all that is told of it, a line each, without the file's name
// and its lines.
func wrong(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "fleet.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return wrongIn(t, file)
}

func wrongIn(t *testing.T, file string) string {
	t.Helper()
	f, zones, err := Load(file)
	var told []string
	if err == nil {
		f.auditZones(zones)
		err = f.file.failure()
	}
	if err == nil {
		for _, w := range f.file.warns {
			told = append(told, fmt.Sprintf("%d:%d: warning: %s", w.line, w.col, w.msg))
		}
	}
	var each func(error)
	each = func(err error) {
		var f *fileError
		if joined, ok := err.(interface{ Unwrap() []error }); ok {
			for _, e := range joined.Unwrap() {
				each(e)
			}
		} else if errors.As(err, &f) {
			told = append(told, strings.ReplaceAll(fmt.Sprintf("%d:%d: %s", f.line, f.col, f.msg), filepath.Dir(file),
				"DIR"))
		} else if err != nil {
			told = append(told, err.Error())
		}
	}
	each(err)
	return strings.Join(told, "\n")
}

// What does not decode: each mistake has one message, which names what is wanted, and nothing is
// told of what follows from it.
func TestMistakesOfForm(t *testing.T) {
	const key = "secrets: { fleet_key: k }\n"
	const rest = "\nnodes: { c1: { roles: [control], addresses: [192.0.2.1] } }\n" + key // so that the fleet has one
	for _, c := range []struct{ name, text, want string }{
		{"nothing", "", "1:1: the file is empty: kaiku init writes a first one"},
		{"comments alone", "# a fleet\n", "1:1: the file is empty: kaiku init writes a first one"},
		{"a byte order mark is fine", "\xef\xbb\xbfsites: []" + rest, ""},
		{"UTF-16", "\xff\xfes\x00i\x00t\x00e\x00s\x00",
			"1:1: the file is in UTF-16, and UTF-8 is wanted: save it as UTF-8, or run iconv -f UTF-16 -t UTF-8"},
		{"UTF-16, big end first", "\xfe\xff\x00s\x00i",
			"1:1: the file is in UTF-16, and UTF-8 is wanted: save it as UTF-8, or run iconv -f UTF-16 -t UTF-8"},
		{"UTF-16 without a mark", "s\x00i\x00t\x00e\x00",
			"1:1: the file is in UTF-16, and UTF-8 is wanted: save it as UTF-8, or run iconv -f UTF-16 -t UTF-8"},
		{"Latin 1", "sites:\n - name: caf\xe9\n", "2:13: the byte 0xe9 is not UTF-8: save the file as UTF-8"},
		{"a control character", "sites: [] # \x07\n", "1:13: the control character U+0007 can't stand in a fleet file"},
		{"a list", "- sites: []\n", "1:1: want a mapping, as { key: value }"},
		{"a word", "hello\n", `1:1: want a mapping, as { key: value }, not "hello"`},
		{"two documents", "sites: []\n---\nsites: []\n",
			"2:1: a second document begins here, and a fleet file has one: remove the line ---, or what follows"},
		{"one document with its marks is fine", "---\nsites: []" + rest + "...\n", ""},
		{"lines of Windows are fine", "sites: []\r\nnodes: { c1: { roles: [control], addresses: [192.0.2.1] } }\r\n" +
			key, ""},

		{"a tab", "sites:\n\t- name: www\n", "2:1: this line is indented with a tab: YAML wants spaces"},
		{"a tab after a line of spaces", "sites:\n  - name: www\n\thosts: [a.example]\n",
			"3:1: this line is indented with a tab: YAML wants spaces"},
		{"a wildcard without quotes", "sites:\n  - { name: www, origin: { servers: [\"http://a.example\"] }, hosts: [*.example.com] }" + rest,
			`2:69: sites[0].hosts[0]: write "*.example.com" in quotes: without them * begins a reference, and nothing here is called &.example.com`},
		{"a wildcard on its line", "sites:\n  - name: www\n    origin: { servers: [\"http://a.example\"] }\n    hosts:\n      - *.example.com" + rest,
			`5:9: sites[0].hosts[0]: write "*.example.com" in quotes: without them * begins a reference, and nothing here is called &.example.com`},
		{"a wildcard as a key", "geodns:\n  zones:\n    - name: example.com\n      edges:\n        *: {}\n",
			`5:9: '*' can't begin a text in YAML: write "*" in quotes`},
		{"@ as a key", "geodns:\n  zones:\n    - name: example.com\n      edges:\n        @: {}\n",
			`5:9: '@' can't begin a text in YAML: write "@" in quotes`},
		{"a backtick", "sites:\n  - name: `www`\n", "2:11: '`' can't begin a text in YAML: write \"`www`\" in quotes"},
		{"an alias of nothing", "sites: *all" + rest,
			`1:8: sites: write "*all" in quotes: without them * begins a reference, and nothing here is called &all`},
		{"a tag", "edge: { http: !!str 80 }" + rest,
			"1:15: edge.http: the tag !!str says nothing here: leave it out, or write the text in quotes"},
		{"a quote without end", "sites:\n  - name: \"www\n", `2:11: this text begins with " and has no " at its end`},
		{"a single quote without end", "sites:\n  - name: 'www\n",
			"2:11: this text begins with ' and has no ' at its end"},
		{"a brace without end", "edge: { http: \":80\"\n", "1:7: this { has no } that closes it"},
		{"a bracket without end", "sites:\n  - hosts: [a.example\n", "2:12: this [ has no ] that closes it"},
		{"a bracket that closes nothing", "sites: a]\nedge: ]\n", "2:7: this ] closes no ["},
		{"no comma", "edge: { http: \":80\" https: \":443\" }\n", "1:21: a , or } is missing before this"},
		{"an escape", "edge: { data: \"C:\\kaiku\" }\n",
			`1:19: in "…" a \ begins an escape such as \n: write \\, or use '…'`},
		{"a list beside its key", "sites: - name: www\n", "1:8: a list begins on a line of its own, below its key"},
		{"indented as nothing above", "nodes:\n    a: {}\n  b: {}\n",
			"3:3: this does not fit what stands above: is it indented as its neighbours are?"},
		{"no space after a colon", "edge:\n  http:\":80\"" + rest,
			`2:3: edge: want a mapping, as { key: value }, not "http:\":80\""`},
		{"no space after a dash", "sites:\n  -name: www" + rest,
			`2:3: sites: "-name" has no space after the -: an entry of a list begins with one`},
		{"an address of IPv6 without quotes", "edge: { purge_from: [::1/128] }\n",
			`1:22: this has no key: want KEY: VALUE, and quotes around a text that begins with a colon, as "::1"`},
		{"a key twice", "edge: { http: \":80\" }\nedge: {}" + rest,
			"2:1: edge: this key stands here twice, first on line 1"},
		{"a no-break space", "edge:\n  \u00a0http: \":80\"" + rest,
			`2:3: edge: the key "\u00a0http" has the space U+00A0: use an ordinary one`},
		{"an invisible character", "edge: { data: \"/srv\u200b\" }" + rest,
			`1:15: edge.data: "/srv\u200b" has the invisible character U+200B: remove it`},
		{"typographic quotes", "edge: { data: “/srv” }" + rest,
			`1:15: edge.data: "“/srv”" has typographic quotes: write " or '`},
		{"a text of two lines", "edge:\n  data: |\n    /srv\n    ExecStart=/bin/sh" + rest,
			`2:9: edge.data: "/srv\nExecStart=/bin/sh\n" is more than one line: want a single one`},
		{"a line break that is written", "edge: { access_log: { file: \"/var/log/a\\nb\" } }" + rest,
			`1:29: edge.access_log.file: "/var/log/a\nb" is more than one line: want a single one`},

		{"a key at the top", "site: []" + rest, "1:1: site: unknown key; did you mean sites?"},
		{"a key, and what is below it",
			"sites:\n  - name: www\n    hosts: [a.example]\n    orgin: { server: [\"http://a.example/x\"] }" + rest,
			"4:5: sites[0].orgin: unknown key; did you mean origin?\n4:14: sites[0].origin.server: unknown key; did you mean servers?\n" +
				`4:23: sites[0].origin.servers[0]: "http://a.example/x" has more than scheme, host and port: requests keep the path that the client asked for`},
		{"a key of Go's or JavaScript's taste", "edge: { accessLog: { file: \"-\" } }" + rest,
			"1:9: edge.accessLog: unknown key; did you mean access_log?"},
		{"a key in a wrong place", "sites:\n  - { name: www, hosts: [a.example], origin: { servers: [\"http://b.example\"] }, shield: c1 }" + rest,
			"2:81: sites[0].shield: unknown key; it belongs below origin"},
		{"a key like none", "edge: { colour: red }" + rest,
			"1:9: edge.colour: unknown key; want http, https, admin, peer, data, disk, memory, max_disconnected, capacity, purge_from, " +
				"max_connections, max_connections_per_client, drain_timeout, access_log, http2 or hit_lane"},

		{"a size without unit", "edge: { disk: 500 }" + rest,
			`1:15: edge.disk: "500" is not a size: it lacks a unit, as in 500M or 500G`},
		{"a size", "edge: { disk: much }" + rest,
			`1:15: edge.disk: "much" is not a size: want a whole number and K, M, G or T, as 512M or 10G; M, MB and MiB are all 1024 × 1024 bytes`},
		{"a part of a size", "edge: { disk: 1.5G }" + rest,
			`1:15: edge.disk: "1.5G" is not a size: want a whole number and K, M, G or T, as 512M or 10G; M, MB and MiB are all 1024 × 1024 bytes`},
		{"too large a size", "edge: { disk: 99999999999T }" + rest,
			`1:15: edge.disk: "99999999999T" is more than can be counted`},
		{"a duration without unit", "edge: { drain_timeout: 30 }" + rest,
			`1:24: edge.drain_timeout: "30" is not a duration: it lacks a unit, as in 30s or 30m`},
		{"a duration", "edge: { drain_timeout: 1 month }" + rest,
			`1:24: edge.drain_timeout: "1 month" is not a duration: want a form like 500ms, 30s, 1h30m, 1d or 2w`},
		{"a negative duration", "edge: { drain_timeout: -5s }" + rest, `1:24: edge.drain_timeout: "-5s" is negative`},
		{"a long duration", "edge: { drain_timeout: 99999w }" + rest,
			`1:24: edge.drain_timeout: "99999w" is not a duration, or longer than 290 years`},
		{"an address", "nodes: { c1: { roles: [control], addresses: [192.0.2.400] } }\n" + key,
			`1:46: nodes.c1.addresses[0]: want an IP address, as 203.0.113.10 or 2001:db8::10, not "192.0.2.400"`},
		{"an address with a port", "nodes: { c1: { roles: [control], addresses: [\"192.0.2.4:80\"] } }\n" + key,
			`1:46: nodes.c1.addresses[0]: want an IP address, as 203.0.113.10 or 2001:db8::10, not "192.0.2.4:80"`},
		{"a network", "edge: { purge_from: [10.0.0.0/99] }" + rest,
			`1:22: edge.purge_from[0]: want a network, as 10.0.0.0/8 or 2001:db8::/32, not "10.0.0.0/99"`},
		{"a network as a key", "geodns: { locate: { 10.0.0.0: [1, 2] } }" + rest,
			`1:21: geodns.locate: want a network, as 10.0.0.0/8 or 2001:db8::/32, not "10.0.0.0"`},
		{"a number", "edge: { max_connections: many }" + rest,
			`1:26: edge.max_connections: want a whole number, not "many"`},
		{"too large a number", "edge: { max_connections: 99999999999 }" + rest,
			`1:26: edge.max_connections: want a whole number, not "99999999999"`},
		{"a part", "edge: { access_log: { file: \"-\", sample: half } }" + rest,
			`1:42: edge.access_log.sample: want a number, not "half"`},
		{"a private key", "tls: { certificates: [{ cert: c, key: \"-----BEGIN PRIVATE KEY-----\\nhush\" }] }" + rest,
			"1:34: tls.certificates[0].key: a key or a certificate stands here, and the name of a file is wanted: write it to one, and name that"},
		{"a private key on lines of its own",
			"tls:\n  certificates:\n    - cert: c\n      key: |\n        -----BEGIN PRIVATE KEY-----\n        hush" +
				rest,
			"4:7: tls.certificates[0].key: a key or a certificate stands here, and the name of a file is wanted: write it to one, and name that"},
		{"yes", "edge: { hit_lane: yes }" + rest, `1:19: edge.hit_lane: want true or false, not "yes"`},
		{"a location without brackets",
			"nodes: { c1: { roles: [control], addresses: [192.0.2.1], location: 60.17 } }\n" + key,
			`1:68: nodes.c1.location: want [latitude, longitude], as [60.17, 24.94], not "60.17"`},
		{"a text for a list", "nodes: { c1: { roles: control, addresses: [192.0.2.1] } }\n" + key,
			`1:23: nodes.c1.roles: want a list, as [a, b], not "control"`},
		{"a URL that is none", "sites: [{ name: www, hosts: [a.example], origin: { servers: [\"http://[::1\"] } }]" +
			rest, `1:62: sites[0].origin.servers[0]: "http://[::1" is not an origin: want http://host[:port] or https://host[:port]`},
		{"an address that is none in a URL",
			"sites: [{ name: www, hosts: [a.example], origin: { servers: [\"http://192.0.2.400\"] } }]" + rest,
			`1:62: sites[0].origin.servers[0]: "http://192.0.2.400" is not an origin: want http://host[:port] or https://host[:port]`},
		{"a port of a URL", "sites: [{ name: www, hosts: [a.example], origin: { servers: [\"http://b.example:99999\"] } }]" + rest,
			`1:62: sites[0].origin.servers[0]: "http://b.example:99999": the port of an origin is 1 to 65535`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := wrong(t, c.text); got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}

// What decodes and can't work, or is hardly meant. $ is the fleet that each is a part of.
func TestMistakesOfMeaning(t *testing.T) {
	const site = `sites: [{ name: www, hosts: [www.example.com], origin: { servers: ["http://origin.example.net"] } }]
`
	const edges = `nodes:
  hel1: { roles: [edge], location: [60.17, 24.94], addresses: [203.0.113.10] }
  nyc1: { roles: [edge], location: [40.71, -74.01], addresses: [198.51.100.20] }
`
	origin := func(url string) string { return strings.Replace(site, "http://origin.example.net", url, 1) + edges }
	zone := func(edges string) string {
		return "  ns1: { roles: [geodns] }\ngeodns: { zones: [{ name: example.com, file: example.com.zone, edges: { " +
			edges + " } }] }\n"
	}
	const token = "secrets: { admin_token: /etc/kaiku/admin.token }\n"
	for _, c := range []struct{ name, text, want string }{
		{"all is fine", site + edges, ""},
		{"a server of HTTP/2", "edge: { http2: nginx }\n" + site + edges,
			`1:9: edge.http2: want go or own, not "nginx"`},
		{"no nodes", site, "1:1: nodes: there are no nodes: a fleet has one at least"},
		{"a role", site + "nodes: { hel1: { roles: [egde], location: [1, 2], addresses: [203.0.113.10] } }\n",
			`2:26: nodes.hel1.roles[0]: role "egde" is unknown: did you mean edge?`},
		{"a role of a control node", site +
			"nodes:\n  a: { roles: [control], addresses: [203.0.113.1] }\n  b: { roles: [control], addresses: [203.0.113.2] }\n  c: { roles: [contorl], addresses: [203.0.113.3] }\nsecrets: { fleet_key: k }\n",
			`5:16: nodes.c.roles[0]: role "contorl" is unknown: did you mean control?`},
		{"a role like none beside two control nodes",
			site + "nodes:\n  a: { roles: [control], addresses: [203.0.113.1] }\n  b: { roles: [control], addresses: [203.0.113.2] }\n  c: { roles: [leader], addresses: [203.0.113.3] }\nsecrets: { fleet_key: k }\n",
			`5:16: nodes.c.roles[0]: role "leader" is unknown: want edge, geodns or control`},
		{"two control nodes", site + "nodes:\n  a: { roles: [control], addresses: [203.0.113.1] }\n  b: { roles: [control], addresses: [203.0.113.2] }\nsecrets: { fleet_key: k }\n",
			`2:1: nodes: 2 nodes have the role control: want 1, or 3 or 5 of which a majority has to be up`},
		{"the role of the only edge", strings.Replace(strings.Replace(site+edges, "  nyc1: { roles: [edge]",
			"  nyc1: { roles: [control]", 1), "hel1: { roles: [edge]", "hel1: { roles: [Edges]",
			1) + "geodns: { zones: [{ name: example.com, file: example.com.zone, edges: { www: {} } }] }\nsecrets: { fleet_key: k }\n",
			`3:19: nodes.hel1.roles[0]: role "Edges" is unknown: did you mean edge?`},
		{"a role twice", site + "nodes: { hel1: { roles: [edge, edge], location: [1, 2], addresses: [203.0.113.10] } }\n", "2:32: nodes.hel1.roles[1]: node hel1 has the role edge twice"},
		{"a log level", site + edges + "log: { level: verbose }\n",
			`5:8: log.level: "verbose" is unknown: want debug, info, warn or error`},
		{"a log format", site + edges + "log: { format: jsn }\n",
			`5:8: log.format: "jsn" is unknown: did you mean json?`},
		{"a balance", strings.Replace(origin("http://origin.example.net"), "] } }]", "], balance: roundrobin } }]", 1),
			`1:98: sites[0].origin.balance: "roundrobin" is unknown: did you mean round-robin?`},
		{"a shield", strings.Replace(origin("http://origin.example.net"), "] } }]", "], shield: nyc } }]", 1),
			"1:98: sites[0].origin.shield: there is no node nyc: did you mean nyc1?"},
		{"a shield like no node", strings.Replace(origin("http://origin.example.net"), "] } }]",
			"], shield: tokyo } }]", 1), "1:98: sites[0].origin.shield: there is no node tokyo: want hel1 or nyc1"},
		{"a site of a token", origin("http://origin.example.net") +
			"secrets: { tokens: [{ file: t, scopes: [purges], sites: [ww] }] }\n",
			`5:41: secrets.tokens[0].scopes[0]: scope "purges" is unknown: did you mean purge?` +
				"\n5:58: secrets.tokens[0].sites[0]: there is no site ww: did you mean www?"},
		{"a host twice", strings.Replace(site, "[www.example.com]", "[www.example.com, WWW.example.com.]", 1) + edges,
			"1:47: sites[0].hosts[1]: host WWW.example.com. belongs to site www already"},

		{"an origin that is a host of its site", origin("http://www.example.com"),
			"1:68: sites[0].origin.servers[0]: www.example.com is a host of this site, so that a miss would come back to an edge: give the origin a name or an address of its own"},
		{"an origin that is a host of its site, on a port that edges don't have", origin("http://www.example.com:8000"),
			""},
		{"an origin that is a host of its site, with a wildcard",
			strings.Replace(origin("http://Origin.example.com."), "[www.example.com]", "[\"*.example.com\"]", 1),
			"1:68: sites[0].origin.servers[0]: origin.example.com is a host of this site, so that a miss would come back to an edge: give the origin a name or an address of its own"},
		{"an origin that is a host of another site", strings.Replace(origin("http://WWW.example.org"), "sites: [",
			"sites: [{ name: org, hosts: [www.example.org], origin: { servers: [\"http://192.0.2.9\"] } }, ", 1),
			"1:152: warning: sites[1].origin.servers[0]: www.example.org is a host of site org: where its name leads to the edges, a miss goes to an edge again"},
		{"an origin that is an edge name", origin("http://www.example.com:8000") + zone("www: {}"),
			"1:68: warning: sites[0].origin.servers[0]: the name servers answer www.example.com with the edges, so that each asks an edge on port 8000: give the origin a name or an address of its own unless one is there"},
		{"an origin that is an edge name, on a port of the edges",
			origin("http://cdn.example.com") + zone("www: {}, cdn: {}"),
			"1:68: sites[0].origin.servers[0]: the name servers answer cdn.example.com with the edges, so that a miss would come back to one: give the origin a name or an address of its own"},
		{"an origin that is an edge", origin("http://203.0.113.10"),
			"1:68: sites[0].origin.servers[0]: this is the http listener of edge hel1, so that a miss would come back to it: give the origin's own address and port"},
		{"an origin that is an edge's admin listener", origin("http://127.0.0.1:9080"),
			"1:68: sites[0].origin.servers[0]: this is the admin listener of edge hel1, so that a miss would come back to it: give the origin's own address and port"},
		{"an origin beside each edge", origin("http://localhost:8000"),
			"1:68: warning: sites[0].origin.servers[0]: 127.0.0.1 is each edge itself: does a server run on every edge?"},
		{"an origin beside each edge, of IPv6", origin("http://[::1]:8000"),
			"1:68: warning: sites[0].origin.servers[0]: ::1 is each edge itself: does a server run on every edge?"},
		{"an origin beside the only edge",
			origin("http://localhost:8000")[:strings.Index(origin("http://localhost:8000"), "  nyc1")], ""},
		{"an origin beside edges on one machine", strings.NewReplacer("203.0.113.10", "127.0.0.1", "198.51.100.20",
			"127.0.0.2").Replace(origin("http://localhost:8000")), ""},

		{"an edge on the address of any machine", strings.Replace(site+edges, "203.0.113.10", "127.0.0.1", 1),
			"3:64: warning: nodes.hel1.addresses[0]: 127.0.0.1 is each machine itself, so that nobody else reaches node hel1 there: give the address that others reach it at"},
		{"an edge in a private network", strings.Replace(site+edges, "203.0.113.10", "192.168.1.10", 1),
			"3:64: warning: nodes.hel1.addresses[0]: 192.168.1.10 is in a private network, so that clients don't reach node hel1 there: give its public address"},
		{"an edge behind a provider's NAT", strings.Replace(site+edges, "203.0.113.10", "100.64.0.1", 1),
			"3:64: warning: nodes.hel1.addresses[0]: 100.64.0.1 is in a private network, so that clients don't reach node hel1 there: give its public address"},
		{"a control node in a private network",
			site + edges + "  c1: { roles: [control], addresses: [10.0.0.9] }\nsecrets: { fleet_key: k }\n", ""},
		{"a lab", strings.NewReplacer("203.0.113.10", "10.77.0.11", "198.51.100.20",
			"192.168.1.10").Replace(site + edges), ""},
		{"an origin on the machine of an edge that has another port", origin("http://203.0.113.10:8000"), ""},
		{"an origin on the port of an edge by the name of its machine", origin("http://localhost"),
			"1:68: sites[0].origin.servers[0]: this is the http listener of edge hel1, so that a miss would come back to it: give the origin's own address and port"},

		{"a host without a name", origin("http://origin.example.net") + zone("\"@\": {}"),
			"1:30: warning: sites[0].hosts[0]: the zone has no name www.example.com, so that nobody finds it: add it to geodns.zones, below edges\n" +
				`6:73: warning: geodns.zones[0].edges.@: no site has the host example.com: its clients get 421 from the edges`},
		{"a host that the zone file has", strings.Replace(origin("http://origin.example.net"), "www.example.com",
			"mail.example.com", 1) + zone(""), ""},
		{"a host below a wildcard", origin("http://origin.example.net") + zone("\"*\": {}"), ""},
		{"a host elsewhere", strings.Replace(origin("http://origin.example.net"), "www.example.com", "www.shop.test",
			1) + zone(""),
			"1:30: warning: sites[0].hosts[0]: www.shop.test is in none of the zones: unless its DNS is elsewhere, and leads to the edges from there, nobody finds it"},
		{"a host elsewhere by mistake", strings.Replace(origin("http://origin.example.net"), "www.example.com",
			"www.exampel.com", 1) + zone(""),
			"1:30: warning: sites[0].hosts[0]: www.exampel.com is in none of the zones: unless its DNS is elsewhere, and leads to the edges from there, nobody finds it; did you mean www.example.com?"},
		{"a wildcard without a name", strings.Replace(origin("http://origin.example.net"), "[www.example.com]",
			"[\"*.example.com\"]", 1) + zone("www: {}"),
			"1:30: warning: sites[0].hosts[0]: the zone has no name *.example.com, so that nobody finds it: add it to geodns.zones, below edges"},

		{"an origin without a name", origin("http://origin.example.com") + zone("www: {}"),
			"1:68: warning: sites[0].origin.servers[0]: the zone has no name origin.example.com, so that edges don't find the server: put its address into the zone file"},
		{"an origin that the zone file has", origin("http://mail.example.com") + zone("www: {}"), ""},

		{"an admin listener for everybody", site + edges + "edge: { admin: \"0.0.0.0:9080\" }\n",
			"5:9: edge.admin: other machines reach 0.0.0.0:9080, and there is no token: name a file in secrets.admin_token, or listen on 127.0.0.1"},
		{"an admin listener for everybody, with a token", site + edges + "edge: { admin: \":9080\" }\n" + token, ""},
		{"an admin listener for everybody, with a token for some things",
			site + edges + "edge: { admin: \":9080\" }\nsecrets: { tokens: [{ file: t, scopes: [purge] }] }\n", ""},
		{"an admin listener of a name server",
			site + edges + "  fra1: { roles: [control], addresses: [203.0.113.30], admin: \":9080\" }\nsecrets: { fleet_key: k }\n", "5:56: nodes.fra1.admin: other machines reach :9080, and there is no token: name a file in secrets.admin_token, or listen on 127.0.0.1"},
		{"an admin listener on localhost", site + edges + "edge: { admin: \"localhost:9080\" }\n", ""},

		{"two listeners on one port", site + edges + "edge: { http: \":9080\" }\n",
			"5:9: edge.http: node hel1 listens on 127.0.0.1:9080 for admin already: http needs a port of its own"},
		{"two listeners on one port, all given once",
			site + edges + "edge: { http: \":8080\", admin: \"127.0.0.1:8080\" }\n",
			"5:24: edge.admin: node hel1 listens on :8080 for http already: admin needs a port of its own"},
		{"two listeners on one port of a node",
			strings.Replace(site+edges, "[203.0.113.10] }", "[203.0.113.10], edge: { admin: \"[::1]:http\" } }", 1),
			"3:87: nodes.hel1.edge.admin: node hel1 listens on :80 for http already: admin needs a port of its own"},
		{"two listeners on one port of two addresses", site + edges + "edge: { http: \"203.0.113.10:9080\" }\n", ""},
		{"HTTP where HTTPS is", site + edges +
			"tls: { certificates: [{ cert: c, key: k }] }\nedge: { http: \":443\" }\n",
			"6:9: edge.http: node hel1 listens on :443 for https already: http needs a port of its own"},
		{"DNS and the control plane", site +
			"nodes: { fra1: { roles: [geodns, control], addresses: [192.0.2.30], control: { listen: \":53\" } } }\nsecrets: { fleet_key: k }\ngeodns: { zones: [{ name: example.com, file: example.com.zone }] }\n",
			"2:80: nodes.fra1.control.listen: node fra1 listens on :53 for geodns already: control needs a port of its own"},
		{"any port", site + edges + "edge: { http: \":0\", admin: \"127.0.0.1:0\" }\n", ""},

		{"no sites", edges, "1:1: warning: sites: there are no sites: edges answer 421 to everything"},
		{"a control node without addresses", site + "nodes: { c1: { roles: [control] } }\nsecrets: { fleet_key: k }\n",
			"2:10: nodes.c1.addresses: control node c1 has no addresses"},
		{"a control node without a key", site + "nodes: { c1: { roles: [control], addresses: [203.0.113.30] } }\n",
			"2:16: nodes.c1.roles: the role control needs secrets.fleet_key: a file with the output of `openssl rand -base64 32`, the same on all nodes"},
		{"a shield without a key", strings.Replace(origin("http://origin.example.net"), "] } }]",
			"], shield: nyc1 } }]", 1),
			"1:1: warning: secrets.fleet_key: edge hel1 would ask others, by its region or a shield, but does not without a fleet key: name its file\n" +
				"1:1: warning: secrets.fleet_key: edge nyc1 would ask others, by its region or a shield, but does not without a fleet key: name its file"},
		{"a name server without zones", site + "nodes: { ns1: { roles: [geodns] } }\n",
			"2:17: nodes.ns1.roles: the role geodns has nothing to answer: there is no zone in geodns.zones"},
		{"a zone file that is not there",
			site + edges + "geodns: { zones: [{ name: example.com, file: exampel.com.zone }] }\n",
			"5:40: geodns.zones[0].file: there is no such file as DIR/exampel.com.zone: did you mean example.com.zone?"},
		{"a zone twice", site + edges +
			"  ns1: { roles: [geodns] }\ngeodns: { zones: [{ name: example.com, file: example.com.zone }, { name: EXAMPLE.com., file: example.com.zone }] }\n",
			"6:68: geodns.zones[1].name: zone EXAMPLE.com. is there twice"},
		{"a network with bits of a host", site + edges + "geodns: { locate: { 10.0.0.1/8: [1, 2] } }\n",
			"5:21: geodns.locate.10.0.0.1/8: 10.0.0.1/8 has bits of a host: want 10.0.0.0/8"},
		{"a zone that nobody answers",
			site + edges + "geodns: { zones: [{ name: example.com, file: example.com.zone, edges: { www: {} } }] }\n",
			"5:11: warning: geodns.zones: no node has the role geodns, so that nobody answers"},
		{"some edges without IPv6", strings.Replace(site+edges, "[203.0.113.10]", "[203.0.113.10, \"2001:db8::1\"]", 1),
			"4:53: warning: nodes.nyc1.addresses: 1 edge of 2 without an IPv6 address: nyc1; clients near them get no AAAA record where the others are much farther, and use IPv4"},
		{"all edges with IPv6", strings.NewReplacer("[203.0.113.10]", "[203.0.113.10, \"2001:db8::1\"]",
			"[198.51.100.20]", "[198.51.100.20, \"2001:db8::2\"]").Replace(site + edges), ""},
		{"an edge without IPv4", strings.NewReplacer("[203.0.113.10]", "[203.0.113.10, \"2001:db8::1\"]",
			"[198.51.100.20]", "[\"2001:db8::2\"]").Replace(site + edges),
			"4:53: warning: nodes.nyc1.addresses: 1 edge of 2 without an IPv4 address: nyc1; clients that have IPv4 alone don't reach them"},
		{"an SSH address", strings.Replace(site+edges, "[203.0.113.10] }", "[203.0.113.10], ssh: \"ops@hel1 -p 22\" }",
			1), `3:79: nodes.hel1.ssh: "ops@hel1 -p 22" is no SSH address: want [user@]host[:port]`},
		{"a port of SSH", strings.Replace(site+edges, "[203.0.113.10] }", "[203.0.113.10], ssh: \"ops@hel1:ssh\" }", 1),
			`3:79: nodes.hel1.ssh: "ops@hel1:ssh" is no SSH address: its port is not 1 to 65535`},
		{"latitude and longitude swapped",
			site + "nodes: { hel1: { roles: [edge], location: [24.94, 60.17], addresses: [193.166.3.2] } }\n",
			"2:33: warning: nodes.hel1.location: 193.166.3.2 is in FI, and 24.94, 60.17 is 4830 km away from there; did you mean [60.17, 24.94]?"},
		{"a sign lost", site + "nodes: { nyc1: { roles: [edge], location: [40.71, 74.01], addresses: [128.112.136.1] } }\n",
			"2:33: warning: nodes.nyc1.location: 128.112.136.1 is in US, and 40.71, 74.01 is 10999 km away from there; did you mean [40.71, -74.01]?"},
		{"a node in the sea", site + "nodes: { hel1: { roles: [edge], location: [60.17, -24.94], addresses: [193.166.3.2] } }\n",
			"2:33: warning: nodes.hel1.location: 193.166.3.2 is in FI, and 60.17, -24.94 is 2650 km away from there; did you mean [60.17, 24.94]?"},
		{"a node far away", site + "nodes: { syd1: { roles: [edge], location: [-33.87, 151.21], addresses: [193.166.3.2] } }\n",
			"2:33: warning: nodes.syd1.location: 193.166.3.2 is in FI, and -33.87, 151.21 is 15177 km away from there"},
		{"a node in its country", site +
			"nodes: { nyc1: { roles: [edge], location: [40.71, -74.01], addresses: [128.112.136.1] } }\n", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, zone := fleetText(t)
			if got := wrongIn(t, writeFleet(t, c.text, strings.ReplaceAll(zone, "; www", ";"))); got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}

// What the zone file has, and the fleet does not agree with, is told with its line.
func TestMistakesOfZones(t *testing.T) {
	const fleet = `sites: [{ name: www, hosts: [www.example.com], origin: { servers: ["http://origin.example.net"] } }]
nodes:
  hel1: { roles: [edge, geodns], location: [60.17, 24.94], addresses: [203.0.113.10] }
  nyc1: { roles: [edge, geodns], location: [40.71, -74.01], addresses: [198.51.100.20] }
geodns: { zones: [{ name: example.com, file: example.com.zone, edges: { www: {} } }] }
`
	const soa, ns = "@ 60 IN SOA ns1 h 1 2 3 4 5\n", "@ 60 IN NS ns1\n@ 60 IN NS ns2\n"
	const glue = "ns1 60 IN A 203.0.113.10\nns2 60 IN A 198.51.100.20\n"
	for _, c := range []struct{ name, zone, want string }{
		{"all is well", soa + ns + glue, ""},
		{"name servers of others", soa + "@ 60 IN NS ns.example.net.\n", ""},
		{"a name server without an address", soa + ns + strings.Split(glue, "ns2")[0],
			"3:12: warning: the zone has no address of the name server ns2.example.com, so that nobody finds it: add its A or AAAA record"},
		{"a name server that is no node", soa + ns + strings.Replace(glue, "203.0.113.10", "203.0.113.99", 1),
			"4:13: warning: 203.0.113.99 of the name server ns1.example.com is no node with the role geodns: does a server outside of the fleet answer there?"},
		{"an address at an edge name", soa + ns + glue + "www 60 IN A 203.0.113.10\n",
			"6:1: www.example.com is an edge name of the fleet file, and has A here: remove this line, as the edges answer for the name"},
		{"an alias at an edge name", soa + ns + "www 60 IN CNAME mail\n" + glue,
			"4:1: www.example.com is an edge name of the fleet file, and has CNAME here: remove this line, as the edges answer for the name"},
		{"no name server with an address", soa + ns,
			"2:12: the zone has no address of the name server ns1.example.com, so that nobody finds it: add its A or AAAA record\n" +
				"3:12: the zone has no address of the name server ns2.example.com, so that nobody finds it: add its A or AAAA record"},
		{"name servers that are no nodes", soa + ns + "ns1 60 IN A 192.0.2.1\nns2 60 IN AAAA 2001:DB8::0:1\n",
			"4:13: 192.0.2.1 of the name server ns1.example.com is no node with the role geodns, and neither is any other name server of the zone, so that nobody asks the fleet: write the address of one, such as 203.0.113.10\n" +
				"5:16: 2001:db8::1 of the name server ns2.example.com is no node with the role geodns, and neither is any other name server of the zone, so that nobody asks the fleet: write the address of one, such as 203.0.113.10"},
		{"an NS without the dot at its end", soa + "@ 60 IN NS ns1.example.com\n@ 60 IN NS ns2\n" + glue,
			"2:12: NS ns1.example.com has no dot at its end, so that it means ns1.example.com.example.com: write ns1.example.com."},
		{"an NS elsewhere without the dot at its end", soa + ns + "@ 60 IN NS ns.dns.test ; of others\n" + glue,
			"4:12: warning: the zone has no address of the name server ns.dns.test.example.com, so that nobody finds it: add its A or AAAA record, or write ns.dns.test. if that is the whole name"},
		{"an NS that is an alias", soa + ns + "ns1 60 IN A 203.0.113.10\nns2 60 IN CNAME ns1\n",
			"3:12: the name server ns2.example.com is an alias (CNAME or DNAME), which resolvers don't follow (RFC 2181, 10.3): name the server that it leads to, or give it A or AAAA records"},
		{"an NS that is an edge name", soa + ns + "@ 60 IN NS WWW\n" + glue,
			"4:12: warning: the name server www.example.com is an edge name, which is answered with the edges near a client: the zone above needs addresses that stay: name it otherwise, with A or AAAA records of nodes with the role geodns"},
		{"an NS that is an address", soa + ns + "@ 60 IN NS 203.0.113.10\n" + glue,
			"4:12: NS wants a name, and 203.0.113.10 is an address: give it to a name by an A or AAAA record, and write that name here"},
		{"an NS that is the root", soa + ns + "@ 60 IN NS .\n" + glue,
			"4:12: NS names no server: write the name of one"},
		{"a delegation without glue", soa + ns + glue + "shop 60 IN NS ns.shop\n",
			"6:15: the delegation of shop.example.com has no address for its name server ns.shop.example.com, which is below it, so that nobody finds it: add one as glue, such as: ns.shop IN A 192.0.2.53"},
		{"a delegation with some glue",
			soa + ns + glue + "shop 60 IN NS ns.shop\n\t60 IN NS\tns4.shop\nns.shop 60 IN A 192.0.2.1\nmail.shop 60 IN MX 1 nowhere\n",
			"7:11: warning: the delegation of shop.example.com has no address for its name server ns4.shop.example.com, which is below it, so that nobody finds it: add one as glue, such as: ns4.shop IN A 192.0.2.53"},
		{"a delegation to others", soa + ns + glue +
			"shop 60 IN NS ns.example.net.\nb 60 IN NS ns1\nc 60 IN NS d.shop\n", ""},
		{"an MX at an alias", soa + ns + glue + "@ 60 IN MX 10 mail\nmail 60 IN CNAME ns1\n",
			"6:15: warning: mail.example.com is an alias (CNAME or DNAME), which MX must not name (RFC 2181, 10.3), so that some don't find it: name the host that it leads to"},
		{"an MX without an address", soa + ns + glue + "@ 60 IN MX 10 mail\n",
			"6:15: MX names mail.example.com, which has no address: add its A or AAAA record"},
		{"an MX without an address beside another",
			soa + ns + glue + "@ 60 IN MX 10 mail\n@ 60 IN MX 20 mx.example.net.\n",
			"6:15: warning: MX names mail.example.com, which has no address: add its A or AAAA record"},
		{"an MX at an edge name", soa + ns + glue + "@ 60 IN MX 10 www\n",
			"6:15: warning: www.example.com is an edge name, and edges take no mail: name the mail server"},
		{"an MX that is an address", soa + ns + glue + "@ 60 IN MX 10 192.0.2.1.\n",
			"6:15: MX wants a name, and 192.0.2.1 is an address: give it to a name by an A or AAAA record, and write that name here"},
		{"no mail", soa + ns + glue + "@ 60 IN MX 0 .\n", ""},
		{"an SRV without an address", soa + ns + glue + "_sip._tcp 60 IN SRV 1 2 5060 sip\n",
			"6:30: warning: SRV names sip.example.com, which has no address: add its A or AAAA record"},
		{"an alias that leads nowhere", soa + ns + glue + "shop 60 IN CNAME shops.test\n_acme 60 IN CNAME later\n",
			"6:18: warning: the alias shop leads nowhere, as there is no shops.test.example.com, or write shops.test. if that is the whole name"},
		{"an alias without the dot at its end", soa + ns + glue + "shop 60 IN CNAME www.example.com\n",
			"6:18: CNAME www.example.com has no dot at its end, so that it means www.example.com.example.com: write www.example.com."},
		{"an alias of an address", soa + ns + glue + "shop 60 IN CNAME 203.0.113.10\n",
			"6:18: CNAME wants a name, and 203.0.113.10 is an address: use an A or AAAA record"},
		{"aliases that lead somewhere",
			soa + ns + glue + "shop 60 IN CNAME www\nshop2 60 IN CNAME shop\n*.dev 60 IN A 192.0.2.1\nshop3 60 IN CNAME a.dev\n", ""},
		{"a signed zone", soa + ns + glue + "www 60 IN NSEC @ A\n@ 60 IN DNSKEY 257 3 13 AAAA\n",
			"6:11: the zone is signed (NSEC), and edges can't be: resolvers that check signatures refuse the whole domain; give the zone unsigned, and have the registrar remove the DS records"},
		{"a delegation that is signed",
			soa + ns + glue + "shop 60 IN NS ns.example.net.\nshop 60 IN DS 12345 13 2 0000000000000000000000000000000000000000000000000000000000000000\n", ""},
		{"no SOA", ns + glue, "1:1: no SOA at example.com.; add: @ 3600 IN SOA ns1 hostmaster 1 14400 3600 1209600 300"},
		{"no NS", soa + glue, "1:1: no NS at example.com.; add a line for each name server, with its A or AAAA record: @ 3600 IN NS ns1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := writeFleet(t, fleet, c.zone)
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

// No value of any type brings the words of a library to the operator.
func TestNoWordsOfLibraries(t *testing.T) {
	for _, value := range []string{"x", "-1", "1.2.3.4.5", "::g", "1e999", "%zz", "http://%zz", "0x",
		"99999999999999999999", "a: b", "[]", "{}", "[[x]]", "~", "!!int x", "10.0.0.0/8/8", "fe80::1%eth0/64",
		"'\\x'"} {
		for _, key := range []string{"sites: [{ hosts: [V] }]", "sites: [{ origin: { servers: [V] } }]",
			"sites: [{ origin: { servers: [{ url: V }] } }]", "sites: [{ origin: { retries: V } }]",
			"sites: [{ cache: { max_object: V } }]", "sites: [{ cache: { default_ttl: V } }]",
			"sites: [{ https: { redirect: V } }]", "nodes: { a: { location: V } }",
			"nodes: { a: { location: [V, V] } }",
			"nodes: { a: { addresses: [V] } }", "nodes: { a: { weight: V } }", "edge: { purge_from: [V] }",
			"edge: { http: V }", "edge: { access_log: { sample: V } }", "geodns: { locate: { V: [1, 2] } }",
			"geodns: { locate: { 10.0.0.0/8: V } }", "geodns: { rate_limit: { exempt: [V] } }",
			"geodns: { zones: [{ name: V, file: V }] }", "tls: { acme: { directory: V } }"} {
			text := strings.ReplaceAll(key, "V", value)
			got := wrong(t, text)
			for _, theirs := range []string{"strconv", "netip", "Parse", "parse ", "unmarshal", "syntax", "invalid",
				"reflect", "token", "%!"} {
				if strings.Contains(got, theirs) {
					t.Errorf("%s\nhas the word %q:\n%s", text, theirs, got)
				}
			}
		}
	}
}

func TestSizesAndDurations(t *testing.T) {
	for text, want := range map[string]Size{"0": 0, "7B": 7, "10K": 10 << 10, "10M": 10 << 20, "10MB": 10 << 20,
		"10MiB": 10 << 20, "10m": 10 << 20, "10G": 10 << 30, "10GB": 10 << 30, "10 GiB": 10 << 30, "2T": 2 << 40} {
		var s Size
		if err := s.UnmarshalText([]byte(text)); err != nil || s != want {
			t.Errorf("%s is %d, %v", text, s, err)
		}
	}
	for _, text := range []string{"", "G", "-1G", "1.5G", "10IB", "10Gi B", "1GG", "5000000T", "10P"} {
		if err := new(Size).UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is taken as a size", text)
		}
	}
	const day = 24 * time.Hour
	for text, want := range map[string]time.Duration{"0": 0, "0s": 0, "500ms": 500 * time.Millisecond,
		"1h30m": 90 * time.Minute, "1d": day, "2w": 14 * day, "1d12h": 36 * time.Hour, "0.5d": 12 * time.Hour,
		"1.5h": 90 * time.Minute} {
		var d Duration
		if err := d.UnmarshalText([]byte(text)); err != nil || time.Duration(d) != want {
			t.Errorf("%s is %v, %v", text, time.Duration(d), err)
		}
	}
	for _, text := range []string{"", "d", "5", "-1d", "1 d", "1y", "1d-2h", ".", ".d", "1..5d", "16000w",
		"9000w9000w"} {
		if err := new(Duration).UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is taken as a duration", text)
		}
	}
}
