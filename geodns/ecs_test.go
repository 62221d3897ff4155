package geodns

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/miekg/dns"
)

func TestParseECS(t *testing.T) {
	for _, test := range []struct {
		name   string
		data   []byte
		addr   string
		source int
		bad    bool
	}{
		{name: "IPv4 /24", data: []byte{0, 1, 24, 0, 192, 0, 2}, addr: "192.0.2.0", source: 24},
		{name: "IPv4 /32", data: []byte{0, 1, 32, 0, 192, 0, 2, 1}, addr: "192.0.2.1", source: 32},
		{name: "IPv4 /20", data: []byte{0, 1, 20, 0, 192, 0, 0xf0}, addr: "192.0.240.0", source: 20},
		{name: "IPv4 /0", data: []byte{0, 1, 0, 0}, addr: "0.0.0.0"},
		{name: "IPv6 /56", data: []byte{0, 2, 56, 0, 0x20, 1, 0x0d, 0xb8, 0, 0, 0xab}, addr: "2001:db8:0:ab00::",
			source: 56},
		{name: "IPv6 /128", data: append([]byte{0, 2, 128, 0}, netip.MustParseAddr("2001:db8::1").AsSlice()...),
			addr: "2001:db8::1", source: 128},
		{name: "IPv6 /0", data: []byte{0, 2, 0, 0}, addr: "::"},
		{name: "no family, no address", data: []byte{0, 0, 0, 0}, addr: "invalid IP"},

		{name: "nothing", bad: true},
		{name: "short", data: []byte{0, 1, 0}, bad: true},
		{name: "scope", data: []byte{0, 1, 24, 24, 192, 0, 2}, bad: true},
		{name: "too few octets", data: []byte{0, 1, 24, 0, 192, 0}, bad: true},
		{name: "too many octets", data: []byte{0, 1, 24, 0, 192, 0, 2, 0}, bad: true},
		{name: "an octet of /0", data: []byte{0, 1, 0, 0, 0}, bad: true},
		{name: "bits beyond the source", data: []byte{0, 1, 20, 0, 192, 0, 0xf8}, bad: true},
		{name: "IPv4 /33", data: []byte{0, 1, 33, 0, 192, 0, 2, 0, 0}, bad: true},
		{name: "IPv6 /129", data: append([]byte{0, 2, 129, 0}, make([]byte, 17)...), bad: true},
		{name: "IPv6 /255", data: append([]byte{0, 2, 255, 0}, make([]byte, 32)...), bad: true},
		{name: "no family, an address", data: []byte{0, 0, 8, 0, 10}, bad: true},
		{name: "unknown family", data: []byte{0, 3, 8, 0, 10}, bad: true},
	} {
		got, err := parseECS(test.data)
		if (err != nil) != test.bad {
			t.Errorf("%s: error is %v", test.name, err)
		}
		if err == nil && (got.addr.String() != test.addr || got.source != test.source) {
			t.Errorf("%s: is %v/%d, want %s/%d", test.name, got.addr, got.source, test.addr, test.source)
		}
	}
}

func FuzzECS(f *testing.F) {
	f.Add([]byte{0, 1, 24, 0, 192, 0, 2})
	f.Add([]byte{0, 1, 20, 0, 192, 0, 0xf0})
	f.Add([]byte{0, 2, 56, 0, 0x20, 1, 0x0d, 0xb8, 0, 0, 0xab})
	f.Add([]byte{0, 0, 0, 0})
	f.Add([]byte{0, 3, 8, 0, 10})
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := parseECS(b)
		if err != nil {
			return
		}
		if e.source > 0 {
			// An accepted subnet is a network in its only valid encoding.
			prefix, err := e.addr.Prefix(e.source)
			if err != nil || prefix.Addr() != e.addr {
				t.Fatalf("%x is %v/%d", b, e.addr, e.source)
			}
			if !bytes.Equal(b[4:], e.addr.AsSlice()[:(e.source+7)/8]) {
				t.Fatalf("%x has address %v", b, e.addr)
			}
		}
		want := append([]byte{0, 8, byte(len(b) >> 8), byte(len(b))}, b...)
		want[7] = 17
		if got := e.appendTo(nil, 17); !bytes.Equal(got, want) {
			t.Fatalf("%x is echoed as %x", b, got)
		}
	})
}

// TestECSMapped asks for an IPv4 client in an IPv6 subnet option. The scope is that of an IPv6
// network, and contains only IPv4-mapped addresses.
func TestECSMapped(t *testing.T) {
	s := newServer(t, testConfig(t))
	resp := mustAnswer(t, s, withOptions(t, "www.example.com. A", "ecs:00027800"+"00000000000000000000ffff0a1401"),
		nowhere, false)
	wantRRs(t, "answer", resp.Answer, "www.example.com. 30 IN A 198.51.100.20")
	plain := mustAnswer(t, s, withOptions(t, "www.example.com. A", "ecs:000118000a1401"), nowhere, false)
	scope := func(m *dns.Msg) int { return int(m.IsEdns0().Option[0].(*dns.EDNS0_SUBNET).SourceScope) }
	if scope(plain) == 0 || scope(resp) != 96+scope(plain) {
		t.Errorf("scope is %d, that of IPv4 is %d", scope(resp), scope(plain))
	}
}
