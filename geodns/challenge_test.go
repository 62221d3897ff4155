package geodns

import (
	"bytes"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// challengeConfig returns testConfig with a wildcard edge name, and with a zone whose apex is the
// name of a challenge.
func challengeConfig(t testing.TB) Config {
	cfg := testConfig(t)
	cfg.RateLimit.Responses = -1
	static := `
_acme-challenge.static IN TXT "one of the zone"
_acme-challenge.static IN TXT "b"
_acme-challenge.cname 60 IN CNAME x.acme.example.net.
`
	cfg.Zones[0] = mustZone(t, testZone+static, "example.com")
	cfg.Zones = append(cfg.Zones, mustZone(t, strings.ReplaceAll(testChild, "$ORIGIN child",
		"$ORIGIN _acme-challenge.apex"), "_acme-challenge.apex.example.net"),
		mustZone(t, strings.ReplaceAll(testChild, "$ORIGIN child.example.net", "$ORIGIN star.example.org"),
			"star.example.org"))
	cfg.Edges = append(cfg.Edges, EdgeName{Name: "*.star.example.org", Nodes: []string{"hel1", "nyc1"}})
	return cfg
}

const (
	soaStar = "star.example.org. 60 IN SOA ns1.example.com. hostmaster.example.com. 1 7200 1800 1209600 86400"
	soaApex = "_acme-challenge.apex.example.net. 60 IN SOA ns1.example.com. hostmaster.example.com. 1 7200 1800 1209600 86400"
)

var someChallenges = map[string][]string{
	"_acme-challenge.www.example.com":        {"a"},      // below an edge name
	"www.example.com":                        {"e"},      // an edge name that has TXT records too
	"two.example.com":                        {"t"},      // an edge name without other records
	"_ACME-Challenge.Example.COM.":           {"z", "y"}, // upper case, a final dot
	"_acme-challenge.static.example.com":     {"a", "b"}, // beside TXT records of the zone
	"_acme-challenge.cname.example.com":      {"c"},      // beside a CNAME
	"x.acme.example.net":                     {"followed"},
	"_acme-challenge.new.example.com":        {"n"}, // where nothing exists
	"_acme-challenge.site.star.example.org":  {"s"}, // below a name that a wildcard answers for
	"_acme-challenge.star.example.org":       {"w"},
	"_acme-challenge.foo.dev.example.com":    {"d"}, // below a name that a static wildcard answers for
	"_acme-challenge.foo.ent2.example.com":   {"d"}, // the same, and the wildcard has a CNAME
	"q._acme-challenge.new.example.com":      {"q"}, // below another challenge
	"_acme-challenge.apex.example.net":       {"p"}, // an apex
	"_acme-challenge.sub.example.com":        {"delegated"},
	"_acme-challenge.old.example.com":        {"redirected"},
	"_acme-challenge.elsewhere.org":          {"not ours"},
	"*.dev.example.com":                      {"a wildcard"},
	"a..b.example.com":                       {"malformed"},
	strings.Repeat("a", 64) + ".example.com": {"malformed"},
	"empty.example.com":                      {"", strings.Repeat("x", 256)},
}

func TestChallenges(t *testing.T) {
	cfg := challengeConfig(t)
	before, after := newServer(t, cfg), newServer(t, cfg)
	var log bytes.Buffer
	after.Log = slog.New(slog.NewTextHandler(&log, nil))
	before.SetChallenges(nil)
	after.SetChallenges(someChallenges)
	if !strings.Contains(log.String(), "count=5") {
		t.Errorf("log says %s", log.String())
	}
	for name, set := range map[string]func() *Server{
		"set": func() *Server { return after },
		"kept by Reload": func() *Server {
			if err := after.Reload(cfg); err != nil {
				t.Fatal(err)
			}
			return after
		},
		"before the first Reload": func() *Server {
			s := &Server{Log: slog.New(slog.DiscardHandler)}
			s.SetChallenges(someChallenges)
			if err := s.Reload(cfg); err != nil {
				t.Fatal(err)
			}
			return s
		},
	} {
		t.Run(name, func(t *testing.T) { testChallenges(t, set()) })
	}

	// Answers that don't concern a challenge are the same as without challenges.
	all := slices.Clone(workerQuestions)
	for _, q := range []string{"site.star A", "site.star HTTPS", "site.star TXT", "site.star ANY", "x.site.star A",
		"y.x.site.star A", "star A", "star TXT"} {
		all = append(all, strings.Replace(q, " ", ".example.org. ", 1))
	}
	for _, q := range []string{"foo.dev A", "foo.dev MX", "foo.dev TXT", "x.foo.dev A", "dev A", "foo.ent2 A",
		"x.foo.ent2 CNAME", "sub TXT", "_acme-challenge.sub TXT", "x.far TXT",
		"empty A", "*.dev TXT", "nowhere TXT", "two AAAA", "www HTTPS", "x.www A"} {
		all = append(all, strings.Replace(q, " ", ".example.com. ", 1))
	}
	for _, q := range all {
		for _, subnet := range []string{"", "10.20.30.0/24"} {
			req := packet(t, q, subnet)
			if got, want := freshAnswer(after, req, inTokyo, true),
				freshAnswer(before, req, inTokyo, true); !bytes.Equal(got, want) {
				t.Errorf("%s for %q is %x, without challenges %x", q, subnet, got, want)
			}
		}
	}

	// When the challenges are removed, all answers are as before.
	after.SetChallenges(nil)
	for owner := range someChallenges {
		if _, err := nameOf(owner); err != nil {
			continue
		}
		m := question("x. TXT")
		m.Question[0].Name = dns.Fqdn(owner)
		req, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		if got, want := freshAnswer(after, req, inTokyo, true),
			freshAnswer(before, req, inTokyo, true); !bytes.Equal(got, want) {
			t.Errorf("%s is %x after all challenges are gone, before %x", owner, got, want)
		}
	}
	if after.current.Load().zones["\x07example\x03com\x00"] != after.current.Load().plain["\x07example\x03com\x00"] {
		t.Error("a zone without challenges is a copy")
	}
}

func testChallenges(t *testing.T, s *Server) {
	for _, test := range []struct {
		query  string
		rcode  int
		answer []string
		ns     []string
	}{
		{query: "_acme-challenge.www.example.com. TXT",
			answer: []string{`_acme-challenge.www.example.com. 0 IN TXT "a"`}},
		{query: "_acme-challenge.www.example.com. A", ns: []string{soaCom}},
		{query: "www.example.com. TXT", answer: []string{`www.example.com. 0 IN TXT "an edge name with other data"`,
			`www.example.com. 0 IN TXT "e"`}},
		{query: "www.example.com. A", answer: []string{"www.example.com. 30 IN A 203.0.113.10"}},
		{query: "two.example.com. TXT", answer: []string{`two.example.com. 0 IN TXT "t"`}},
		{query: "two.example.com. A", answer: []string{"two.example.com. 5 IN A 203.0.113.10",
			"two.example.com. 5 IN A 198.51.100.20"}},
		{query: "_acme-challenge.example.com. TXT", answer: []string{`_acme-challenge.example.com. 0 IN TXT "y"`,
			`_acme-challenge.example.com. 0 IN TXT "z"`}},
		{query: "_aCmE-challenge.EXAMPLE.com. TXT", answer: []string{`_aCmE-challenge.EXAMPLE.com. 0 IN TXT "y"`,
			`_aCmE-challenge.EXAMPLE.com. 0 IN TXT "z"`}},
		{query: "_acme-challenge.example.com. CAA", ns: []string{soaCom}},
		{query: "_acme-challenge.example.com. ANY",
			answer: []string{`_acme-challenge.example.com. 3600 IN HINFO "RFC8482" ""`}},
		{query: "x._acme-challenge.example.com. TXT", rcode: dns.RcodeNameError, ns: []string{soaCom}},
		{
			query: "_acme-challenge.static.example.com. TXT",
			answer: []string{`_acme-challenge.static.example.com. 0 IN TXT "one of the zone"`,
				`_acme-challenge.static.example.com. 0 IN TXT "b"`,
				`_acme-challenge.static.example.com. 0 IN TXT "a"`},
		},
		{
			query: "_acme-challenge.cname.example.com. TXT",
			answer: []string{"_acme-challenge.cname.example.com. 60 IN CNAME x.acme.example.net.",
				`x.acme.example.net. 0 IN TXT "followed"`},
		},
		{query: "acme.example.net. TXT", ns: []string{soaNet}},
		{query: "_acme-challenge.new.example.com. TXT",
			answer: []string{`_acme-challenge.new.example.com. 0 IN TXT "n"`}},
		{
			// The answer goes through the DNAME. The challenge below it changes nothing.
			query: "_acme-challenge.old.example.com. TXT",
			answer: []string{"old.example.com. 3600 IN DNAME new.example.com.",
				"_acme-challenge.old.example.com. 3600 IN CNAME _acme-challenge.new.example.com.",
				`_acme-challenge.new.example.com. 0 IN TXT "n"`},
		},
		{query: "new.example.com. TXT", ns: []string{soaCom}},
		{query: "new.example.com. ANY", ns: []string{soaCom}},
		{query: "x.new.example.com. TXT", rcode: dns.RcodeNameError, ns: []string{soaCom}},
		{query: "q._acme-challenge.new.example.com. TXT",
			answer: []string{`q._acme-challenge.new.example.com. 0 IN TXT "q"`}},
		{query: "_acme-challenge.site.star.example.org. TXT",
			answer: []string{`_acme-challenge.site.star.example.org. 0 IN TXT "s"`}},
		{query: "_acme-challenge.site.star.example.org. A", ns: []string{soaStar}},
		{query: "_acme-challenge.star.example.org. TXT",
			answer: []string{`_acme-challenge.star.example.org. 0 IN TXT "w"`}},
		{query: "_acme-challenge.star.example.org. A", ns: []string{soaStar}},
		{query: "site.star.example.org. A", answer: []string{"site.star.example.org. 30 IN A 203.0.113.10"}},
		{query: "x.site.star.example.org. A", answer: []string{"x.site.star.example.org. 30 IN A 203.0.113.10"}},
		{query: "site.star.example.org. TXT", ns: []string{soaStar}},
		{query: "_acme-challenge.foo.dev.example.com. TXT",
			answer: []string{`_acme-challenge.foo.dev.example.com. 0 IN TXT "d"`}},
		{query: "_acme-challenge.foo.ent2.example.com. TXT",
			answer: []string{`_acme-challenge.foo.ent2.example.com. 0 IN TXT "d"`}},
		{query: "foo.ent2.example.com. CNAME",
			answer: []string{"foo.ent2.example.com. 3600 IN CNAME mail.example.com."}},
		{query: "_acme-challenge.apex.example.net. TXT",
			answer: []string{`_acme-challenge.apex.example.net. 0 IN TXT "p"`}},
		{query: "_acme-challenge.apex.example.net. A",
			answer: []string{"_acme-challenge.apex.example.net. 60 IN A 192.0.2.67"}},
		{query: "_acme-challenge.apex.example.net. AAAA", ns: []string{soaApex}},
	} {
		t.Run(test.query, func(t *testing.T) {
			resp := mustAnswer(t, s, question(test.query), inHelsinki, true)
			if resp.Rcode != test.rcode || !resp.Authoritative || resp.Truncated {
				t.Errorf("header is %v, want rcode %s", resp.MsgHdr, dns.RcodeToString[test.rcode])
			}
			wantRRs(t, "answer", resp.Answer, test.answer...)
			wantRRs(t, "authority", resp.Ns, test.ns...)
		})
	}
}

// TestChallengesServed changes the challenges of a running server. Each query that is sent after
// SetChallenges has returned must see the change.
func TestChallengesServed(t *testing.T) {
	s := new(Server)
	serve(t, s, challengeConfig(t))
	for i := range 50 {
		value := fmt.Sprint("round ", i)
		s.SetChallenges(map[string][]string{"_acme-challenge.www.example.com": {value}})
		for _, network := range []string{"udp", "tcp"} {
			resp := exchange(t, network, s.LocalAddr().String(), "_acme-challenge.www.example.com. TXT")
			wantRRs(t, network, resp.Answer, fmt.Sprintf("_acme-challenge.www.example.com. 0 IN TXT %q", value))
			resp = exchange(t, network, s.LocalAddr().String(), "www.example.com. A")
			wantRRs(t, network, resp.Answer, "www.example.com. 30 IN A 203.0.113.10")
		}
	}
	s.SetChallenges(nil)
	if resp := exchange(t, "udp", s.LocalAddr().String(),
		"_acme-challenge.www.example.com. TXT"); resp.Rcode != dns.RcodeNameError {
		t.Errorf("after all challenges are gone: %v", resp)
	}
}

// TestChallengesBounded passes more challenges than SetChallenges accepts.
func TestChallengesBounded(t *testing.T) {
	s := newServer(t, challengeConfig(t))
	s.Log = slog.New(slog.DiscardHandler)
	many := map[string][]string{}
	for i := range maxChallenges + 10 {
		many[fmt.Sprintf("_acme-challenge.n%04d.example.com", i)] = []string{"v"}
	}
	for i := range maxValues + 10 {
		many["_acme-challenge.a.example.com"] = append(many["_acme-challenge.a.example.com"],
			strings.Repeat("v", maxText-3)+fmt.Sprint(100+i))
	}
	s.SetChallenges(many)
	for q, want := range map[string]int{"a": maxValues, "n0000": 1, "n0998": 1, "n0999": 0} {
		resp := mustAnswer(t, s, question("_acme-challenge."+q+".example.com. TXT"), inHelsinki, true)
		if len(resp.Answer) != want || resp.Rcode == dns.RcodeServerFailure {
			t.Errorf("%s has %d values, want %d: %v", q, len(resp.Answer), want, resp.MsgHdr)
		}
	}
}

// Answers to challenges don't allocate. Edge names are still remembered, and don't allocate either.
func TestChallengesAllocate(t *testing.T) {
	s := newServer(t, workerConfig(t))
	s.Log = slog.New(slog.DiscardHandler)
	w, buf := newWorker(s), make([]byte, ednsUDPSize)
	s.SetChallenges(map[string][]string{"_acme-challenge.www.example.com": {"a"}})
	round := w.resolver.memo.round
	for _, q := range append([]string{"_acme-challenge.www.example.com. TXT"}, workerQuestions[:10]...) {
		req := packet(t, q, "10.20.30.0/24")
		w.answer(req, inHelsinki, false, buf) // creates the counters
		if n := testing.AllocsPerRun(50, func() { w.answer(req, inHelsinki, false, buf) }); n != 0 {
			t.Errorf("%s: %v allocations", q, n)
		}
	}
	s.SetChallenges(nil)
	w.answer(packet(t, "www.example.com. A", ""), inHelsinki, false, buf)
	if after := w.resolver.memo.round; after != round+1 { // the first answer has started a round
		t.Errorf("round %d after %d: challenges void what was chosen", after, round)
	}
}
