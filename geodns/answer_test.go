package geodns

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

const testZone = `
$ORIGIN example.com.
$TTL 3600
@      IN SOA ns1 hostmaster 2026112301 7200 1800 1209600 300
@      IN NS  ns1
@      IN NS  ns2
@      IN MX  10 mail
@      IN CAA 0 issue "letsencrypt.org"
ns1    IN A   198.51.100.20
       IN AAAA 2001:db8:2::20
ns2    IN A   192.0.2.30
mail   IN A   192.0.2.99
_sip._tcp IN SRV 10 5 5060 mail
*.dev  IN A   192.0.2.98
*.dev  IN MX  10 mail
x.y.dev IN TXT "its parent is an empty non-terminal"
a.b.ent IN TXT "below an empty non-terminal"
*.ent2 IN CNAME mail
b.*.star IN TXT "the wildcard is an empty non-terminal"
alias  IN CNAME alias2
alias2 600 IN CNAME mail
toedge IN CNAME www
out    IN CNAME www.example.org.
dangling IN CNAME nowhere
intocut IN CNAME host.sub
other  IN CNAME www.example.net.
loop1  IN CNAME loop2
loop2  IN CNAME loop1
www    IN TXT "an edge name with other data"
sub    IN NS ns.sub
       IN NS ns1
       IN NS ns.sib
       IN NS ns.example.org.
       IN DS 12345 8 2 0000000000000000000000000000000000000000000000000000000000000000
ns.sub IN A 192.0.2.77
deep.sub IN TXT "occluded"
sib    IN NS ns.sib
ns.sib IN A 192.0.2.78
old    IN DNAME new
host.new IN A 192.0.2.55
far    IN DNAME longer.example.org.
hinfo  IN HINFO "PDP-10" "ITS"
`

const testZone2 = `
$ORIGIN example.net.
$TTL 60
@ IN SOA ns1.example.com. hostmaster.example.com. 1 7200 1800 1209600 86400
@ IN NS ns1.example.com.
www IN A 192.0.2.66
`

// testChild is a zone whose parent zone is served too.
const testChild = `
$ORIGIN child.example.net.
$TTL 60
@ IN SOA ns1.example.com. hostmaster.example.com. 1 7200 1800 1209600 86400
@ IN NS ns1.example.com.
@ IN A 192.0.2.67
`

var (
	helsinki = Place{60.17, 24.94}
	newYork  = Place{40.71, -74.01}
	tokyo    = Place{35.68, 139.69}
)

func mustZone(t testing.TB, text, origin string) *Zone {
	t.Helper()
	z, errs := ParseZone(strings.NewReader(text), origin, "test.zone")
	for _, err := range errs {
		t.Error(err)
	}
	if z == nil {
		t.FailNow()
	}
	return z
}

func addrs(s ...string) (all []netip.Addr) {
	for _, a := range s {
		all = append(all, netip.MustParseAddr(a))
	}
	return all
}

func testConfig(t testing.TB) Config {
	return Config{
		Zones: []*Zone{
			mustZone(t, testZone, "example.com"),
			mustZone(t, testZone2, "example.net."),
			mustZone(t, testChild, "child.example.net."),
		},
		Nodes: []Node{
			{Name: "hel1", Place: helsinki, Addresses: addrs("203.0.113.10", "2001:db8:1::10")},
			{Name: "nyc1", Place: newYork, Addresses: addrs("198.51.100.20", "2001:db8:2::20")},
			{Name: "tyo1", Place: tokyo, Addresses: addrs("192.0.2.40", "192.0.2.41")},
		},
		Edges: []EdgeName{
			{Name: "www.example.com.", Nodes: []string{"hel1", "nyc1"}},
			{Name: "two.example.com", Answers: 2, TTL: 5e9},
			{Name: "example.com"},
			{Name: "one.example.com", Nodes: []string{"tyo1"}},
			{Name: "deep.edge.example.com", Nodes: []string{"nyc1", "hel1"}},
			{Name: "*.wild.example.com", Nodes: []string{"nyc1", "hel1"}},
		},
		Locate: map[netip.Prefix]Place{
			netip.MustParsePrefix("10.0.0.0/8"):    helsinki,
			netip.MustParsePrefix("10.20.0.0/16"):  newYork,
			netip.MustParsePrefix("fd00::/8"):      newYork,
			netip.MustParsePrefix("172.16.0.0/12"): tokyo,
		},
	}
}

func newServer(t testing.TB, cfg Config) *Server {
	t.Helper()
	s := new(Server)
	if err := s.Reload(cfg); err != nil {
		t.Fatal(err)
	}
	return s
}

var (
	inHelsinki = netip.MustParseAddrPort("10.1.1.1:5353")
	inNewYork  = netip.MustParseAddrPort("10.20.1.1:5353")
	inTokyo    = netip.MustParseAddrPort("172.16.1.1:5353")
	nowhere    = netip.MustParseAddrPort("192.168.1.1:5353")
)

// question returns a query for "name type" or "name type class".
func question(s string) *dns.Msg {
	f := strings.Fields(s)
	m := new(dns.Msg)
	m.Id = 4711
	m.Question = []dns.Question{{Name: f[0], Qtype: dns.StringToType[f[1]], Qclass: dns.ClassINET}}
	if len(f) > 2 {
		m.Question[0].Qclass = dns.StringToClass[f[2]]
	}
	return m
}

func mustAnswer(t testing.TB, s *Server, m *dns.Msg, from netip.AddrPort, tcp bool) *dns.Msg {
	t.Helper()
	req, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return mustAnswerRaw(t, s, req, from, tcp)
}

func mustAnswerRaw(t testing.TB, s *Server, req []byte, from netip.AddrPort, tcp bool) *dns.Msg {
	t.Helper()
	out := s.answer(req, from, tcp, nil)
	if out == nil {
		t.Fatal("no response")
	}
	resp := new(dns.Msg)
	if err := resp.Unpack(out); err != nil {
		t.Fatalf("response does not parse: %v: %x", err, out)
	}
	if !resp.Response || resp.RecursionAvailable || resp.AuthenticatedData || resp.Zero {
		t.Errorf("header is %v", resp.MsgHdr)
	}
	return resp
}

func wantRRs(t testing.TB, section string, got []dns.RR, want ...string) {
	t.Helper()
	var gotText, wantText []string
	for _, rr := range got {
		if rr.Header().Rrtype != dns.TypeOPT {
			gotText = append(gotText, rr.String())
		}
	}
	for _, s := range want {
		rr, err := dns.NewRR(s)
		if err != nil {
			t.Fatal(err)
		}
		wantText = append(wantText, rr.String())
	}
	if !slices.Equal(gotText, wantText) {
		t.Errorf("%s is\n\t%s\nwant\n\t%s", section, strings.Join(gotText, "\n\t"), strings.Join(wantText, "\n\t"))
	}
}

// FuzzAnswer sends packets to a server. Each must be answered or dropped by the rules, and no
// answer may be longer than the client accepts. There is no rate limit, so no answer depends on
// earlier packets.
func FuzzAnswer(f *testing.F) {
	cfg := testConfig(f)
	cfg.RateLimit.Responses = -1
	s := &Server{Identity: "ns1.hel"}
	if err := s.Reload(cfg); err != nil {
		f.Fatal(err)
	}
	for _, q := range []string{
		"www.example.com. A", "foo.dev.example.com. MX", "host.old.example.com. A", "sub.example.com. DS", ". ANY",
		"x.y.z. AXFR CH",
		"id.server. TXT CH", "www.example.com. HTTPS", "nowhere.mail.example.com. A",
	} {
		m := question(q)
		req, _ := m.Pack()
		f.Add(req, false)
		m = withOptions(f, q, "ecs:000118000a0102", "nsid:", "keepalive:",
			"cookie:0102030405060708010000005cf79f111f8130c3eee29480", "unknown:01")
		req, _ = m.Pack()
		f.Add(req, true)
		f.Add(req, false)
		m.Question = nil
		req, _ = m.Pack()
		f.Add(req, false)
		m = question(q)
		m.SetTsig("key.example.com.", dns.HmacSHA256, 300, 0)
		req, _ = m.Pack()
		f.Add(req, false)
	}
	f.Fuzz(func(t *testing.T, req []byte, tcp bool) {
		out := s.answer(req, inHelsinki, tcp, nil)
		if (out != nil) != (len(req) >= 12 && req[2]&0x80 == 0) {
			t.Fatalf("response is %x", out)
		}
		if out == nil {
			return
		}
		resp := new(dns.Msg)
		if err := resp.Unpack(out); err != nil {
			t.Fatalf("response does not parse: %v", err)
		}
		if !resp.Response || out[0] != req[0] || out[1] != req[1] {
			t.Errorf("header is %v", resp.MsgHdr)
		}
		// If miekg/dns can parse the query too, its view of what the client accepts is the limit.
		parsed := new(dns.Msg)
		understood := parsed.Unpack(req) == nil
		limit := 512
		switch opt := resp.IsEdns0(); {
		case tcp:
			limit = dns.MaxMsgSize
		case opt != nil && understood && parsed.IsEdns0() != nil:
			limit = min(1232, max(512, int(parsed.IsEdns0().UDPSize())))
		case opt != nil:
			limit = 1232
		}
		if len(out) > limit {
			t.Errorf("%d octets, want at most %d", len(out), limit)
		}
		if resp.Truncated && (tcp || len(resp.Answer)+len(resp.Ns) > 0) {
			t.Errorf("truncated: %v", resp)
		}
		checkOPT(t, parsed, understood, resp, tcp)
	})
}

// checkOPT checks that a response has at most one OPT record and no repeated option, and that the
// query had the same.
func checkOPT(t *testing.T, query *dns.Msg, understood bool, resp *dns.Msg, tcp bool) {
	t.Helper()
	opts := 0
	for _, rr := range resp.Extra {
		if rr.Header().Rrtype == dns.TypeOPT {
			opts++
		}
	}
	if opts > 1 || understood && opts == 1 && query.IsEdns0() == nil {
		t.Errorf("%d OPT", opts)
	}
	codes := optionCodes(resp)
	for i, code := range codes {
		if slices.Contains(codes[:i], code) || understood && !slices.Contains(optionCodes(query), code) {
			t.Errorf("options are %v, asked with %v", codes, optionCodes(query))
		}
		if code == optionKeepalive && !tcp {
			t.Error("keepalive over UDP")
		}
	}
}
