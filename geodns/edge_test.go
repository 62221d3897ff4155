package geodns

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func TestAnswerByPlace(t *testing.T) {
	s := newServer(t, testConfig(t))
	for from, want := range map[netip.AddrPort]string{
		inHelsinki:                              "203.0.113.10",
		inNewYork:                               "198.51.100.20",
		inTokyo:                                 "203.0.113.10", // 7,800 km; New York is 10,850 km away
		nowhere:                                 "203.0.113.10", // the first in Config.Nodes
		netip.MustParseAddrPort("[fd00::1]:53"): "198.51.100.20",
		netip.MustParseAddrPort("[::ffff:10.20.1.1]:53"): "198.51.100.20",
		netip.MustParseAddrPort("193.166.3.2:53"):        "203.0.113.10",
		netip.MustParseAddrPort("128.112.136.1:53"):      "198.51.100.20",
	} {
		resp := mustAnswer(t, s, question("www.example.com. A"), from, false)
		wantRRs(t, "answer to "+from.String(), resp.Answer, "www.example.com. 30 IN A "+want)
	}
	resp := mustAnswer(t, s, question("deep.edge.example.com. A"), nowhere, false)
	// The first in EdgeName.Nodes.
	wantRRs(t, "answer", resp.Answer, "deep.edge.example.com. 30 IN A 198.51.100.20")
}

func TestAnswerSubnet(t *testing.T) {
	s := newServer(t, testConfig(t))
	const hel, nyc = "203.0.113.10", "198.51.100.20"
	for _, test := range []struct {
		subnet, name, want string
		scope              int
		min                int // if scope is -1, the scope must be at least min
	}{
		{subnet: "10.1.0.0/16", want: hel, scope: 12}, // up to the start of 10.20.0.0/16
		{subnet: "10.20.7.0/24", want: nyc, scope: 16},
		{subnet: "10.16.0.0/13", want: hel, scope: 14}, // 10.20.0.0/16 is within the source
		{subnet: "10.128.0.0/9", want: hel, scope: 9},
		{subnet: "fd00::/48", want: nyc, scope: 8},
		{subnet: "193.166.0.0/16", want: hel, scope: -1, min: 8},
		{subnet: "130.233.0.0/16", want: hel, scope: -1, min: 8},
		{subnet: "128.112.0.0/16", want: nyc, scope: -1, min: 8},
		{subnet: "8.8.8.0/24", want: nyc, scope: -1, min: 8},
		{subnet: "2001:708::/32", want: hel, scope: -1, min: 16},
		{subnet: "0.0.0.0/0", want: nyc, scope: 0}, // the place of the resolver, New York
		{subnet: "::/0", want: nyc, scope: 0},
		{subnet: "10.1.0.0/16", name: "toedge.example.com.", want: hel, scope: 12},
		{subnet: "10.1.0.0/16", name: "one.example.com.", want: "192.0.2.40", scope: 0}, // one node
		{subnet: "10.1.0.0/16", name: "mail.example.com.", want: "192.0.2.99", scope: 0},
		{subnet: "10.1.0.0/16", name: "nowhere.example.com.", scope: 0},
		{subnet: "10.1.0.0/16", name: "x.sub.example.com.", scope: 0},
		{subnet: "10.1.0.0/16", name: "example.org.", scope: 0},
	} {
		t.Run(test.subnet+" "+test.name, func(t *testing.T) {
			if test.name == "" {
				test.name = "www.example.com."
			}
			prefix := netip.MustParsePrefix(test.subnet)
			m := question(test.name + " A")
			m.SetEdns0(4096, false)
			sent := &dns.EDNS0_SUBNET{
				Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: uint8(prefix.Bits()), Address: prefix.Addr().AsSlice(),
			}
			if prefix.Addr().Is6() {
				sent.Family = 2
			}
			m.IsEdns0().Option = append(m.IsEdns0().Option, sent)
			resp := mustAnswer(t, s, m, inNewYork, false)
			var got *dns.EDNS0_SUBNET
			for _, o := range resp.IsEdns0().Option {
				got = o.(*dns.EDNS0_SUBNET)
			}
			if got == nil || got.Family != sent.Family || got.SourceNetmask != sent.SourceNetmask ||
				!got.Address.Equal(sent.Address) {
				t.Fatalf("subnet is %v, want %v", got, sent)
			}
			if scope := int(got.SourceScope); scope != test.scope && (test.scope >= 0 || scope < test.min) {
				t.Errorf("scope is %d, want %d", scope, test.scope)
			}
			last := ""
			for _, rr := range resp.Answer {
				if a, ok := rr.(*dns.A); ok {
					last = a.A.String()
					break
				}
			}
			if last != test.want {
				t.Errorf("answer is %q, want %q", last, test.want)
			}
		})
	}
}

// TestScopeHolds checks that the first and the last address in a scope have the same location as
// the address that was asked about.
func TestScopeHolds(t *testing.T) {
	s := newServer(t, testConfig(t))
	l := s.current.Load().locator
	for _, a := range []string{"10.21.0.0", "9.255.255.255", "193.166.3.2", "8.8.8.8", "1.1.1.1", "172.32.0.1",
		"2001:708::1", "fc00::1"} {
		at := l.find(netip.MustParseAddr(a), new(Place))
		first, last := ends(netip.MustParseAddr(a), at.bits)
		for _, end := range []netip.Addr{first, last} {
			other := l.find(end, new(Place))
			if other.bits != at.bits || other.source != at.source || other.country != at.country {
				t.Errorf("%s is %+v, but %v in its scope is %+v", a, at, end, other)
			}
		}
	}
}

// TestWildcardEdge checks that a wildcard edge name answers for all names that don't exist, and for
// no others (RFC 4592).
func TestWildcardEdge(t *testing.T) {
	cfg := testConfig(t)
	cfg.Nodes[0].ALPN = []string{"h2"}
	cfg.Edges = append(cfg.Edges, EdgeName{Name: "*.example.com", Nodes: []string{"hel1", "nyc1"}, TTL: 7e9})
	s := newServer(t, cfg)
	for q, want := range map[string]string{
		"shop.example.com. A":        "shop.example.com. 7 IN A 203.0.113.10",
		"ShOp.example.com. AAAA":     "ShOp.example.com. 7 IN AAAA 2001:db8:1::10",
		"a.b.shop.example.com. A":    "a.b.shop.example.com. 7 IN A 203.0.113.10",
		"*.example.com. A":           "*.example.com. 7 IN A 203.0.113.10",
		"shop.example.com. HTTPS":    `shop.example.com. 7 IN HTTPS 1 . alpn="h2" ipv4hint="203.0.113.10" ipv6hint="2001:db8:1::10"`,
		"shop.example.com. TXT":      "",                                         // no such record
		"www.example.com. A":         "www.example.com. 30 IN A 203.0.113.10",    // an edge name of its own
		"mail.example.com. A":        mail[0],                                    // static
		"mail.example.com. AAAA":     "",                                         // exists
		"x.mail.example.com. A":      "",                                         // below an existing name
		"ent.example.com. A":         "",                                         // an empty non-terminal
		"x.dev.example.com. A":       "x.dev.example.com. 3600 IN A 192.0.2.98",  // a closer wildcard
		"x.wild.example.com. A":      "x.wild.example.com. 30 IN A 203.0.113.10", // the same
		"example.com. A":             "example.com. 30 IN A 203.0.113.10",        // not below itself
		"_acme-challenge.foo.org. A": "",                                         // in another zone
	} {
		resp := mustAnswer(t, s, question(q), inHelsinki, true)
		if want == "" {
			wantRRs(t, q, resp.Answer)
		} else {
			wantRRs(t, q, resp.Answer, want)
		}
	}
	x, err := s.Explain("shop.example.com", inHelsinki.Addr())
	if err != nil || x.Name != "*.example.com." || x.Nodes[0].Node != "hel1" {
		t.Errorf("explained as %+v, %v", x, err)
	}
}

// A name has no HTTPS record while one of its nodes reports that it has no certificates. A browser
// that sees the record gives up plain HTTP.
func TestHTTPSRecordWaits(t *testing.T) {
	cfg := testConfig(t)
	for i := range cfg.Nodes {
		cfg.Nodes[i].ALPN = []string{"h2", "h3"}
	}
	s := newServer(t, cfg)
	record := `www.example.com. 30 IN HTTPS 1 . alpn="h2,h3" ipv4hint="203.0.113.10" ipv6hint="2001:db8:1::10"`
	for _, c := range []struct {
		reports map[string]Report
		want    []string
	}{
		{nil, []string{record}},
		{map[string]Report{"nyc1": {Plain: true}}, nil}, // not the node for Helsinki now, but it may be soon
		{map[string]Report{"nyc1": {}, "tyo1": {Plain: true}}, []string{record}},
	} {
		s.Registry = func() map[string]Report { return c.reports }
		s.pollRegistry(time.Second)
		resp := mustAnswer(t, s, question("www.example.com. HTTPS"), inHelsinki, false)
		wantRRs(t, "HTTPS", resp.Answer, c.want...)
		if len(c.want) == 0 && len(resp.Ns) != 1 {
			t.Errorf("no SOA with the answer that there is none: %v", resp)
		}
		wantRRs(t, "A", mustAnswer(t, s, question("www.example.com. A"), inHelsinki, false).Answer,
			"www.example.com. 30 IN A 203.0.113.10")
	}
}

// A client in Finland, whose nearest node has no IPv6, gets no AAAA record and so isn't sent to New
// York. It reaches Helsinki over IPv4. A client whose nearest node has IPv6 gets its AAAA record.
// If the node without IPv6 is down, all clients get AAAA records. The HTTPS record has the same
// addresses.
func TestPartialIPv6(t *testing.T) {
	cfg := testConfig(t)
	cfg.Nodes = []Node{
		{Name: "hel1", Place: helsinki, Addresses: addrs("203.0.113.10"), ALPN: []string{"h2"},
			Probe: "http://192.0.2.1/"},
		{Name: "nyc1", Place: newYork, Addresses: addrs("198.51.100.20", "2001:db8:2::20"), ALPN: []string{"h2"},
			Probe: "http://192.0.2.1/"},
		{Name: "tyo1", Place: tokyo, Addresses: addrs("192.0.2.40"), ALPN: []string{"h2"}, Probe: "http://192.0.2.1/"},
	}
	cfg.Edges = []EdgeName{{Name: "www.example.com", TTL: 30e9}, {Name: "two.example.com", Answers: 2, TTL: 30e9},
		{Name: "none.example.com", Nodes: []string{"hel1", "tyo1"}}}
	s := newServer(t, cfg)
	type phases map[string]int32
	all := phases{"hel1": healthy, "nyc1": healthy, "tyo1": healthy}
	hel, nyc, six := "203.0.113.10", "198.51.100.20", "2001:db8:2::20"
	for _, c := range []struct {
		from               netip.AddrPort
		name               string
		phases             phases
		a, aaaa, hint, why string
	}{
		{inHelsinki, "www", all, hel, "", "",
			"no AAAA: hel1 has no IPv6, and nyc1, the nearest edge with IPv6, is 6619 km farther (the limit is 1000 km), so clients use IPv4"},
		{inNewYork, "www", all, nyc, six, six, "the nearest edge has it"},
		{inHelsinki, "two", all, hel + " " + nyc, "", "",
			"no AAAA: hel1 has no IPv6, and nyc1, the nearest edge with IPv6, is 6619 km farther (the limit is 1000 km), so clients use IPv4"},
		{inNewYork, "two", all, nyc + " " + hel, six, six, "the nearest edge has it"},
		{inHelsinki, "www", phases{"hel1": unhealthy, "nyc1": healthy, "tyo1": unhealthy}, nyc, six, six,
			"the nearest edge has it"},
		{inNewYork, "www", phases{"hel1": healthy, "nyc1": unhealthy, "tyo1": healthy}, hel, "", "",
			"no AAAA: no edge with IPv6 has as good a state as those without"},
		{inHelsinki, "none", all, hel, "", "", ""},
	} {
		setPhase(s, c.phases)
		get := func(rrtype string) string {
			resp := mustAnswer(t, s, question(c.name+".example.com. "+rrtype), c.from, false)
			if len(resp.Answer) == 0 && (resp.Rcode != dns.RcodeSuccess || len(resp.Ns) != 1) {
				t.Errorf("%s %s: no address, and not for sure: %v", c.name, rrtype, resp)
			}
			var got []string
			for _, rr := range resp.Answer {
				got = append(got, strings.SplitN(rr.String(), "\t", 5)[4])
			}
			return strings.Join(got, " ")
		}
		if a, aaaa := get("A"), get("AAAA"); a != c.a || aaaa != c.aaaa {
			t.Errorf("%s from %v, %v: A %q, AAAA %q, want %q, %q", c.name, c.from, c.phases, a, aaaa, c.a, c.aaaa)
		}
		if record := get("HTTPS"); strings.Contains(record, "ipv6hint") != (c.hint != "") ||
			!strings.Contains(record, c.hint) || !strings.Contains(record, strings.ReplaceAll(c.a, " ", ",")) {
			t.Errorf("%s from %v, %v: HTTPS %q", c.name, c.from, c.phases, record)
		}
		if x, err := s.Explain(c.name+".example.com", c.from.Addr()); err != nil || x.IPv6 != c.why {
			t.Errorf("%s from %v, %v: explained as %q, %v", c.name, c.from, c.phases, x.IPv6, err)
		}
	}
}
