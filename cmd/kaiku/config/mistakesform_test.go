package config

import "testing"

// fleetKey and oneControl make a fleet of what is otherwise too little for one.
const (
	fleetKey   = "secrets: { fleet_key: k }\n"
	oneControl = "\nnodes: { c1: { roles: [control], addresses: [192.0.2.1] } }\n" + fleetKey
)

// mistakesOfEncoding are files that are no text, or more or less than one document.
var mistakesOfEncoding = []mistake{
	{"nothing", "", "1:1: the file is empty: kaiku init writes a first one"},
	{"comments alone", "# a fleet\n", "1:1: the file is empty: kaiku init writes a first one"},
	{"a byte order mark is fine", "\xef\xbb\xbfsites: []" + oneControl, ""},
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
	{"one document with its marks is fine", "---\nsites: []" + oneControl + "...\n", ""},
	{"lines of Windows are fine", "sites: []\r\nnodes: { c1: { roles: [control], addresses: [192.0.2.1] } }\r\n" +
		fleetKey, ""},
}

// mistakesOfYAML break the form of YAML.
var mistakesOfYAML = []mistake{
	{"a tab", "sites:\n\t- name: www\n", "2:1: this line is indented with a tab: YAML wants spaces"},
	{"a tab after a line of spaces", "sites:\n  - name: www\n\thosts: [a.example]\n",
		"3:1: this line is indented with a tab: YAML wants spaces"},
	{"a wildcard without quotes", "sites:\n  - { name: www, origin: { servers: [\"http://a.example\"] }, hosts: [*.example.com] }" + oneControl,
		`2:69: sites[0].hosts[0]: write "*.example.com" in quotes: without them * begins a reference, and nothing here is called &.example.com`},
	{"a wildcard on its line", "sites:\n  - name: www\n    origin: { servers: [\"http://a.example\"] }\n    hosts:\n      - *.example.com" + oneControl,
		`5:9: sites[0].hosts[0]: write "*.example.com" in quotes: without them * begins a reference, and nothing here is called &.example.com`},
	{"a wildcard as a key", "geodns:\n  zones:\n    - name: example.com\n      edges:\n        *: {}\n",
		`5:9: '*' can't begin a text in YAML: write "*" in quotes`},
	{"@ as a key", "geodns:\n  zones:\n    - name: example.com\n      edges:\n        @: {}\n",
		`5:9: '@' can't begin a text in YAML: write "@" in quotes`},
	{"a backtick", "sites:\n  - name: `www`\n", "2:11: '`' can't begin a text in YAML: write \"`www`\" in quotes"},
	{"an alias of nothing", "sites: *all" + oneControl,
		`1:8: sites: write "*all" in quotes: without them * begins a reference, and nothing here is called &all`},
	{"a tag", "edge: { http: !!str 80 }" + oneControl,
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
	{"no space after a colon", "edge:\n  http:\":80\"" + oneControl,
		`2:3: edge: want a mapping, as { key: value }, not "http:\":80\""`},
	{"no space after a dash", "sites:\n  -name: www" + oneControl,
		`2:3: sites: "-name" has no space after the -: an entry of a list begins with one`},
	{"an address of IPv6 without quotes", "edge: { purge_from: [::1/128] }\n",
		`1:22: this has no key: want KEY: VALUE, and quotes around a text that begins with a colon, as "::1"`},
	{"a key twice", "edge: { http: \":80\" }\nedge: {}" + oneControl,
		"2:1: edge: this key stands here twice, first on line 1"},
	{"a no-break space", "edge:\n  \u00a0http: \":80\"" + oneControl,
		`2:3: edge: the key "\u00a0http" has the space U+00A0: use an ordinary one`},
	{"an invisible character", "edge: { data: \"/srv\u200b\" }" + oneControl,
		`1:15: edge.data: "/srv\u200b" has the invisible character U+200B: remove it`},
	{"typographic quotes", "edge: { data: “/srv” }" + oneControl,
		`1:15: edge.data: "“/srv”" has typographic quotes: write " or '`},
	{"a text of two lines", "edge:\n  data: |\n    /srv\n    ExecStart=/bin/sh" + oneControl,
		`2:9: edge.data: "/srv\nExecStart=/bin/sh\n" is more than one line: want a single one`},
	{"a line break that is written", "edge: { access_log: { file: \"/var/log/a\\nb\" } }" + oneControl,
		`1:29: edge.access_log.file: "/var/log/a\nb" is more than one line: want a single one`},
}

// mistakesOfKeys have keys that are unknown, or in the wrong place.
var mistakesOfKeys = []mistake{
	{"a key at the top", "site: []" + oneControl, "1:1: site: unknown key; did you mean sites?"},
	{"a key, and what is below it",
		"sites:\n  - name: www\n    hosts: [a.example]\n    orgin: { server: [\"http://a.example/x\"] }" + oneControl,
		"4:5: sites[0].orgin: unknown key; did you mean origin?\n4:14: sites[0].origin.server: unknown key; did you mean servers?\n" +
			`4:23: sites[0].origin.servers[0]: "http://a.example/x" has more than scheme, host and port: requests keep the path that the client asked for`},
	{"a key of Go's or JavaScript's taste", "edge: { accessLog: { file: \"-\" } }" + oneControl,
		"1:9: edge.accessLog: unknown key; did you mean access_log?"},
	{"a key in a wrong place", "sites:\n  - { name: www, hosts: [a.example], origin: { servers: [\"http://b.example\"] }, shield: c1 }" + oneControl,
		"2:81: sites[0].shield: unknown key; it belongs below origin"},
	{"a key like none", "edge: { colour: red }" + oneControl,
		"1:9: edge.colour: unknown key; want http, https, admin, peer, data, disk, memory, max_disconnected, capacity, purge_from, " +
			"max_connections, max_connections_per_client, drain_timeout, access_log, http2 or hit_lane"},
}

// mistakesOfValues have values that are not of the type of their key.
var mistakesOfValues = []mistake{
	{"a size without unit", "edge: { disk: 500 }" + oneControl,
		`1:15: edge.disk: "500" is not a size: it has no unit: write 500M or 500G`},
	{"a size", "edge: { disk: much }" + oneControl,
		`1:15: edge.disk: "much" is not a size: want a whole number and K, M, G or T, such as 512M or 10G; M, MB and MiB are all 1024 × 1024 bytes`},
	{"a part of a size", "edge: { disk: 1.5G }" + oneControl,
		`1:15: edge.disk: "1.5G" is not a size: want a whole number and K, M, G or T, such as 512M or 10G; M, MB and MiB are all 1024 × 1024 bytes`},
	{"too large a size", "edge: { disk: 99999999999T }" + oneControl,
		`1:15: edge.disk: "99999999999T" is more than can be counted`},
	{"a duration without unit", "edge: { drain_timeout: 30 }" + oneControl,
		`1:24: edge.drain_timeout: "30" is not a duration: it has no unit: write 30s or 30m`},
	{"a duration", "edge: { drain_timeout: 1 month }" + oneControl,
		`1:24: edge.drain_timeout: "1 month" is not a duration: want a form like 500ms, 30s, 1h30m, 1d or 2w`},
	{"a negative duration", "edge: { drain_timeout: -5s }" + oneControl, `1:24: edge.drain_timeout: "-5s" is negative`},
	{"a long duration", "edge: { drain_timeout: 99999w }" + oneControl,
		`1:24: edge.drain_timeout: "99999w" is not a duration, or longer than 290 years`},
	{"an address", "nodes: { c1: { roles: [control], addresses: [192.0.2.400] } }\n" + fleetKey,
		`1:46: nodes.c1.addresses[0]: want an IP address, such as 203.0.113.10 or 2001:db8::10, not "192.0.2.400"`},
	{"an address with a port", "nodes: { c1: { roles: [control], addresses: [\"192.0.2.4:80\"] } }\n" + fleetKey,
		`1:46: nodes.c1.addresses[0]: want an IP address, such as 203.0.113.10 or 2001:db8::10, not "192.0.2.4:80"`},
	{"a network", "edge: { purge_from: [10.0.0.0/99] }" + oneControl,
		`1:22: edge.purge_from[0]: want a network, such as 10.0.0.0/8 or 2001:db8::/32, not "10.0.0.0/99"`},
	{"a network as a key", "geodns: { locate: { 10.0.0.0: [1, 2] } }" + oneControl,
		`1:21: geodns.locate: want a network, such as 10.0.0.0/8 or 2001:db8::/32, not "10.0.0.0"`},
	{"a number", "edge: { max_connections: many }" + oneControl,
		`1:26: edge.max_connections: want a whole number, not "many"`},
	{"too large a number", "edge: { max_connections: 99999999999 }" + oneControl,
		`1:26: edge.max_connections: want a whole number, not "99999999999"`},
	{"a part", "edge: { access_log: { file: \"-\", sample: half } }" + oneControl,
		`1:42: edge.access_log.sample: want a number, not "half"`},
	{"a private key", "tls: { certificates: [{ cert: c, key: \"-----BEGIN PRIVATE KEY-----\\nhush\" }] }" + oneControl,
		"1:34: tls.certificates[0].key: a key or a certificate stands here, and the name of a file is wanted: write it to one, and name that"},
	{"a private key on lines of its own",
		"tls:\n  certificates:\n    - cert: c\n      key: |\n        -----BEGIN PRIVATE KEY-----\n        hush" +
			oneControl,
		"4:7: tls.certificates[0].key: a key or a certificate stands here, and the name of a file is wanted: write it to one, and name that"},
	{"yes", "edge: { hit_lane: yes }" + oneControl, `1:19: edge.hit_lane: want true or false, not "yes"`},
	{"a location without brackets",
		"nodes: { c1: { roles: [control], addresses: [192.0.2.1], location: 60.17 } }\n" + fleetKey,
		`1:68: nodes.c1.location: want [latitude, longitude], as [60.17, 24.94], not "60.17"`},
	{"a text for a list", "nodes: { c1: { roles: control, addresses: [192.0.2.1] } }\n" + fleetKey,
		`1:23: nodes.c1.roles: want a list, as [a, b], not "control"`},
	{"a URL that is none", "sites: [{ name: www, hosts: [a.example], origin: { servers: [\"http://[::1\"] } }]" +
		oneControl, `1:62: sites[0].origin.servers[0]: "http://[::1" is not an origin: want http://host[:port] or https://host[:port]`},
	{"an address that is none in a URL",
		"sites: [{ name: www, hosts: [a.example], origin: { servers: [\"http://192.0.2.400\"] } }]" + oneControl,
		`1:62: sites[0].origin.servers[0]: "http://192.0.2.400" is not an origin: want http://host[:port] or https://host[:port]`},
	{"a port of a URL", "sites: [{ name: www, hosts: [a.example], origin: { servers: [\"http://b.example:99999\"] } }]" + oneControl,
		`1:62: sites[0].origin.servers[0]: "http://b.example:99999": the port of an origin is 1 to 65535`},
}

// Each mistake in the form of a file gets one message, which names what is wanted. What follows
// from the mistake gets none.
func TestMistakesOfForm(t *testing.T) {
	for _, table := range [][]mistake{mistakesOfEncoding, mistakesOfYAML, mistakesOfKeys, mistakesOfValues} {
		for _, c := range table {
			t.Run(c.name, func(t *testing.T) {
				if got := wrong(t, c.text); got != c.want {
					t.Errorf("got\n%s\nwant\n%s", got, c.want)
				}
			})
		}
	}
}
