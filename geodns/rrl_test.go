package geodns

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// limitedServer returns a server with a rate limit. Its limiter uses the same buckets in every run.
func limitedServer(t testing.TB, limit RateLimit) *Server {
	t.Helper()
	cfg := testConfig(t)
	if cfg.RateLimit = limit; limit.Exempt == nil {
		cfg.RateLimit.Exempt = []netip.Prefix{}
	}
	s := &Server{Identity: "a-name-that-must-not-make-a-slip-longer"}
	if err := s.Reload(cfg); err != nil {
		t.Fatal(err)
	}
	s.limiter.k0, s.limiter.k1 = 0x9e3779b97f4a7c15, 0xbf58476d1ce4e5b9
	return s
}

// outcomes counts how queries were answered.
type outcomes struct{ sent, slipped, dropped int }

// flood sends n queries at once. A %d in the question is replaced by the number of the query.
func flood(t testing.TB, s *Server, n int, q, from string, tcp bool, options ...string) (got outcomes) {
	t.Helper()
	for i := range n {
		text := q
		if strings.Contains(q, "%d") {
			text = fmt.Sprintf(q, i)
		}
		m := withOptions(t, text, options...)
		req, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		out := s.answer(req, netip.AddrPortFrom(netip.MustParseAddr(from), 53), tcp, nil)
		resp := new(dns.Msg)
		switch {
		case out == nil:
			got.dropped++
			continue
		case resp.Unpack(out) != nil:
			t.Fatalf("response does not parse: %x", out)
		case !resp.Truncated && resp.Rcode != dns.RcodeBadCookie:
			got.sent++
			continue
		}
		got.slipped++
		if len(resp.Answer)+len(resp.Ns) > 0 || len(resp.Extra) != 1 || len(out) > len(req)+ourServerCookie ||
			len(resp.Question) != 1 {
			t.Fatalf("slipped: %v", resp)
		}
	}
	return got
}

// TestRateLimitKinds floods the server with one question, and then sends another one, perhaps from
// another address. independent means that the two share no limit.
func TestRateLimitKinds(t *testing.T) {
	const here, neighbour, elsewhere = "192.0.2.1", "192.0.2.254", "192.0.3.1"
	full, fullErrors := outcomes{200, 50, 50}, outcomes{50, 50, 50}
	for _, test := range []struct {
		name        string
		first       string
		want        outcomes
		then, from  string // sent 10 times
		independent bool
	}{
		{"a name", "mail.example.com. A", full, "mail.example.com. A", here, false},
		{"in other case", "mail.example.com. A", full, "MAIL.example.com. A", here, false},
		{"of a neighbour", "mail.example.com. A", full, "mail.example.com. A", neighbour, false},
		{"of another network", "mail.example.com. A", full, "mail.example.com. A", elsewhere, true},
		{"another name", "mail.example.com. A", full, "ns1.example.com. A", here, true},
		{"an edge name", "www.example.com. A", full, "www.example.com. AAAA", here, false},
		{"names of a wildcard", "x%d.dev.example.com. A", full, "z.dev.example.com. A", here, false},
		{"names of a wildcard, then it", "x%d.dev.example.com. A", full, "*.dev.example.com. A", here, false},
		{"edge names of a wildcard", "x%d.wild.example.com. A", full, "y.wild.example.com. A", here, false},
		{"names below a DNAME", "x%d.old.example.com. A", full, "host.old.example.com. A", here, false},
		{"a CNAME of a wildcard", "x%d.ent2.example.com. A", full, "y.ent2.example.com. A", here, false},
		{"a CNAME, then its target", "x%d.ent2.example.com. A", full, "mail.example.com. A", here, true},
		{"NXDOMAIN", "x%d.mail.example.com. A", fullErrors, "y.ns1.example.com. A", here, false},
		{"NXDOMAIN, then NODATA", "x%d.mail.example.com. A", fullErrors, "mail.example.com. MX", here, false},
		{"NXDOMAIN, then of another zone", "x%d.mail.example.com. A", fullErrors, "y.example.net. A", here, true},
		{"NXDOMAIN, then a name", "x%d.mail.example.com. A", fullErrors, "mail.example.com. A", here, true},
		{"REFUSED", "x%d.example.org. A", fullErrors, "example.info. MX", here, false},
		{"REFUSED, then NXDOMAIN", "x%d.example.org. A", fullErrors, "x.mail.example.com. A", here, true},
		{"referrals", "x%d.sub.example.com. A", full, "y.sib.example.com. A", here, false},
		{"CHAOS", "version.server. TXT CH", full, "version.bind. TXT CH", here, false},
		{"malformed type", "mail.example.com. OPT", fullErrors, "ns1.example.com. TSIG", here, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := limitedServer(t, RateLimit{Responses: 200, Errors: 50})
				if got := flood(t, s, test.want.sent+100, test.first, here, false); got != test.want {
					t.Errorf("%s: %+v, want %+v", test.first, got, test.want)
				}
				want := outcomes{slipped: 5, dropped: 5}
				if test.independent {
					want = outcomes{sent: 10}
				}
				if got := flood(t, s, 10, test.then, test.from, false); got != want {
					t.Errorf("then %s from %s: %+v, want %+v", test.then, test.from, got, want)
				}
			})
		})
	}
}

// Long responses share one limit, however many names they are about. Otherwise each name would add
// to what one victim receives. Short responses don't count, nor do those over TCP.
func TestRateLimitAmplification(t *testing.T) {
	const victim, neighbour, elsewhere = "192.0.2.1", "192.0.2.254", "192.0.3.1"
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig(t)
		var text strings.Builder
		text.WriteString("$TTL 60\n@ SOA ns1 hostmaster 1 7200 1800 1209600 300\n@ NS ns1\nns1 A 192.0.2.53\nshort A 192.0.2.54\n")
		long := strings.Repeat("x", 250)
		for i := range 100 {
			fmt.Fprintf(&text, "t%d TXT %s %s %s %s\n", i, long, long, long, long)
		}
		zone, errs := ParseZone(strings.NewReader(text.String()), "long.example.", "zone")
		if len(errs) > 0 {
			t.Fatal(errs)
		}
		cfg.Zones, cfg.Edges = []*Zone{zone}, nil
		cfg.RateLimit = RateLimit{Responses: 100, Exempt: []netip.Prefix{}}
		s := &Server{}
		if err := s.Reload(cfg); err != nil {
			t.Fatal(err)
		}
		s.limiter.k0, s.limiter.k1 = 0x9e3779b97f4a7c15, 0xbf58476d1ce4e5b9
		got := flood(t, s, 100, "t%d.long.example. TXT", victim, false)
		if got.sent < 40 || got.sent > 70 || got.slipped < 15 || got.dropped < 15 {
			t.Errorf("%+v", got)
		}
		if got := flood(t, s, 10, "t1%d.long.example. TXT", neighbour, false); got.sent > 0 {
			t.Errorf("a neighbour: %+v", got)
		}
		for what, got := range map[string]outcomes{
			"short":           flood(t, s, 90, "short.long.example. A", victim, false),
			"another network": flood(t, s, 20, "t%d.long.example. TXT", elsewhere, false),
			"TCP":             flood(t, s, 100, "t%d.long.example. TXT", victim, true),
		} {
			if got.slipped+got.dropped > 0 {
				t.Errorf("%s: %+v", what, got)
			}
		}
	})
}

// TestRateLimitConfig checks the meaning of the fields of RateLimit.
func TestRateLimitConfig(t *testing.T) {
	for _, test := range []struct {
		limit             RateLimit
		answers, negative outcomes // of 100 queries
	}{
		{RateLimit{Responses: 10, Errors: 5}, outcomes{10, 45, 45}, outcomes{5, 47, 48}},
		{RateLimit{Responses: 10, Errors: 5, Slip: 1}, outcomes{10, 90, 0}, outcomes{5, 95, 0}},
		{RateLimit{Responses: 10, Errors: 10, Slip: 9}, outcomes{10, 10, 80}, outcomes{10, 10, 80}},
		{RateLimit{Responses: 10, Errors: 10, Slip: -1}, outcomes{10, 0, 90}, outcomes{10, 0, 90}},
		{RateLimit{Responses: -1, Errors: 5}, outcomes{sent: 100}, outcomes{sent: 100}},
		{RateLimit{Responses: 1, Errors: -1}, outcomes{1, 49, 50}, outcomes{sent: 100}},
		{RateLimit{Responses: 1e6, Errors: 1e6, Slip: 255}, outcomes{sent: 100}, outcomes{sent: 100}},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := limitedServer(t, test.limit)
			if got := flood(t, s, 100, "mail.example.com. A", "192.0.2.1", false); got != test.answers {
				t.Errorf("%+v: answers are %+v, want %+v", test.limit, got, test.answers)
			}
			if got := flood(t, s, 100, "x%d.mail.example.com. A", "192.0.2.1", false); got != test.negative {
				t.Errorf("%+v: negative answers are %+v, want %+v", test.limit, got, test.negative)
			}
		})
	}
	for _, limit := range []RateLimit{{Responses: 1e6 + 1}, {Errors: 1e6 + 1}, {Slip: 256}} {
		cfg := testConfig(t)
		cfg.RateLimit = limit
		if err := new(Server).Reload(cfg); err == nil {
			t.Errorf("%+v is taken", limit)
		}
	}
}

// TestRateLimitTime floods for 5 s. The server sends one second's worth of responses, and then
// responses at the configured rate.
func TestRateLimitTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := limitedServer(t, RateLimit{Responses: 100})
		sent := 0
		for range 500 {
			sent += flood(t, s, 4, "mail.example.com. A", "192.0.2.1", false).sent
			time.Sleep(10 * time.Millisecond)
		}
		if sent != 100+499 {
			t.Errorf("%d responses in 5s", sent)
		}
		// A bucket never holds more than one second's worth. A new rate takes effect.
		time.Sleep(time.Hour)
		if got := flood(t, s, 200, "mail.example.com. A", "192.0.2.1", false).sent; got != 100 {
			t.Errorf("%d responses after an hour", got)
		}
		cfg := testConfig(t)
		cfg.RateLimit.Responses = 10
		if err := s.Reload(cfg); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if got := flood(t, s, 200, "mail.example.com. A", "192.0.2.1", false).sent; got != 10 {
			t.Errorf("%d responses after a reload", got)
		}
	})
}

// TestRateLimitClients checks which addresses count as one client, and which clients are exempt.
func TestRateLimitClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := limitedServer(t, RateLimit{Responses: 10})
		flooded := func(want outcomes, from string, tcp bool, options ...string) {
			t.Helper()
			if got := flood(t, s, 10, "mail.example.com. A", from, tcp, options...); got != want {
				t.Errorf("from %s with %v: %+v, want %+v", from, options, got, want)
			}
		}
		all, none := outcomes{sent: 10}, outcomes{slipped: 5, dropped: 5}
		flooded(all, "2001:db8:0:aa00::1", false)
		flooded(none, "2001:db8:0:aaff:1::1", false) // in the same /56
		flooded(all, "2001:db8:0:ab00::1", false)
		flooded(all, "127.0.0.1", false)
		flooded(none, "127.0.0.1", false) // loopback is not exempt here
		flooded(all, "192.0.2.1", false)
		flooded(none, "::ffff:192.0.2.1", false) // as seen by a dual-stack socket

		// The client subnet makes no difference. Whoever forges the source address could choose the
		// subnet too.
		for i := range 10 {
			flooded(none, "192.0.2.1", false, fmt.Sprintf("ecs:000118000a01%02x", i))
		}
		flooded(all, "192.0.2.1", true)
		flooded(none, "192.0.2.1", false, "nsid:")
		flooded(none, "192.0.2.1", false, "cookie:0102030405060708")

		good, _ := s.cookies.reply(unhex(t, "0102030405060708"), netip.MustParseAddr("192.0.2.1"), time.Now())
		flooded(all, "192.0.2.1", false, "cookie:"+hex.EncodeToString(good[:]))
		// This cookie was made for another address.
		flooded(none, "192.0.2.2", false, "cookie:"+hex.EncodeToString(good[:]))
	})
}

// TestRateLimitCookie checks that a client over the limit gets BADCOOKIE with a cookie, and answers
// when it sends that.
func TestRateLimitCookie(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := limitedServer(t, RateLimit{Responses: 1, Slip: 1})
		resp := mustAnswer(t, s, question("mail.example.com. A"), nowhere, false)
		wantRRs(t, "answer", resp.Answer, mail...)
		resp = mustAnswer(t, s, question("mail.example.com. A"), nowhere, false)
		if !resp.Truncated || resp.Rcode != dns.RcodeSuccess || !resp.Authoritative || len(resp.Answer)+
			len(resp.Extra) > 0 {
			t.Errorf("response is %v", resp)
		}
		resp = mustAnswer(t, s, withOptions(t, "mail.example.com. A", "cookie:0102030405060708"), nowhere, false)
		if resp.Rcode != dns.RcodeBadCookie || resp.Truncated || len(resp.Answer) > 0 {
			t.Errorf("response is %v", resp)
		}
		for range 10 {
			resp = mustAnswer(t, s, withOptions(t, "mail.example.com. A", "cookie:"+
				hex.EncodeToString(cookieOf(t, resp))), nowhere, false)
			wantRRs(t, "answer", resp.Answer, mail...)
		}
	})
}

func TestRateLimitMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewRegistry()
		s := &Server{Registerer: reg}
		cfg := testConfig(t)
		cfg.RateLimit = RateLimit{Responses: 10, Slip: 5, Exempt: []netip.Prefix{}}
		if err := s.Reload(cfg); err != nil {
			t.Fatal(err)
		}
		flood(t, s, 110, "www.example.com. A", "10.1.1.1", false)
		want := `
# HELP kaiku_dns_answered_total Answers for edge names that a node was in.
# TYPE kaiku_dns_answered_total counter
kaiku_dns_answered_total{node="hel1"} 10
# HELP kaiku_dns_queries_total DNS queries answered.
# TYPE kaiku_dns_queries_total counter
kaiku_dns_queries_total{rcode="NOERROR",transport="udp",type="A"} 30
# HELP kaiku_dns_rate_limited_total Responses over UDP that were over the rate limit.
# TYPE kaiku_dns_rate_limited_total counter
kaiku_dns_rate_limited_total{action="dropped"} 80
kaiku_dns_rate_limited_total{action="slipped"} 20
`
		if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "kaiku_dns_rate_limited_total",
			"kaiku_dns_queries_total", "kaiku_dns_answered_total"); err != nil {
			t.Error(err)
		}
	})
}

// TestRateLimitConcurrent takes from one bucket in several goroutines. In total they get no more
// than one would.
func TestRateLimitConcurrent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, r := newLimiter(), RateLimit{Responses: 1000, Slip: 4}.rates()
		var counts [3]atomic.Int64
		var done sync.WaitGroup
		for range 8 {
			done.Go(func() {
				for range 1000 {
					counts[l.take(l.now(), r, positive, "x", netip.MustParseAddr("192.0.2.1"))].Add(1)
				}
			})
		}
		done.Wait()
		if counts[send].Load() != 1000 || counts[slip].Load() != 1750 || counts[drop].Load() != 5250 {
			t.Errorf("sent %d, slipped %d, dropped %d", counts[send].Load(), counts[slip].Load(), counts[drop].Load())
		}
	})
}

// TestRateLimitMemory sends a query from each of a million networks. The table must not grow, and
// no network may be limited because of the others.
func TestRateLimitMemory(t *testing.T) {
	l, r := newLimiter(), RateLimit{Responses: 200, Errors: 50}.rates()
	addr := [4]byte{10}
	refused := 0
	flood := func() {
		for i := range 1 << 20 {
			addr[1], addr[2] = byte(i>>8), byte(i)
			addr[0] = byte(i >> 16)
			if l.take(l.now(), r, positive, "www", netip.AddrFrom4(addr)) != send {
				refused++
			}
		}
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	flood()
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 1<<16 {
		t.Errorf("%d octets", grown)
	}
	if refused > 0 {
		t.Errorf("%d of a million networks' first query is refused", refused)
	}
	if n := testing.AllocsPerRun(100, func() { l.take(l.now(), r, positive, "www", netip.AddrFrom4(addr)) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestRateLimitSocket floods over the network.
func TestRateLimitSocket(t *testing.T) {
	s := new(Server)
	cfg := testConfig(t)
	cfg.RateLimit = RateLimit{Responses: 1, Slip: 1, Exempt: []netip.Prefix{}}
	serve(t, s, cfg)
	slipped := 0
	for range 20 {
		if exchange(t, "udp", s.LocalAddr().String(), "mail.example.com. A").Truncated {
			slipped++
		}
		wantRRs(t, "TCP", exchange(t, "tcp", s.LocalAddr().String(), "mail.example.com. A").Answer, mail...)
	}
	if slipped == 0 {
		t.Error("nothing was limited")
	}
}

func BenchmarkRateLimit(b *testing.B) {
	l, r := newLimiter(), RateLimit{Responses: 200, Errors: 50}.rates()
	for _, c := range []struct {
		name string
		mask uint32
	}{{"one network", 0}, {"many networks", 1<<24 - 1}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				now := l.now()
				for i := uint32(1); pb.Next(); i++ {
					if i%8 == 0 {
						now = l.now() // as in a small batch
					}
					n := i * 2654435761 & c.mask
					l.take(now, r, positive, "\x03www\x07example\x03com\x00",
						netip.AddrFrom4([4]byte{byte(n >> 16), byte(n >> 8), byte(n), 1}))
				}
			})
		})
	}
}

// By default, clients in loopback and private networks are exempt.
func TestRateLimitExempt(t *testing.T) {
	for limit, want := range map[string]map[string]bool{
		"by default": {"127.0.0.1": true, "10.1.2.3": true, "192.168.7.7": true, "fd00::1": true, "192.0.2.1": false,
			"2001:db8::1": false},
		"of none":     {"127.0.0.1": false, "10.1.2.3": false, "192.0.2.1": false},
		"of a friend": {"127.0.0.1": false, "192.0.2.1": true},
	} {
		exempt := map[string][]netip.Prefix{"of none": {},
			"of a friend": {netip.MustParsePrefix("192.0.2.0/24")}}[limit]
		r := RateLimit{Exempt: exempt}.rates()
		for client, is := range want {
			if r.exempts(netip.MustParseAddr(client)) != is {
				t.Errorf("%s: %s is exempt: %v", limit, client, !is)
			}
		}
	}
}
