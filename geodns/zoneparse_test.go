package geodns

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/miekg/dns"
)

// head has what every zone must have. A test's own records start on line 4.
const head = "$TTL 3600\n@ IN SOA ns1 hostmaster 1 7200 1800 1209600 300\n@ IN NS ns1\n"

func TestParseZone(t *testing.T) {
	z := mustZone(t, `$ORIGIN example.com.
$TTL 3600
@      IN SOA ns1 hostmaster 2026112301 7200 1800 1209600 300
@      IN NS  ns1
@      IN NS  ns2
@      IN MX  10 mail
@      IN CAA 0 issue "letsencrypt.org"
ns1    IN A   198.51.100.20
ns2    IN A   192.0.2.30
mail   IN A   192.0.2.99
_sip._tcp IN SRV 10 5 5060 mail
*.dev  IN A   192.0.2.98
a.b.ent IN TXT "below an empty non-terminal"`, "example.com")
	if z.Name() != "example.com." {
		t.Errorf("name is %s", z.Name())
	}
	if len(z.nodes) != 11 {
		t.Errorf("%d names", len(z.nodes))
	}
	if z.soa.ttl != 300 {
		t.Errorf("TTL of negative answers is %d", z.soa.ttl)
	}
}

// records returns the zone's records as text, sorted.
func records(t *testing.T, z *Zone) (all []string) {
	t.Helper()
	for _, n := range z.nodes {
		for i := range n.sets {
			r := response{answer: []owned{{owner: n.owner, rrset: &n.sets[i]}}}
			m := new(dns.Msg)
			if err := m.Unpack(r.pack(new(packer), new(query), dns.MaxMsgSize, true, nil)); err != nil {
				t.Fatal(err)
			}
			for _, rr := range m.Answer {
				all = append(all, strings.ReplaceAll(rr.String(), "\t", " "))
			}
		}
	}
	slices.Sort(all)
	return all
}

func TestParseZoneForms(t *testing.T) {
	for _, test := range []struct {
		name, text string
		want       []string // without the SOA and NS records
	}{
		{"owner carried over", "a IN A 192.0.2.1\n IN A 192.0.2.2\n\tTXT x\n", []string{
			"a.example.com. 3600 IN A 192.0.2.1", "a.example.com. 3600 IN A 192.0.2.2",
			`a.example.com. 3600 IN TXT "x"`,
		}},
		{"owner carried past directives", "a A 192.0.2.1\n$ORIGIN x.example.com.\n  A 192.0.2.2\nb A 192.0.2.3",
			[]string{
				"a.example.com. 3600 IN A 192.0.2.1", "a.example.com. 3600 IN A 192.0.2.2",
				"b.x.example.com. 3600 IN A 192.0.2.3",
			}},
		{"relative origin", "$ORIGIN a\na A 192.0.2.1\n$ORIGIN y ; deeper\na A 192.0.2.2", []string{
			"a.a.example.com. 3600 IN A 192.0.2.1", "a.y.a.example.com. 3600 IN A 192.0.2.2",
		}},
		{"TTLs", "a 60 IN A 192.0.2.1\nb IN 1h A 192.0.2.1\nc A 192.0.2.1\n$TTL 1d\nd A 192.0.2.1", []string{
			"a.example.com. 60 IN A 192.0.2.1", "b.example.com. 3600 IN A 192.0.2.1",
			"c.example.com. 3600 IN A 192.0.2.1", "d.example.com. 86400 IN A 192.0.2.1",
		}},
		{"lowest TTL of a set", "a 60 IN A 192.0.2.1\na 30 IN A 192.0.2.2", []string{
			"a.example.com. 30 IN A 192.0.2.1", "a.example.com. 30 IN A 192.0.2.2",
		}},
		{"duplicates", "a A 192.0.2.1\na A 192.0.2.1\nA A 192.0.2.1", []string{"a.example.com. 3600 IN A 192.0.2.1"}},
		{"parentheses and comments", "a TXT ( ; one\n \"(;\" ; two )\n\n x ) ; three\n; four\n\n",
			[]string{`a.example.com. 3600 IN TXT "(;" "x"`}},
		{"escapes", `a TXT "\"" \; \(` + "\n", []string{`a.example.com. 3600 IN TXT "\"" ";" "("`}},
		{"carriage returns", "a A 192.0.2.1\r\n  A 192.0.2.2\r\n", []string{"a.example.com. 3600 IN A 192.0.2.1",
			"a.example.com. 3600 IN A 192.0.2.2"}},
		{"unknown type", `a TYPE65280 \# 2 abcd`, []string{`a.example.com. 3600 CLASS1 TYPE65280 \# 2 abcd`}},
		{"known type in unknown form", `a A \# 4 c0000201`, []string{"a.example.com. 3600 IN A 192.0.2.1"}},
		{"names like types", "a A 192.0.2.1\nmx A 192.0.2.1\nin A 192.0.2.1", []string{
			"a.example.com. 3600 IN A 192.0.2.1", "in.example.com. 3600 IN A 192.0.2.1",
			"mx.example.com. 3600 IN A 192.0.2.1",
		}},
		{"generate", "$GENERATE 1-3 host$ A 192.0.2.$", []string{
			"host1.example.com. 3600 IN A 192.0.2.1", "host2.example.com. 3600 IN A 192.0.2.2",
			"host3.example.com. 3600 IN A 192.0.2.3",
		}},
		{"generate with a TTL", "$GENERATE 1-1 a$ IN 60 A 192.0.2.$\n$GENERATE 1-1 b$ 60 IN A 192.0.2.$\n$GENERATE 1-1 c$ IN A 192.0.2.$", []string{
			"a1.example.com. 60 IN A 192.0.2.1", "b1.example.com. 60 IN A 192.0.2.1",
			"c1.example.com. 3600 IN A 192.0.2.1",
		}},
		{"generate with quotes", "$GENERATE 1-2 a$ TXT \"x; $  y\" ; $\n$GENERATE 1-1 \"b$\" IN CNAME \"c$\"\n$GENERATE 1-1 d$ 60 TXT ( \"(\"\n \"\\$ $\" )", []string{
			`a1.example.com. 3600 IN TXT "x; 1  y"`, `a2.example.com. 3600 IN TXT "x; 2  y"`,
			"b1.example.com. 3600 IN CNAME c1.example.com.", `d1.example.com. 60 IN TXT "(" "$ 1"`,
		}},
		{"names of RFC 2317", "$ORIGIN 0/25.2.0.192.example.com.\n1 PTR a.\n$ORIGIN 2.0.192.example.com.\n$GENERATE 1-1 $ CNAME $.0/25", []string{
			"1.0/25.2.0.192.example.com. 3600 IN PTR a.",
			"1.2.0.192.example.com. 3600 IN CNAME 1.0/25.2.0.192.example.com.",
		}},
		{"DNSSEC beside a CNAME", "a CNAME b\na NSEC b A", []string{"a.example.com. 3600 IN CNAME b.example.com.",
			"a.example.com. 3600 IN NSEC b.example.com. A"}},
		{"occluded", "sub NS ns.sub\nns.sub A 192.0.2.1\nx.sub TXT x", []string{
			"ns.sub.example.com. 3600 IN A 192.0.2.1", "sub.example.com. 3600 IN NS ns.sub.example.com.",
			`x.sub.example.com. 3600 IN TXT "x"`,
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := records(t, mustZone(t, head+test.text, "example.com"))
			got = slices.DeleteFunc(got, func(s string) bool { return strings.HasPrefix(s, "example.com.") })
			if !slices.Equal(got, test.want) {
				t.Errorf("records are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(test.want, "\n"))
			}
		})
	}
}

// zoneErrors are zones, and a part of each of their errors.
var zoneErrors = []struct {
	name, text string // appended to head unless it starts with "all:"
	want       []string
}{
	{"nothing", "all:", []string{"1:1: no NS at example.com.", "1:1: no SOA at example.com."}},
	{"no SOA", "all:$TTL 60\n@ NS ns1\n", []string{"1:1: no SOA at example.com."}},
	{"no NS", "all:@ 60 SOA ns1 h 1 2 3 4 5\n", []string{"1:1: no NS at example.com."}},
	{"broken SOA", "all:$TTL 60\n@ SOA ns1 h 1 2 3 4 five\n@ NS ns1\n",
		[]string{`2:21: SOA wants two names and five numbers, such as ns1 hostmaster 1 14400 3600 1209600 300: "five" does not fit`}},
	{"broken SOA in parentheses", "all:$TTL 60\n@ SOA ns1 h (\n 1 ; serial\n 2 3 4 five )\n@ NS ns1\n",
		[]string{`4:8: SOA wants two names and five numbers, such as ns1 hostmaster 1 14400 3600 1209600 300: "five" does not fit`}},
	{"two SOAs", "\n@ SOA ns1 h 2 2 3 4 5\n",
		[]string{"5:1: a second SOA at example.com.; the first is on line 2"}},
	{"SOA elsewhere", "a SOA ns1 h 2 2 3 4 5\n", []string{"4:1: SOA at a.example.com., but the zone is example.com."}},
	{"outside", "a A 192.0.2.1\nb.example.org. A 192.0.2.1\n",
		[]string{"5:1: b.example.org. is outside the zone example.com."}},
	{"outside by origin", "$ORIGIN example.org.\n  A 192.0.2.1\n@ A 192.0.2.1",
		[]string{"6:1: example.org. is outside the zone example.com."}},
	{"CNAME after data", "a A 192.0.2.1\na CNAME b\n",
		[]string{"5:1: CNAME beside the A of line 4 at a.example.com."}},
	{"data after CNAME", "a CNAME b\nb A 192.0.2.1\nA TXT x\n",
		[]string{"6:1: TXT beside the CNAME of line 4 at a.example.com."}},
	{"CNAME at the apex", "@ CNAME b\n", []string{"4:1: CNAME beside the"}},
	{"two CNAMEs", "a CNAME b\na CNAME c\n",
		[]string{"5:1: a second CNAME at a.example.com.; the first is on line 4"}},
	{"the same CNAME twice", "a CNAME b\na CNAME b\n",
		[]string{"5:1: a second CNAME at a.example.com.; the first is on line 4"}},
	{"below a DNAME", "a DNAME b\nx.y.a A 192.0.2.1\n",
		[]string{"5:1: x.y.a.example.com. is below the DNAME of line 4"}},
	{"DNAME at a cut", "a DNAME b\na NS b\n", []string{"5:1: NS beside the DNAME of line 4 at a.example.com."}},
	{"NS at a wildcard", "*.a NS b\n", []string{"4:1: NS at a wildcard: RFC 4592 section 4 gives it no meaning"}},
	{"bad address", "a A 192.0.2.1\nb IN A 192.0.2.256\nc A 192.0.2.1\n",
		[]string{`5:8: A wants an IPv4 address: "192.0.2.256" does not fit`}},
	{"IPv6 in an A", "b IN A ::1\n", []string{`4:8: A wants an IPv4 address: "::1" does not fit`}},
	{"no data", "a A\nb MX\nc TXT x", []string{"4:3: A wants an IPv4 address: the line ends early",
		"5:4: MX wants a preference and a name, such as 10 mail: the line ends early"}},
	{"garbage", "a A 192.0.2.1 192.0.2.2\n",
		[]string{`4:15: A wants an IPv4 address, and nothing after that: "192.0.2.2"`}},
	{"unknown type", "a IN FOO bar\n",
		[]string{`4:6: "FOO" is not a known record type, TTL or class`}},
	{"class", "a CH A 192.0.2.1\n", []string{"4:1: class CH: only IN is served"}},
	{"meta type", `a TYPE255 \# 0` + "\n" + `b TYPE41 \# 0` + "\n" + `c TYPE0 \# 0`, []string{
		"4:1: ANY is not a type of data", "5:1: OPT is not a type of data", "6:1: None is not a type of data",
	}},
	{"no TTL", "all:@ SOA ns1 h 1 2 3 4 5\n", []string{"1:1: record without a TTL; write $TTL above it"}},
	{"huge TTL", "a 2147483648 A 192.0.2.1\n$TTL 3000000000", []string{
		"4:1: TTL above 2147483647 (RFC 2181 section 8)", "5:1: TTL above 2147483647 (RFC 2181 section 8)",
	}},
	{"no owner", "all:  60 A 192.0.2.1\n",
		[]string{"1:3: record without an owner name: the first record of a file needs one"}},
	{"bad owner", "a..b A 192.0.2.1\n A 192.0.2.2\nc A x",
		[]string{`4:1: bad owner name: "a..b"`, `6:5: A wants an IPv4 address: "x" does not fit`}},
	{"long label", strings.Repeat("x", 64) + " A 192.0.2.1\n",
		[]string{`4:1: bad owner name: "` + strings.Repeat("x", 64) + `"`}},
	{"a broken record keeps its owner", "a A 192.0.2.1\nb A x\n  CNAME c\n",
		[]string{`5:5: A wants an IPv4 address: "x" does not fit`}},
	{"long text", "a TXT " + strings.Repeat("x", 70000) + "\n", []string{"4:1: TXT"}},
	{"RRset too large", func() string {
		var b strings.Builder
		for i := range 300 {
			fmt.Fprintf(&b, "a TXT %0250d\n", i)
		}
		return b.String()
	}(), slices.Repeat([]string{":1: the TXT records at a.example.com. do not fit into a message"}, 20)},
	{"include", "$INCLUDE /etc/passwd\na A x\n",
		[]string{"4:1: include /etc/passwd: there is no folder to include files from",
			`5:5: A wants an IPv4 address: "x" does not fit`}},
	{"escapes beyond an octet", `a TXT "\255\300"` + "\n" + `\256 A x` + "\nb TXT ( x\n" + ` "\999" ; \300` +
		"\n)\n", []string{
		`4:12: \300 is not an octet: want \000 to \255 (RFC 1035 section 5.1)`, `5:1: \256 is not an octet`,
		`7:3: \999 is not an octet`,
	}},
	{"no type", "a ALIAS b\n 60 IN aname b\na URL http://x\n", []string{
		"4:3: DNS has no type ALIAS: write A and AAAA records",
		"5:8: DNS has no type ANAME",
		"6:3: DNS has no type URL: DNS has no redirects",
	}},
	{"header", "a\na 60 IN\na 5x A 192.0.2.1\na IN CH A 192.0.2.1\na 60 1h A 192.0.2.1\na TYPE70000 x\na ( ; x\n FOO x )\n", []string{
		"4:1: the line ends before the type of the record", "5:1: the line ends before the type of the record",
		`6:3: "5x" is not a TTL: want seconds, or units such as 1h30m`,
		"7:6: CH is a second class", "8:6: 1h is a second TTL", "9:3: TYPE70000 is not a type",
		`11:2: "FOO" is not a known record type`,
	}},
	{"data", "a MX mail\na CNAME b c\na A \"192.0.2.1\"\na DS 1 2 3 xyz\na SRV 1 2 mail\n", []string{
		`4:6: MX wants a preference and a name, such as 10 mail: "mail" does not fit`,
		`5:11: CNAME wants one name, and nothing after that: "c"`,
		"6:1: A wants an IPv4 address: the quotes don't match",
		"7:1: DS: want a key tag, an algorithm, a digest type and a digest in hexadecimal: ",
		`8:11: SRV wants a priority, a weight, a port and a name`,
	}},
	{"unknown directive", "$FOO bar\n", []string{"4:1: unknown directive $FOO"}},
	{"bad directives", "$TTL x\n$ORIGIN a..b\n$TTL\n$ORIGIN a b\n", []string{
		`4:6: expecting $TTL value, not this...: "x"`, `5:9: bad owner name: "a..b"`, "6:1: ",
		"7:1: $ORIGIN wants one name",
	}},
	{"bad generate", "$GENERATE 5-1 a$ A 192.0.2.$\n$GENERATE 1-2 a$ A 192.0.2.x\n$GENERATE\n$GENERATE 1-9999999 a$ A 192.0.2.1\n", []string{
		"4:", "5:", "6:1: $GENERATE wants a range, an owner, a type and data", "7:",
	}},
	{"too much generated", "$GENERATE 1-40000 a$ A 192.0.2.1\n$GENERATE 1-40000 b$ A 192.0.2.1\n",
		[]string{"5:1: $GENERATE makes more than 65536 records"}},
	{"open quote", "a TXT \"x\nb A 192.0.2.1\nc A y\n",
		[]string{"4:7: quote without an end", `6:5: A wants an IPv4 address: "y" does not fit`}},
	{"open parenthesis", "a TXT ( x\nb A 192.0.2.1\n", []string{"4:7: parenthesis without an end"}},
	{"closing parenthesis", "a TXT x )\nb A y\n", []string{"4:9: parenthesis without a beginning",
		`5:5: A wants an IPv4 address: "y" does not fit`}},
	{"all at once", "a A x\n@ SOA ns1 h 9 9 9 9 9\nb CNAME c\nb CNAME d\nwww.example.org. A 192.0.2.1\n", []string{
		`4:5: A wants an IPv4 address: "x" does not fit`, "5:1: a second SOA", "7:1: a second CNAME",
		"8:1: www.example.org. is outside",
	}},
	{"cap", strings.Repeat("a A x\n", 100), slices.Repeat([]string{`:5: A wants an IPv4 address: "x" does not fit`},
		20)},
}

func TestParseZoneErrors(t *testing.T) {
	for _, test := range zoneErrors {
		t.Run(test.name, func(t *testing.T) {
			text, whole := strings.CutPrefix(test.text, "all:")
			if !whole {
				text = head + text
			}
			z, errs := ParseZone(strings.NewReader(text), "example.com.", "db")
			if z != nil {
				t.Errorf("a zone, with errors %v", errs)
			}
			if len(errs) != len(test.want) {
				t.Fatalf("errors are %v\nwant %v", errs, test.want)
			}
			for i, err := range errs {
				if got := err.Error(); !strings.HasPrefix(got, "db:") || !strings.Contains(got, test.want[i]) {
					t.Errorf("error is %s, want %s", got, test.want[i])
				}
				if lines := strings.Split(text, "\n"); err.Text != lines[err.Line-1] {
					t.Errorf("text is %q", err.Text)
				}
			}
		})
	}
}

func TestParseZoneInput(t *testing.T) {
	if _, errs := ParseZone(iotest.ErrReader(io.ErrUnexpectedEOF), "example.com", "db"); len(errs) != 1 {
		t.Errorf("errors are %v", errs)
	}
	if _, errs := ParseZone(strings.NewReader(head), "a..b", "db"); len(errs) != 1 {
		t.Errorf("errors are %v", errs)
	}
}

func FuzzParseZone(f *testing.F) {
	f.Add(testZone)
	f.Add("$TTL 60\n@ SOA a b 1 2 3 4 5\n@ NS a\n$GENERATE 1-3 host$ A 192.0.2.$\na TXT ( \"x\ny\" \\\n")
	f.Add("\v\n\\\n$\n(\n)")
	f.Add(head + "a HTTPS 1 . key1=\"\\002h2\" key3=\\001\\187 mandatory=alpn\nb SVCB 1 . alpn= key0=\nc ALIAS d\n$GENERATE 1-2 a$ TXT \"; $\"\n")
	f.Fuzz(func(t *testing.T, text string) {
		// One line may make 65536 records, which is slow and not what this test looks for.
		if strings.Contains(strings.ToUpper(text), "GENERATE") && regexp.MustCompile(`\d{3}`).MatchString(text) {
			return
		}
		z, errs := ParseZone(strings.NewReader(text), "example.com", "db")
		if (z == nil) != (len(errs) > 0) {
			t.Fatalf("zone %v and errors %v", z, errs)
		}
		lines := strings.Count(text, "\n") + 1
		for _, err := range errs {
			if err.Line < 1 || err.Line > lines || err.Col < 1 {
				t.Fatalf("%v of %d lines", err, lines)
			}
		}
		if z == nil {
			return
		}
		// A zone that was accepted can be served.
		s := newServer(t, Config{Zones: []*Zone{z}})
		for n, at := range z.nodes {
			for _, set := range at.sets {
				m := question(fmt.Sprintf("%s NONE", n))
				m.Question[0].Qtype = set.rrtype
				mustAnswer(t, s, m, nowhere, true)
			}
		}
	})
}

// FuzzPlain parses entries with plain where possible, and with the library only. The resulting
// zones must be the same.
func FuzzPlain(f *testing.F) {
	f.Add(largeZone(20))
	f.Add(head + "a 60 IN SRV 1 2 3 b\n  IN 5 PTR c.\n* TXT a \"b c\" ;d\nin A 192.0.2.1\n@ NS @\n$ORIGIN x.\ny MX 65535 .\n")
	f.Add(head + strings.Repeat("a.", 115) + " A 192.0.2.1\n" + strings.Repeat("b.", 122) + "\tAAAA ::1\n" +
		strings.Repeat("c", 63) + " A 1.2.3.4\n")
	f.Add(head + "a 4294967296 A 192.0.2.1\na A 192.0.2.01\na AAAA ::ffff:1.2.3.4\na AAAA ::ffff:102:304\na TXT \"\" \"x\"y\na;b A 1.2.3.4\n")
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(strings.ToUpper(text), "GENERATE") {
			return
		}
		newParser := func() *zoneParser {
			p := &zoneParser{read: func(string) (string, error) { return text, nil }}
			if _, err := p.open("db"); err != nil {
				t.Fatal(err)
			}
			p.begin("\x07example\x03com\x00")
			return p
		}
		plain, library := newParser(), newParser()
		s := scanner{rest: text, line: 1}
		for s.rest != "" {
			e, found := s.next()
			if !found {
				continue
			}
			plain.entry(&e)
			if e.err != nil || strings.HasPrefix(e.owner(), "$") {
				library.entry(&e)
			} else {
				library.records(&e, e.text)
			}
			if string(plain.owner) != string(library.owner) || string(plain.lower) != string(library.lower) ||
				plain.badOwner != library.badOwner ||
				plain.ttl != library.ttl || plain.hasTTL != library.hasTTL || plain.broken != library.broken ||
				!slices.Equal(plain.errs, library.errs) {
				t.Fatalf("after %q\n%q %q %v\n%q %q %v", e.text, plain.owner, plain.lower, plain.errs, library.owner,
					library.lower, library.errs)
			}
		}
		if len(plain.zone.nodes) != len(library.zone.nodes) {
			t.Fatalf("%d names and %d", len(plain.zone.nodes), len(library.zone.nodes))
		}
		for n, want := range library.zone.nodes {
			if at := plain.zone.nodes[n]; at == nil || at.owner != want.owner ||
				!slices.EqualFunc(at.sets, want.sets, func(a, b rrset) bool {
					return a.rrtype == b.rrtype && a.ttl == b.ttl && a.line == b.line && a.size == b.size &&
						slices.Equal(a.data, b.data)
				}) {
				t.Fatalf("%s is\n%v\nand by the library\n%v", n, at, want)
			}
		}
	})
}

// TestEntries checks how a file is split into entries.
func TestEntries(t *testing.T) {
	s := scanner{rest: "a b ; c\n\n ( d\n e )\n\"x;(\" f\n; g\n\\\" h", line: 1}
	var text []string
	for s.rest != "" {
		if e, found := s.next(); found {
			text = append(text, fmt.Sprintf("%d %q", e.line, e.text))
		}
	}
	want := []string{`1 "a b ; c\n"`, `3 " ( d\n e )\n"`, `5 "\"x;(\" f\n"`, `7 "\\\" h\n"`}
	if !slices.Equal(text, want) {
		t.Errorf("entries are %q, want %q", text, want)
	}
}
