package geodns

import (
	"fmt"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

func TestResponseLimit(t *testing.T) {
	var zone strings.Builder
	zone.WriteString(testZone)
	for i := range 40 {
		fmt.Fprintf(&zone, "many IN A 192.0.2.%d\n", i)
		fmt.Fprintf(&zone, "mx IN MX 10 host-with-a-long-name-%d\n", i%10)
		fmt.Fprintf(&zone, "host-with-a-long-name-%d IN AAAA 2001:db8::%d\n", i%10, i+1)
		fmt.Fprintf(&zone, "cut IN NS a-name-server-%d.cut\na-name-server-%d.cut IN AAAA 2001:db8::%d\n", i%12, i%12,
			i+1)
		fmt.Fprintf(&zone, "huge IN TXT %s\n", strings.Repeat(fmt.Sprintf("%0255d ", i), 5))
	}
	cfg := testConfig(t)
	cfg.Zones[0] = mustZone(t, zone.String(), "example.com")
	s := newServer(t, cfg)
	for _, test := range []struct {
		query   string
		size    int // 0 means no EDNS
		tcp     bool
		tc      bool
		answers int
	}{
		{query: "many.example.com. A", tc: true},
		{query: "many.example.com. A", size: 256, tc: true}, // counts as 512
		{query: "many.example.com. A", size: 600, tc: true},
		{query: "many.example.com. A", size: 1232, answers: 40},
		{query: "many.example.com. A", size: 65535, answers: 40},
		{query: "many.example.com. A", tcp: true, answers: 40},
		{query: "mx.example.com. MX", answers: 10}, // no additional records, and no TC
		{query: "mx.example.com. MX", size: 1232, answers: 10},
		{query: "x.cut.example.com. A", tc: true}, // required glue is never left out (RFC 9471)
		{query: "x.cut.example.com. A", tcp: true},
		{query: "huge.example.com. TXT", size: 65535, tc: true},
		{query: "huge.example.com. TXT", tcp: true, answers: 40},
	} {
		t.Run(fmt.Sprint(test.query, test.size, test.tcp), func(t *testing.T) {
			m := question(test.query)
			if test.size > 0 {
				m.SetEdns0(uint16(test.size), false)
			}
			req, _ := m.Pack()
			limit := max(512, min(test.size, 1232))
			if test.tcp {
				limit = 65535
			}
			if out := s.answer(req, nowhere, test.tcp, nil); len(out) > limit {
				t.Errorf("response has %d octets, want at most %d", len(out), limit)
			}
			resp := mustAnswerRaw(t, s, req, nowhere, test.tcp)
			if resp.Truncated != test.tc || resp.Rcode != dns.RcodeSuccess || len(resp.Answer) != test.answers {
				t.Errorf("tc %v with %d answers, want %v, %d", resp.Truncated, len(resp.Answer), test.tc, test.answers)
			}
			if test.tc && len(resp.Ns) > 0 {
				t.Errorf("truncated, with authority %v", resp.Ns)
			}
		})
	}
}

// TestResponseWholeRRsets sends queries with every UDP size up to 1500. A response is never longer
// than the size allows or than 1232 octets. It has each RRset whole or not at all (RFC 2181 section
// 9).
func TestResponseWholeRRsets(t *testing.T) {
	var zone strings.Builder
	zone.WriteString(testZone)
	for i := range 12 {
		fmt.Fprintf(&zone, "mx IN MX 10 host-%d\n", i)
		for j := range 4 {
			fmt.Fprintf(&zone, "host-%d IN AAAA 2001:db8::%d:%d\nhost-%d IN A 192.0.2.%d\n", i, i, j, i, 10*i+j)
		}
		fmt.Fprintf(&zone, "cut IN NS ns-%d.cut\nns-%d.cut IN AAAA 2001:db8::%d\n", i, i, i+1)
	}
	cfg := testConfig(t)
	cfg.Zones[0] = mustZone(t, zone.String(), "example.com")
	cfg.RateLimit.Responses = -1
	s := newServer(t, cfg)
	for _, q := range []string{"mx.example.com. MX", "x.cut.example.com. A", "host-1.example.com. A"} {
		whole := rrsets(mustAnswer(t, s, question(q), nowhere, true))
		seen := make(map[string]bool)
		for size := range 1500 {
			m := question(q)
			if size > 0 {
				m.SetEdns0(uint16(size), false)
			}
			req, err := m.Pack()
			if err != nil {
				t.Fatal(err)
			}
			out := s.answer(req, nowhere, false, nil)
			if limit := min(max(size, 512), 1232); len(out) > limit {
				t.Fatalf("%s: %d octets for a client that takes %d", q, len(out), size)
			}
			resp := mustAnswerRaw(t, s, req, nowhere, false)
			for key, n := range rrsets(resp) {
				if n != whole[key] {
					t.Fatalf("%s with size %d: %d records of %s, want %d", q, size, n, key, whole[key])
				}
			}
			if resp.Truncated != (len(resp.Answer)+len(resp.Ns) == 0) {
				t.Fatalf("%s with size %d: TC is %v: %v", q, size, resp.Truncated, resp)
			}
			seen[fmt.Sprint(resp.Truncated, len(rrsets(resp)))] = true
		}
		if strings.Contains(q, "mx") && len(seen) < 5 || strings.Contains(q, "cut") && len(seen) < 2 {
			t.Errorf("%s: the sizes make no difference: %v", q, seen)
		}
	}
}

// rrsets counts the records of each RRset in a message.
func rrsets(m *dns.Msg) map[string]int {
	sets := make(map[string]int)
	for _, section := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
		for _, rr := range section {
			if h := rr.Header(); h.Rrtype != dns.TypeOPT {
				sets[h.Name+dns.TypeToString[h.Rrtype]]++
			}
		}
	}
	return sets
}
