package geodns

import (
	"bytes"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/kaiku-cdn/kaiku/geodns/dnssec"
)

// testKeys returns the same keys in each run, so that failures are reproducible.
func testKeys(t testing.TB) dnssec.Keys {
	t.Helper()
	keys, err := dnssec.Parse([]byte("Private-key-format: v1.3\nAlgorithm: 13 (ECDSAP256SHA256)\n" +
		"PrivateKey: GU6SnQ/Ou+xC5RumuIUIuJZteXT2z0O/ok1s38Et6mQ=\n"))
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// signedConfig returns workerConfig with example.com and example.net signed.
func signedConfig(t testing.TB) Config {
	cfg := workerConfig(t)
	cfg.Keys = map[string]dnssec.Keys{"example.com": testKeys(t), "example.net.": testKeys(t)}
	return cfg
}

// signedServer returns a server without a budget for signatures, because the machine may be slow.
func signedServer(t testing.TB) *Server {
	s := newServer(t, signedConfig(t))
	s.signingFree = true
	return s
}

func secured(q string) *dns.Msg { return question(q).SetEdns0(4096, true) }

// signedQuestions are of every kind that a zone can answer.
var signedQuestions = append([]string{
	"example.com. SOA", "example.com. NS", "example.com. DNSKEY", "example.com. CDS", "example.com. CDNSKEY",
	"example.com. DS", "example.com. A", "example.com. TXT", "mail.example.com. AAAA", "nowhere.example.com. A",
	"a.b.nowhere.example.com. TXT", "ent.example.com. A", "foo.dev.example.com. MX", "foo.bar.dev.example.com. A",
	"foo.dev.example.com. TXT", "*.dev.example.com. A", "*.dev.example.com. TXT", "foo.ent2.example.com. A",
	"foo.ent2.example.com. CNAME", "alias.example.com. A", "alias.example.com. CNAME", "alias2.example.com. TXT",
	"out.example.com. A", "dangling.example.com. A", "intocut.example.com. A", "other.example.com. A",
	"loop1.example.com. A", "sub.example.com. DS", "x.sub.example.com. A", "sib.example.com. DS", "sib.example.com. A",
	"ns.sib.example.com. AAAA", "host.old.example.com. AAAA", "gone.old.example.com. A", "old.example.com. DNAME",
	"x.far.example.com. A", "one.example.com. AAAA", "two.example.com. A", "two.example.com. TXT",
	"x.wild.example.com. AAAA", "x.wild.example.com. TXT", "x.wild.example.com. ANY", "mail.example.com. ANY",
	"hinfo.example.com. ANY", "nowhere.example.com. ANY", "mail.example.com. NSEC", "nowhere.example.com. NSEC",
	"x.wild.example.com. NSEC", "mail.example.com. RRSIG", "nowhere.example.com. RRSIG", "child.example.net. DS",
	"child.example.net. A", "_sip._tcp.example.com. SRV", "MaIl.ExAmPlE.cOm. A", "foo.star.example.com. TXT",
}, workerQuestions...)

// TestSignatures checks that each RRset of a signed zone has a valid signature. TestDenials checks
// the denials that a validator needs. TestRealDNSSEC uses real validators.
func TestSignatures(t *testing.T) {
	t.Parallel()
	s := signedServer(t)
	key := dnskeyOf(testKeys(t)[0])
	for _, q := range signedQuestions {
		for _, tcp := range []bool{false, true} {
			m := mustAnswer(t, s, secured(q), inHelsinki, tcp)
			if m.Truncated {
				continue
			}
			checkSigned(t, q, key, m)
		}
	}
}

func dnskeyOf(key *dnssec.Key) *dns.DNSKEY {
	rr, _, err := dns.UnpackRR(append([]byte("\x00\x00\x30\x00\x01\x00\x00\x0e\x10\x00\x44"), key.DNSKEY()...), 0)
	if err != nil {
		panic(err)
	}
	return rr.(*dns.DNSKEY)
}

func checkSigned(t *testing.T, q string, key *dns.DNSKEY, m *dns.Msg) {
	t.Helper()
	for i, section := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
		sets := map[string][]dns.RR{}
		var sigs []*dns.RRSIG
		for _, rr := range section {
			if sig, ok := rr.(*dns.RRSIG); ok {
				sigs = append(sigs, sig)
			} else if rr.Header().Rrtype != dns.TypeOPT {
				id := fmt.Sprint(strings.ToLower(rr.Header().Name), " ", dns.Type(rr.Header().Rrtype))
				sets[id] = append(sets[id], rr)
			}
		}
		for _, sig := range sigs {
			id := fmt.Sprint(strings.ToLower(sig.Hdr.Name), " ", dns.Type(sig.TypeCovered))
			signed := *key
			signed.Hdr.Name = sig.SignerName
			if set := sets[id]; len(set) > 0 {
				if err := sig.Verify(&signed, set); err != nil {
					t.Errorf("%s: the signature of %s: %v\n%v", q, id, err, m)
				}
			} else if !strings.HasSuffix(q, "RRSIG") {
				t.Errorf("%s: a signature of %s, which is not there\n%v", q, id, m)
			}
			if !sig.ValidityPeriod(time.Now()) {
				t.Errorf("%s: the signature of %s is not valid now", q, id)
			}
			delete(sets, id)
		}
		for id, set := range sets {
			if !unsignedRight(set[0], i, m) {
				t.Errorf("%s: %s has no signature\n%v", q, id, m)
			}
		}
	}
}

// unsignedRight reports whether a record of a section may lack a signature.
func unsignedRight(rr dns.RR, section int, m *dns.Msg) bool {
	name := strings.ToLower(rr.Header().Name)
	switch cut := dns.IsSubDomain("sub.example.com.", name) || dns.IsSubDomain("sib.example.com.", name); {
	case cut && section > 0: // NS records of a delegation, and glue
		return true
	case dns.IsSubDomain("child.example.net.", name), !dns.IsSubDomain("example.com.", name) &&
		!dns.IsSubDomain("example.net.", name):
		return true
	case section == 2 && slices.ContainsFunc(m.Ns, func(o dns.RR) bool { return o.Header().Rrtype == dns.TypeNS }):
		// glue
		return true
	case rr.Header().Rrtype == dns.TypeCNAME: // made from a DNAME
		return slices.ContainsFunc(m.Answer, func(o dns.RR) bool { return o.Header().Rrtype == dns.TypeDNAME })
	}
	return false
}

// TestDenials checks which NSEC records are in an answer.
func TestDenials(t *testing.T) {
	t.Parallel()
	s := signedServer(t)
	for _, test := range []struct {
		query string
		nsec  []string // owner, next and types
	}{
		{"mail.example.com. A", nil},
		{"mail.example.com. AAAA", []string{`mail.example.com. \000.mail.example.com. A RRSIG NSEC`}},
		{"nowhere.example.com. A", []string{`nowhere.example.com. \000.nowhere.example.com. RRSIG NSEC NXNAME`}},
		{"ent.example.com. A", []string{`ent.example.com. \000.ent.example.com. RRSIG NSEC`}},
		{"example.com. TXT", []string{
			`example.com. \000.example.com. A NS SOA MX AAAA RRSIG NSEC DNSKEY CDS CDNSKEY HTTPS CAA`}},
		{"foo.dev.example.com. A", []string{`*.dev.example.com. y.dev.example.com. A MX RRSIG NSEC`}},
		{"z.dev.example.com. A", []string{`x.y.dev.example.com. edge.example.com. TXT RRSIG NSEC`}},
		{"foo.dev.example.com. TXT", []string{`*.dev.example.com. y.dev.example.com. A MX RRSIG NSEC`}},
		{"alias2.example.com. TXT", []string{`mail.example.com. \000.mail.example.com. A RRSIG NSEC`}},
		{"sub.example.com. DS", nil},
		{"x.sub.example.com. A", nil},
		{"x.sib.example.com. A", []string{`sib.example.com. \000.sib.example.com. NS RRSIG NSEC`}},
		{"sib.example.com. DS", []string{`sib.example.com. \000.sib.example.com. NS RRSIG NSEC`}},
		{"one.example.com. AAAA", []string{`one.example.com. \000.one.example.com. A RRSIG NSEC`}},
		{"www.example.com. MX", []string{`www.example.com. \000.www.example.com. A TXT AAAA RRSIG NSEC HTTPS`}},
	} {
		var got []string
		m := mustAnswer(t, s, secured(test.query), inHelsinki, false)
		for _, rr := range m.Ns {
			if nsec, ok := rr.(*dns.NSEC); ok {
				line := nsec.Hdr.Name + " " + nsec.NextDomain
				for _, rrtype := range nsec.TypeBitMap {
					line += " " + dns.Type(rrtype).String()
				}
				got = append(got, line)
			}
		}
		if !slices.Equal(got, test.nsec) {
			t.Errorf("%s:\n got %q\nwant %q", test.query, got, test.nsec)
		}
		if m.Rcode != dns.RcodeSuccess {
			t.Errorf("%s: %s", test.query, dns.RcodeToString[m.Rcode])
		}
	}
}

// TestCompactRcode checks the rcode of RFC 9824 section 5.
func TestCompactRcode(t *testing.T) {
	t.Parallel()
	s := signedServer(t)
	q := secured("nowhere.example.com. A")
	q.IsEdns0().SetCo(true)
	if m := mustAnswer(t, s, q, inHelsinki, false); m.Rcode != dns.RcodeNameError || !m.IsEdns0().Co() ||
		len(m.Ns) != 4 {
		t.Errorf("with CO: %v", m)
	}
	if m := mustAnswer(t, s, question("nowhere.example.com. A"), inHelsinki, false); m.Rcode != dns.RcodeNameError {
		t.Errorf("without DO: %v", m)
	}
}

// TestWithoutDO checks that a client that doesn't ask for signatures gets the answers of an
// unsigned zone, to the byte, and that those of DO have the same ECS scope.
func TestWithoutDO(t *testing.T) {
	t.Parallel()
	plain, signed := newServer(t, workerConfig(t)), signedServer(t)
	for _, q := range signedQuestions {
		if strings.Contains(q, "DNSKEY") || strings.HasSuffix(q, "CDS") {
			continue
		}
		for _, subnet := range workerSubnets {
			req := packet(t, q, subnet)
			a, b := plain.answer(req, inHelsinki, false, nil), signed.answer(req, inHelsinki, false, nil)
			if !bytes.Equal(a, b) {
				t.Fatalf("%s from %q:\n%x\n%x", q, subnet, a, b)
			}
			if subnet == "" {
				continue
			}
			m := new(dns.Msg)
			if err := m.Unpack(req); err != nil {
				t.Fatal(err)
			}
			m.IsEdns0().SetDo()
			before, after := mustAnswer(t, plain, m, inHelsinki, true), mustAnswer(t, signed, m, inHelsinki, true)
			if a, b := scopeOf(before), scopeOf(after); a != b {
				t.Fatalf("%s from %q: scope %d, signed %d", q, subnet, a, b)
			}
		}
	}
}

func scopeOf(m *dns.Msg) int {
	for _, o := range m.IsEdns0().Option {
		if subnet, ok := o.(*dns.EDNS0_SUBNET); ok {
			return int(subnet.SourceScope)
		}
	}
	return -1
}

// TestSignaturesAreKept checks that a signature is made once, whatever the client, and once more
// when the key changes.
func TestSignaturesAreKept(t *testing.T) {
	t.Parallel()
	cfg := signedConfig(t)
	s := newServer(t, cfg)
	s.signingFree = true
	count := func(q string) int {
		before := testutil.ToFloat64(s.metrics.signatures)
		mustAnswer(t, s, secured(q), inHelsinki, false)
		return int(testutil.ToFloat64(s.metrics.signatures) - before)
	}
	for _, test := range []struct {
		query string
		made  int
	}{
		{"one.example.com. A", 1}, {"one.example.com. A", 0}, {"ONE.example.com. A", 0},
		{"x.wild.example.com. A", 2}, {"y.wild.example.com. A", 0}, // names below a wildcard share signatures
		{"nowhere.example.com. A", 2}, {"nowhere.example.com. A", 0}, {"nowhere2.example.com. A", 1},
	} {
		if n := count(test.query); n != test.made {
			t.Errorf("%s: %d signatures, want %d", test.query, n, test.made)
		}
	}
	other, err := dnssec.Generate()
	if err != nil {
		t.Fatal(err)
	}
	cfg.Keys = maps.Clone(cfg.Keys)
	cfg.Keys["example.com"] = dnssec.Keys{other}
	if err := s.Reload(cfg); err != nil {
		t.Fatal(err)
	}
	if n := count("one.example.com. A"); n != 1 {
		t.Errorf("with another key: %d signatures", n)
	}
	checkSigned(t, "one", dnskeyOf(other), mustAnswer(t, s, secured("one.example.com. A"), inHelsinki, false))
}

// TestSigningBudget checks that made-up names can't use all of the time. Without budget, answers
// that need a new signature are empty, and answers whose signatures are cached are sent as usual.
func TestSigningBudget(t *testing.T) {
	t.Parallel()
	s := newServer(t, signedConfig(t))
	mustAnswer(t, s, secured("one.example.com. A"), inHelsinki, false)
	budget := &s.current.Load().signatures.shared
	budget.full.Store(1 << 62)
	if m := mustAnswer(t, s, secured("nowhere.example.com. A"), inHelsinki, false); !m.Truncated || len(m.Ns) > 0 {
		t.Errorf("a made up name over UDP: %v", m)
	}
	if m := mustAnswer(t, s, secured("nowhere.example.com. A"), inHelsinki, true); m.Rcode != dns.RcodeServerFailure {
		t.Errorf("a made up name over TCP: %v", m)
	}
	if m := mustAnswer(t, s, question("nowhere.example.com. A"), inHelsinki, false); m.Rcode != dns.RcodeNameError {
		t.Errorf("without DO: %v", m)
	}
	if m := mustAnswer(t, s, secured("one.example.com. A"), inHelsinki, false); m.Truncated || len(m.Answer) != 3 {
		t.Errorf("a name whose signature is there: %v", m)
	}
	if m := mustAnswer(t, s, secured("alias.example.com. A"), inHelsinki, false); !m.Truncated {
		t.Errorf("a name whose signature isn't there: %v", m)
	}
	if n := testutil.ToFloat64(s.metrics.unsigned); n != 3 {
		t.Errorf("%v responses without signatures were counted", n)
	}
	const now = int64(time.Hour)
	for _, test := range []struct {
		used          time.Duration
		random, named bool
	}{{0, true, true}, {signingBurst/2 - 1, true, true}, {signingBurst / 2, false, true},
		{signingBurst, false, false}} {
		budget.full.Store(now + int64(test.used))
		if random, named := budget.take(now, true), budget.take(now, false); random != test.random ||
			named != test.named {
			t.Errorf("with %v used: %v for made up names, %v for others", test.used, random, named)
		}
	}
}

// TestSignedChallenge checks a challenge below a wildcard: it and its ancestors are signed as names
// of their own, so that no validator finds that the wildcard doesn't apply to them.
func TestSignedChallenge(t *testing.T) {
	t.Parallel()
	s := signedServer(t)
	s.SetChallenges(map[string][]string{"_acme-challenge.foo.dev.example.com": {"token"}})
	key := dnskeyOf(testKeys(t)[0])
	for q, labels := range map[string]uint8{
		"_acme-challenge.foo.dev.example.com. TXT": 5, "foo.dev.example.com. A": 4, "x.foo.dev.example.com. A": 5,
		"g.dev.example.com. A": 3,
	} {
		m := mustAnswer(t, s, secured(q), inHelsinki, false)
		checkSigned(t, q, key, m)
		if sig, ok := m.Answer[len(m.Answer)-1].(*dns.RRSIG); !ok || sig.Labels != labels {
			t.Errorf("%s: want a signature of %d labels\n%v", q, labels, m)
		}
	}
}

// TestSigningRefused checks zones and keys that don't fit each other.
func TestSigningRefused(t *testing.T) {
	t.Parallel()
	for want, change := range map[string]func(*Config){
		"there are DNSSEC keys for it, but no such zone": func(c *Config) { c.Keys["example.org"] = testKeys(t) },
		"already has signatures": func(c *Config) {
			c.Zones[0] = mustZone(t, testZone+"mail IN NSEC ns1 A\n", "example.com")
		},
		"CDS records: delete them": func(c *Config) {
			c.Zones[0] = mustZone(t, testZone+"@ IN CDS 0 0 0 00\n", "example.com")
		},
		"0 keys are active": func(c *Config) { c.Keys["example.com"] = nil },
	} {
		cfg := signedConfig(t)
		change(&cfg)
		if err := new(Server).Reload(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// TestSignedAhead checks that the signatures of an edge name are cached, whichever nodes a client
// gets. Signatures whose day is over are replaced before they are no longer used.
func TestSignedAhead(t *testing.T) {
	t.Parallel()
	s := newServer(t, signedConfig(t))
	now := time.Now().Unix()
	s.signingNow = func() int64 { return now }
	round := func() int {
		a := &ahead{server: s, snapshot: s.current.Load(), ctx: t.Context()}
		a.cache, a.now, a.renew = a.signatures, now, int64(dnssec.Grace/time.Second)
		a.round()
		return a.made
	}
	made := round()
	if again := round(); made < 50 || again != 0 {
		t.Errorf("%d signatures, and %d in the second round", made, again)
	}
	budget := &s.current.Load().signatures.shared
	budget.full.Store(1 << 62) // no new signatures
	check := func() {
		t.Helper()
		for _, q := range []string{"www.example.com. A", "www.example.com. AAAA", "two.example.com. A",
			"all2.example.com. HTTPS",
			"many.example.com. A", "example.com. HTTPS", "example.com. DNSKEY", "example.com. SOA",
			"mail.example.com. A",
			"alias.example.com. A"} {
			for _, from := range []netip.AddrPort{inHelsinki, inNewYork, inTokyo, nowhere} {
				if m := mustAnswer(t, s, secured(q), from, false); m.Truncated {
					t.Errorf("%s from %v was not signed ahead", q, from)
				}
			}
		}
	}
	check()
	for range 25 { // each signature ends in these 25 hours
		now += int64(dnssec.Grace/time.Second) - 1
		round()
		check()
	}
}
