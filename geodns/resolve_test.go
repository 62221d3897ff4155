package geodns

import (
	"strings"
	"testing"

	"github.com/miekg/dns"
)

const (
	soaCom = "example.com. 300 IN SOA ns1.example.com. hostmaster.example.com. 2026112301 7200 1800 1209600 300"
	soaNet = "example.net. 60 IN SOA ns1.example.com. hostmaster.example.com. 1 7200 1800 1209600 86400"
)

var (
	ns1   = []string{"ns1.example.com. 3600 IN A 198.51.100.20", "ns1.example.com. 3600 IN AAAA 2001:db8:2::20"}
	mail  = []string{"mail.example.com. 3600 IN A 192.0.2.99"}
	subNS = []string{"sub.example.com. 3600 IN NS ns.sub.example.com.", "sub.example.com. 3600 IN NS ns1.example.com.",
		"sub.example.com. 3600 IN NS ns.sib.example.com.", "sub.example.com. 3600 IN NS ns.example.org."}
	subAdd = []string{"ns.sub.example.com. 3600 IN A 192.0.2.77", ns1[0], ns1[1],
		"ns.sib.example.com. 3600 IN A 192.0.2.78"}
)

// resolved are queries from Helsinki to testConfig, and the responses.
var resolved = []struct {
	query  string
	rcode  int
	noAA   bool
	answer []string
	ns     []string
	extra  []string
}{
	{query: "mail.example.com. A", answer: mail},
	{query: "mail.example.com. AAAA", ns: []string{soaCom}},
	{query: "nowhere.example.com. A", rcode: dns.RcodeNameError, ns: []string{soaCom}},
	{query: "x.mail.example.com. A", rcode: dns.RcodeNameError, ns: []string{soaCom}},
	{query: "example.com. SOA", answer: []string{strings.Replace(soaCom, " 300", " 3600", 1)}},
	{
		query:  "example.com. NS",
		answer: []string{"example.com. 3600 IN NS ns1.example.com.", "example.com. 3600 IN NS ns2.example.com."},
		extra:  append(ns1[:2:2], "ns2.example.com. 3600 IN A 192.0.2.30"),
	},
	{query: "example.com. MX", answer: []string{"example.com. 3600 IN MX 10 mail.example.com."}, extra: mail},
	{
		query:  "_sip._tcp.example.com. SRV",
		answer: []string{"_sip._tcp.example.com. 3600 IN SRV 10 5 5060 mail.example.com."}, extra: mail,
	},

	// Empty non-terminals (RFC 8020) and wildcards (RFC 4592).
	{query: "b.ent.example.com. A", ns: []string{soaCom}},
	{query: "ent.example.com. ANY", ns: []string{soaCom}},
	{query: "_tcp.example.com. SRV", ns: []string{soaCom}},
	{query: "foo.dev.example.com. A", answer: []string{"foo.dev.example.com. 3600 IN A 192.0.2.98"}},
	{query: "foo.bar.dev.example.com. A", answer: []string{"foo.bar.dev.example.com. 3600 IN A 192.0.2.98"}},
	{query: "*.dev.example.com. A", answer: []string{"*.dev.example.com. 3600 IN A 192.0.2.98"}},
	{query: "dev.example.com. A", ns: []string{soaCom}},
	{query: "foo.dev.example.com. TXT", ns: []string{soaCom}},
	{query: "y.dev.example.com. A", ns: []string{soaCom}},
	{query: "z.y.dev.example.com. A", rcode: dns.RcodeNameError, ns: []string{soaCom}},
	{query: "foo.dev.example.com. MX", answer: []string{"foo.dev.example.com. 3600 IN MX 10 mail.example.com."},
		extra: mail},
	{query: "foo.ent2.example.com. A", answer: []string{"foo.ent2.example.com. 3600 IN CNAME mail.example.com.",
		mail[0]}},
	{query: "foo.star.example.com. TXT", ns: []string{soaCom}},
	{query: "b.foo.star.example.com. TXT", ns: []string{soaCom}},

	// Aliases.
	{
		query: "alias.example.com. A",
		answer: []string{"alias.example.com. 3600 IN CNAME alias2.example.com.",
			"alias2.example.com. 600 IN CNAME mail.example.com.", mail[0]},
	},
	{query: "alias.example.com. CNAME", answer: []string{"alias.example.com. 3600 IN CNAME alias2.example.com."}},
	{query: "alias2.example.com. TXT", answer: []string{"alias2.example.com. 600 IN CNAME mail.example.com."},
		ns: []string{soaCom}},
	{query: "out.example.com. A", answer: []string{"out.example.com. 3600 IN CNAME www.example.org."}},
	{
		query: "dangling.example.com. A", rcode: dns.RcodeNameError,
		answer: []string{"dangling.example.com. 3600 IN CNAME nowhere.example.com."}, ns: []string{soaCom},
	},
	{
		query: "other.example.com. A",
		answer: []string{"other.example.com. 3600 IN CNAME www.example.net.",
			"www.example.net. 60 IN A 192.0.2.66"},
	},
	{
		query:  "other.example.com. AAAA",
		answer: []string{"other.example.com. 3600 IN CNAME www.example.net."}, ns: []string{soaNet},
	},
	{
		query: "loop1.example.com. A",
		answer: []string{"loop1.example.com. 3600 IN CNAME loop2.example.com.",
			"loop2.example.com. 3600 IN CNAME loop1.example.com."},
	},
	{
		query:  "intocut.example.com. A",
		answer: []string{"intocut.example.com. 3600 IN CNAME host.sub.example.com."}, ns: subNS, extra: subAdd,
	},

	// Delegations and DS.
	{query: "sub.example.com. A", noAA: true, ns: subNS, extra: subAdd},
	{query: "sub.example.com. NS", noAA: true, ns: subNS, extra: subAdd},
	{query: "deep.sub.example.com. TXT", noAA: true, ns: subNS, extra: subAdd},
	{query: "ns.sub.example.com. A", noAA: true, ns: subNS, extra: subAdd},
	{query: "x.sub.example.com. DS", noAA: true, ns: subNS, extra: subAdd},
	{query: "sub.example.com. DS",
		answer: []string{"sub.example.com. 3600 IN DS 12345 8 2 0000000000000000000000000000000000000000000000000000000000000000"}},
	{query: "sib.example.com. DS", ns: []string{soaCom}},
	{query: "child.example.net. A", answer: []string{"child.example.net. 60 IN A 192.0.2.67"}},
	// The parent zone lacks the child's NS records.
	{query: "child.example.net. DS", rcode: dns.RcodeNameError, ns: []string{soaNet}},
	{query: "example.net. DS", ns: []string{soaNet}},

	// DNAME (RFC 6672).
	{
		query: "host.old.example.com. A",
		answer: []string{"old.example.com. 3600 IN DNAME new.example.com.",
			"host.old.example.com. 3600 IN CNAME host.new.example.com.",
			"host.new.example.com. 3600 IN A 192.0.2.55"},
	},
	{
		query: "host.old.example.com. CNAME",
		answer: []string{"old.example.com. 3600 IN DNAME new.example.com.",
			"host.old.example.com. 3600 IN CNAME host.new.example.com."},
	},
	{
		query: "x.host.old.example.com. A", rcode: dns.RcodeNameError, ns: []string{soaCom},
		answer: []string{"old.example.com. 3600 IN DNAME new.example.com.",
			"x.host.old.example.com. 3600 IN CNAME x.host.new.example.com."},
	},
	{
		query: "a.far.example.com. A",
		answer: []string{"far.example.com. 3600 IN DNAME longer.example.org.",
			"a.far.example.com. 3600 IN CNAME a.longer.example.org."},
	},
	{query: "old.example.com. DNAME", answer: []string{"old.example.com. 3600 IN DNAME new.example.com."}},
	{query: "old.example.com. A", ns: []string{soaCom}},
	{
		query:  "1234567." + strings.Repeat("123456789.", 23) + "far.example.com. A",
		rcode:  dns.RcodeYXDomain,
		answer: []string{"far.example.com. 3600 IN DNAME longer.example.org."},
	},

	// ANY (RFC 8482).
	{query: "mail.example.com. ANY", answer: []string{`mail.example.com. 3600 IN HINFO "RFC8482" ""`}},
	{query: "one.example.com. ANY", answer: []string{`one.example.com. 3600 IN HINFO "RFC8482" ""`}},
	{query: "hinfo.example.com. ANY", answer: []string{`hinfo.example.com. 3600 IN HINFO "PDP-10" "ITS"`}},
	{query: "alias.example.com. ANY", answer: []string{"alias.example.com. 3600 IN CNAME alias2.example.com."}},
	{query: "nowhere.example.com. ANY", rcode: dns.RcodeNameError, ns: []string{soaCom}},

	// Refused or not possible.
	{query: "example.org. A", rcode: dns.RcodeRefused, noAA: true},
	{query: ". NS", rcode: dns.RcodeRefused, noAA: true},
	{query: "com. NS", rcode: dns.RcodeRefused, noAA: true},
	{query: "notexample.com. A", rcode: dns.RcodeRefused, noAA: true},
	{query: "example.com. AXFR", rcode: dns.RcodeRefused, noAA: true},
	{query: "example.com. IXFR", rcode: dns.RcodeRefused, noAA: true},
	{query: "authors.bind. TXT CH", rcode: dns.RcodeRefused, noAA: true},
	{query: "mail.example.com. A ANY", rcode: dns.RcodeRefused, noAA: true},
	{query: "mail.example.com. OPT", rcode: dns.RcodeFormatError, noAA: true},
	{query: "mail.example.com. MAILA", rcode: dns.RcodeNotImplemented, noAA: true},

	// Edge names.
	{query: "www.example.com. A", answer: []string{"www.example.com. 30 IN A 203.0.113.10"}},
	{query: "www.example.com. AAAA", answer: []string{"www.example.com. 30 IN AAAA 2001:db8:1::10"}},
	{query: "www.example.com. TXT",
		answer: []string{`www.example.com. 3600 IN TXT "an edge name with other data"`}},
	{query: "www.example.com. MX", ns: []string{soaCom}},
	{query: "x.www.example.com. A", rcode: dns.RcodeNameError, ns: []string{soaCom}},
	{query: "example.com. A", answer: []string{"example.com. 30 IN A 203.0.113.10"}},
	{query: "two.example.com. A", answer: []string{"two.example.com. 5 IN A 203.0.113.10",
		"two.example.com. 5 IN A 198.51.100.20"}},
	{query: "one.example.com. A", answer: []string{"one.example.com. 30 IN A 192.0.2.40",
		"one.example.com. 30 IN A 192.0.2.41"}},
	{query: "one.example.com. AAAA", ns: []string{soaCom}},
	{query: "edge.example.com. A", ns: []string{soaCom}},
	{query: "deep.edge.example.com. A", answer: []string{"deep.edge.example.com. 30 IN A 203.0.113.10"}},
	{query: "x.wild.example.com. A", answer: []string{"x.wild.example.com. 30 IN A 203.0.113.10"}},
	{query: "wild.example.com. A", ns: []string{soaCom}},
	{
		query: "toedge.example.com. A",
		answer: []string{"toedge.example.com. 3600 IN CNAME www.example.com.",
			"www.example.com. 30 IN A 203.0.113.10"},
	},
}

func TestResolve(t *testing.T) {
	s := newServer(t, testConfig(t))
	for _, test := range resolved {
		t.Run(test.query, func(t *testing.T) {
			resp := mustAnswer(t, s, question(test.query), inHelsinki, true)
			if resp.Rcode != test.rcode || resp.Authoritative == test.noAA || resp.Truncated || resp.Id != 4711 {
				t.Errorf("header is %v, want rcode %s, aa %v", resp.MsgHdr, dns.RcodeToString[test.rcode], !test.noAA)
			}
			wantRRs(t, "answer", resp.Answer, test.answer...)
			wantRRs(t, "authority", resp.Ns, test.ns...)
			wantRRs(t, "additional", resp.Extra, test.extra...)
		})
	}
}
