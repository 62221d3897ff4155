package dnssec

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func wire(t testing.TB, name string) string {
	t.Helper()
	b := make([]byte, 256)
	n, err := dns.PackDomainName(name, b, 0, nil, false)
	if err != nil {
		t.Fatal(name, err)
	}
	return string(b[:n])
}

// TestOrder has the names of RFC 4034 section 6.1, in their order.
func TestOrder(t *testing.T) {
	t.Parallel()
	names := []string{"example.", "a.example.", "yljkjljk.a.example.", "z.a.example.", "zabc.a.example.", "z.example.",
		`\001.z.example.`, "*.z.example.", `\200.z.example.`}
	for i, a := range names {
		for j, b := range names {
			if got := Compare(wire(t, a), wire(t, b)); (got < 0) != (i < j) || (got == 0) != (i == j) {
				t.Errorf("Compare(%s, %s) = %d", a, b, got)
			}
		}
	}
}

// FuzzSuccessor checks that the successor of a name is a valid name after it, with no name between
// them.
func FuzzSuccessor(f *testing.F) {
	long := strings.Repeat("a", 63)
	for _, name := range []string{"www.example.", "*.example.",
		long + "." + long + "." + long + "." + long[:53] + ".example.",
		strings.Repeat(`\255`, 63) + "." + long + "." + long + "." + long[:53] + ".example.",
		long + "." + long + "." + long + "." + long[:52] + ".example.", "example.",
		strings.Repeat(`\064`, 63) + "." + long + "." + long + "." + long[:53] + ".example."} {
		f.Add([]byte(wire(f, name)))
	}
	zone := wire(f, "example.")
	f.Fuzz(func(t *testing.T, b []byte) {
		text, end, err := dns.UnpackDomainName(b, 0)
		if err != nil || end != len(b) || len(b) > maxName || string(b) != strings.ToLower(string(b)) ||
			!strings.HasSuffix(string(b), zone) {
			return
		}
		name := string(b)
		next := string(Successor(nil, name, zone))
		if _, end, err := dns.UnpackDomainName([]byte(next), 0); err != nil || end != len(next) || end > maxName {
			t.Fatalf("the successor of %s is no name: %x", text, next)
		}
		if next != zone && Compare(name, next) >= 0 {
			t.Fatalf("the successor of %s is before it: %x", text, next)
		}
		if len(name)+2 <= maxName && Compare("\x01\x00"+name, next) != 0 {
			t.Fatalf("there is a name between %s and its successor %x", text, next)
		}
	})
}

// TestSignature checks signatures with miekg/dns, just before and just after the end of a day.
func TestSignature(t *testing.T) {
	t.Parallel()
	key, err := Generate()
	if err != nil {
		t.Fatal(err)
	}
	mx, err := dns.NewRR("*.Example. 300 IN MX 10 mail.example.")
	if err != nil {
		t.Fatal(err)
	}
	set := RRset{Owner: wire(t, "*.example."), Type: dns.TypeMX, TTL: 300,
		Data:   []string{"\x00\x0a" + wire(t, "mail.example.")},
		Signer: wire(t, "example.")}
	begin, end := Day(time.Now().Unix(), 0x123456789)
	if end-begin != 86400 || begin > time.Now().Unix() || end <= time.Now().Unix() {
		t.Fatalf("the day is from %d to %d", begin, end)
	}
	data, err := key.Signature(set, begin)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := key.Signature(set, begin); err != nil || again != data {
		t.Errorf("two signatures differ: %v", err)
	}
	head := wire(t, "a.example.") + "\x00\x2e\x00\x01\x00\x00\x01\x2c\x00" + string(byte(len(data)))
	rr, _, err := dns.UnpackRR([]byte(head+data), 0)
	if err != nil {
		t.Fatal(err)
	}
	sig := rr.(*dns.RRSIG)
	dnskey := &dns.DNSKEY{Hdr: dns.RR_Header{Name: "example.", Rrtype: dns.TypeDNSKEY, Class: 1}, Flags: 257,
		Protocol:  3,
		Algorithm: Algorithm}
	head = wire(t, "example.") + "\x00\x30\x00\x01\x00\x00\x01\x2c\x00" + string(byte(len(key.DNSKEY())))
	if rr, _, err = dns.UnpackRR([]byte(head+key.DNSKEY()), 0); err != nil {
		t.Fatal(err)
	}
	*dnskey = *rr.(*dns.DNSKEY)
	mx.Header().Name = "a.example." // made from the wildcard
	if err := sig.Verify(dnskey, []dns.RR{mx}); err != nil {
		t.Errorf("the signature is wrong: %v", err)
	}
	if dnskey.KeyTag() != key.Tag() {
		t.Errorf("tag %d, want %d", key.Tag(), dnskey.KeyTag())
	}
	for _, at := range []time.Time{time.Unix(begin, 0).Add(-23 * time.Hour),
		time.Unix(end, 0).Add(Grace + MaxTTL - time.Second)} {
		if !sig.ValidityPeriod(at) {
			t.Errorf("the signature is not valid at %v", at)
		}
	}
	if ds := dnskey.ToDS(dns.SHA256); !strings.EqualFold(ds.Digest, hexOf(key.DS(wire(t, "example."))[4:])) {
		t.Errorf("DS %x, want %s", key.DS(wire(t, "example.")), ds.Digest)
	}
}

func hexOf(s string) string {
	const digits = "0123456789abcdef"
	var b strings.Builder
	for i := range len(s) {
		b.WriteByte(digits[s[i]>>4])
		b.WriteByte(digits[s[i]&15])
	}
	return b.String()
}

// FuzzParse checks that no file makes Parse panic, and that accepted keys are the same after Format
// and Parse.
func FuzzParse(f *testing.F) {
	key, err := Generate()
	if err != nil {
		f.Fatal(err)
	}
	other, err := Generate()
	if err != nil {
		f.Fatal(err)
	}
	other.State, other.Seen = Next, time.Unix(1e9, 0)
	text, err := Keys{key, other}.Format()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte("Private-key-format: v1.3\nAlgorithm: 13\nPrivateKey: AAAA\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		keys, err := Parse(text)
		if err != nil {
			return
		}
		written, err := keys.Format()
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse(written)
		if err != nil || len(again) != len(keys) {
			t.Fatalf("%v\n%s", err, written)
		}
		for i := range keys {
			if !again[i].Same(keys[i]) || again[i].State != keys[i].State || !again[i].Seen.Equal(keys[i].Seen) {
				t.Fatalf("key %d differs:\n%s", i, written)
			}
		}
	})
}

// TestParse checks which files are rejected, and that no error contains a key.
func TestParse(t *testing.T) {
	t.Parallel()
	const good = "Private-key-format: v1.3\nAlgorithm: 13 (ECDSAP256SHA256)\nPrivateKey: GU6SnQ/Ou+xC5RumuIUIuJZteXT2z0O/ok1s38Et6mQ=\n"
	for text, want := range map[string]string{
		good: "",
		"; a comment\n\n" + good + "Created: 2026\n": "",
		"":                        "no key",
		good + good:               "two keys have the tag",
		good + "State: retired\n": "0 keys are active",
		good + "State: gone\n":    `the state "gone"`,
		good + "Other: 1\n":       `unknown field "Other"`,
		strings.Replace(good, "13 (ECDSAP256SHA256)", "8 (RSASHA256)", 1): "algorithm",
		strings.Replace(good, "GU6S", "GU6", 1):                           "not 32 octets",
		"PrivateKey: x\n":                                                 "line 1: not a line of a private key",
	} {
		_, err := Parse([]byte(text))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
		if err != nil && strings.Contains(err.Error(), "Ou+xC5RumuIUI") {
			t.Errorf("a message shows the key: %v", err)
		}
	}
}

// TestTypes compares bitmaps with those of miekg/dns.
func TestTypes(t *testing.T) {
	t.Parallel()
	for _, types := range [][]uint16{{1, 2, 6, 15, 46, 47}, {46, 47, 128}, {257, 1, 65280, 46}, {255, 256}} {
		sorted := slices.Sorted(slices.Values(types))
		nsec := &dns.NSEC{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeNSEC, Class: 1}, NextDomain: ".",
			TypeBitMap: sorted}
		b := make([]byte, 8300)
		end, err := dns.PackRR(nsec, b, 0, nil, false)
		if err != nil {
			t.Fatal(err)
		}
		if got := AppendTypes(nil, types); string(got) != string(b[12:end]) {
			t.Errorf("%v: %x, want %x", sorted, got, b[12:end])
		}
	}
}
