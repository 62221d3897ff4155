package geodns

import (
	"testing"

	"github.com/miekg/dns"
)

// A response has each RRset once, however often a chain of aliases leads to it (RFC 2181 section
// 5).
func TestEachRRsetIsInAnAnswerOnce(t *testing.T) {
	cfg := testConfig(t)
	cfg.Zones = append(cfg.Zones, mustZone(t, `
$ORIGIN loops.test.
$TTL 60
@     IN SOA ns1.example.com. h 1 2 3 4 5
@     IN NS ns1.example.com.
grow  IN DNAME grow.grow
one   IN DNAME two
two   IN DNAME one
up    IN DNAME @
twice IN CNAME a.b.twist
twist IN DNAME t
b.t   IN DNAME twist
*.w   IN CNAME x.w
`, "loops.test"))
	s := new(Server)
	serve(t, s, cfg)
	for q, dnames := range map[string]int{
		"x.grow.loops.test. A":     1,
		"x.one.loops.test. A":      2,
		"x.one.loops.test. CNAME":  1,
		"up.up.loops.test. DNAME":  1,
		"UP.uP.loops.test. DNAME":  1,
		"a.up.up.up.loops.test. A": 1,
		"twice.loops.test. A":      2,
		"y.w.loops.test. A":        0,
	} {
		for _, network := range []string{"udp", "tcp"} {
			resp := exchange(t, network, s.LocalAddr().String(), q)
			seen := make(map[string]int)
			got := 0
			for _, rr := range resp.Answer {
				seen[dns.CanonicalName(rr.Header().Name)+dns.TypeToString[rr.Header().Rrtype]]++
				if rr.Header().Rrtype == dns.TypeDNAME {
					got++
				}
			}
			for key, n := range seen {
				if n > 1 {
					t.Errorf("%s over %s has %s %d times: %v", q, network, key, n, resp)
				}
			}
			if got != dnames && !resp.Truncated {
				t.Errorf("%s over %s has %d DNAME records, want %d: %v", q, network, got, dnames, resp)
			}
		}
	}
}

// A node that is taken out is in no answer. It is back with the next configuration.
func TestNodeTakenOutIsNotAnswered(t *testing.T) {
	cfg := testConfig(t)
	cfg.Nodes[0].Out = true
	cfg.Nodes[0].ALPN, cfg.Nodes[1].ALPN = []string{"h2"}, []string{"h2"}
	s := new(Server)
	serve(t, s, cfg)
	for q, want := range map[string]string{
		"www.example.com. A":     "www.example.com. 30 IN A 198.51.100.20",
		"www.example.com. AAAA":  "www.example.com. 30 IN AAAA 2001:db8:2::20",
		"www.example.com. HTTPS": `www.example.com. 30 IN HTTPS 1 . alpn="h2" ipv4hint="198.51.100.20" ipv6hint="2001:db8:2::20"`,
	} {
		for range 3 {
			wantRRs(t, q, exchange(t, "udp", s.LocalAddr().String(), q).Answer, want)
		}
	}
	back := testConfig(t)
	if err := s.Reload(back); err != nil {
		t.Fatal(err)
	}
	wantRRs(t, "back", exchange(t, "udp", s.LocalAddr().String(), "www.example.com. A").Answer,
		"www.example.com. 30 IN A 203.0.113.10")
	nothing := testConfig(t)
	nothing.Nodes[0].Out, nothing.Nodes[1].Out = true, true
	if err := s.Reload(nothing); err == nil {
		t.Error("an edge name with nothing to answer is taken")
	}
}
