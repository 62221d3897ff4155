package geodns

import (
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// withOptions returns a query with the given EDNS options, each as "code:hex".
func withOptions(t testing.TB, q string, options ...string) *dns.Msg {
	t.Helper()
	m := question(q)
	m.SetEdns0(4096, false)
	for _, s := range options {
		code, text, _ := strings.Cut(s, ":")
		data, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		n, ok := map[string]uint16{"nsid": optionNSID, "ecs": optionECS, "cookie": optionCookie,
			"keepalive": optionKeepalive, "unknown": 65001}[code]
		if !ok {
			t.Fatalf("no option %s", code)
		}
		m.IsEdns0().Option = append(m.IsEdns0().Option, &dns.EDNS0_LOCAL{Code: n, Data: data})
	}
	return m
}

// optionCodes returns the codes of a message's options.
func optionCodes(m *dns.Msg) (codes []uint16) {
	if opt := m.IsEdns0(); opt != nil {
		for _, o := range opt.Option {
			codes = append(codes, o.Option())
		}
	}
	return codes
}

// TestNSID checks RFC 5001: every response to a query with NSID has the identity, if there is one,
// with any rcode.
func TestNSID(t *testing.T) {
	for _, test := range []struct {
		name, identity, query string
		options               []string
		want                  string
	}{
		{name: "asked", identity: "ns1.hel", query: "mail.example.com. A", options: []string{"nsid:"}, want: "ns1.hel"},
		{name: "with a payload", identity: "ns1.hel", query: "mail.example.com. A", options: []string{"nsid:616263"},
			want: "ns1.hel"},
		{name: "twice", identity: "ns1.hel", query: "mail.example.com. A", options: []string{"nsid:", "nsid:"},
			want: "ns1.hel"},
		{name: "REFUSED", identity: "ns1.hel", query: "example.org. A", options: []string{"nsid:"}, want: "ns1.hel"},
		{name: "FORMERR", identity: "ns1.hel", query: "mail.example.com. A", options: []string{"nsid:", "ecs:0001"},
			want: "ns1.hel"},
		{name: "not asked", identity: "ns1.hel", query: "mail.example.com. A", options: []string{"unknown:"}},
		{name: "no identity", query: "mail.example.com. A", options: []string{"nsid:"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := &Server{Identity: test.identity}
			if err := s.Reload(testConfig(t)); err != nil {
				t.Fatal(err)
			}
			resp := mustAnswer(t, s, withOptions(t, test.query, test.options...), nowhere, false)
			got := ""
			for _, o := range resp.IsEdns0().Option {
				if nsid, ok := o.(*dns.EDNS0_NSID); ok {
					b, _ := hex.DecodeString(nsid.Nsid)
					got += string(b)
				}
			}
			if got != test.want {
				t.Errorf("NSID is %q, want %q", got, test.want)
			}
		})
	}
	if err := (&Server{Identity: strings.Repeat("x", 129)}).Reload(testConfig(t)); err == nil {
		t.Error("an identity that may not fit")
	}
}

// TestOptionsIgnored checks RFC 6891 section 6.1.2: unknown options are ignored and not echoed.
func TestOptionsIgnored(t *testing.T) {
	s := newServer(t, testConfig(t))
	resp := mustAnswer(t, s, withOptions(t, "mail.example.com. A", "unknown:010203", "ecs:00011800c00002", "unknown:"),
		nowhere, false)
	wantRRs(t, "answer", resp.Answer, mail...)
	if got := optionCodes(resp); !slices.Equal(got, []uint16{optionECS}) {
		t.Errorf("options are %v", got)
	}
}

// TestUDPSizeLow checks RFC 6891 section 6.2.3: a size below 512 counts as 512. The answer is
// almost that long.
func TestUDPSizeLow(t *testing.T) {
	cfg := testConfig(t)
	cfg.Zones[0] = mustZone(t, testZone+"txt IN TXT "+strings.Repeat("x", 230)+" "+strings.Repeat("y", 180)+"\n",
		"example.com")
	s := newServer(t, cfg)
	m := question("txt.example.com. TXT")
	m.SetEdns0(0, false)
	if resp := mustAnswer(t, s, m, nowhere, false); resp.Truncated || len(resp.Answer) != 1 {
		t.Errorf("response is %v", resp)
	}
}

// TestOPTFits fills the smallest response with the longest question and all options, because pack
// can't fail.
func TestOPTFits(t *testing.T) {
	s := &Server{Identity: strings.Repeat("i", maxIdentity)}
	if err := s.Reload(testConfig(t)); err != nil {
		t.Fatal(err)
	}
	label := strings.Repeat("x", 63) + "."
	longest := label + label + label + strings.Repeat("x", 49) + ".example.com. A"
	m := withOptions(t, longest, allOptions...)
	m.IsEdns0().SetUDPSize(512)
	req, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	resp := mustAnswerRaw(t, s, req, nowhere, false)
	if len(m.Question[0].Name) != 254 || resp.Rcode != dns.RcodeNameError || len(optionCodes(resp)) != len(allOptions) {
		t.Errorf("response is %v", resp)
	}
	if out := s.answer(req, nowhere, false, nil); len(out) > 512 {
		t.Errorf("%d octets", len(out))
	}
	if n := dns.Len(resp.IsEdns0()); n != maxOPT || headerLen+maxName+4+n > plainSize {
		t.Errorf("OPT of %d octets, want %d", n, maxOPT)
	}
}

// allOptions has every option that is answered over UDP, at its maximum length.
var allOptions = []string{"nsid:", "ecs:00028000" + "20010db8000000000000000000000001", "cookie:0102030405060708"}
