package geodns

import (
	"net"
	"net/netip"
	"testing"

	"github.com/miekg/dns"
)

// exchangeSubnet sends a query over UDP from a loopback address, with a client subnet. It returns
// the first address of the answer and the client subnet of the response.
func exchangeSubnet(t *testing.T, s *Server, from, q, subnet string) (addr string, got *dns.EDNS0_SUBNET) {
	t.Helper()
	prefix := netip.MustParsePrefix(subnet)
	m := question(q)
	m.SetEdns0(1232, false)
	sent := &dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: uint8(prefix.Bits()),
		Address: prefix.Addr().AsSlice()}
	if prefix.Addr().Is6() {
		sent.Family = 2
	}
	m.IsEdns0().Option = append(m.IsEdns0().Option, sent)
	client := dns.Client{Dialer: &net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(from)}}}
	resp, _, err := client.ExchangeContext(t.Context(), m, s.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, rr := range resp.Answer {
		if a, ok := rr.(*dns.A); ok && addr == "" {
			addr = a.A.String()
		}
	}
	for _, o := range resp.IsEdns0().Option {
		if e, ok := o.(*dns.EDNS0_SUBNET); ok {
			got = e
		}
	}
	if got == nil {
		t.Fatalf("%s of %s: no client subnet in %v", q, subnet, resp)
	}
	return addr, got
}

// If a client subnet has no known place, the resolver's place is used. The scope then covers only
// networks without a place.
func TestSubnetWithoutPlaceHasTheResolvers(t *testing.T) {
	cfg := testConfig(t)
	cfg.Locate = map[netip.Prefix]Place{
		netip.MustParsePrefix("127.0.0.0/24"): newYork,
		netip.MustParsePrefix("127.0.1.0/24"): helsinki,
		netip.MustParsePrefix("10.20.0.0/16"): tokyo,
		netip.MustParsePrefix("fd00::/8"):     helsinki,
	}
	s := new(Server)
	serve(t, s, cfg)
	const hel, nyc, tyo = "203.0.113.10", "198.51.100.20", "192.0.2.40"
	for _, test := range []struct {
		subnet, fromNewYork, fromHelsinki string
		scope                             int
	}{
		{"192.168.7.0/24", nyc, hel, 16},
		{"10.0.0.0/8", nyc, hel, 12}, // up to the start of 10.20.0.0/16
		{"10.128.1.0/24", nyc, hel, 9},
		{"172.16.1.0/24", nyc, hel, 12},
		{"100.64.1.0/24", nyc, hel, 10},
		{"169.254.1.0/24", nyc, hel, 16},
		{"127.7.0.0/24", nyc, hel, 14},
		{"192.0.2.0/24", nyc, hel, 24},
		{"fc00::/48", nyc, hel, 8}, // fd00::/8 is in Config.Locate
		{"fe80::/64", nyc, hel, 7},
		{"::1/128", nyc, hel, 81}, // up to ::ffff:0:0/96
		// Places from Config.Locate and from the table of countries are used.
		{"10.20.7.0/24", tyo, tyo, 16},
		{"fd00:7::/48", hel, hel, 8},
		{"128.112.0.0/16", nyc, nyc, -1},
		{"193.166.0.0/16", hel, hel, -1},
	} {
		for range 2 { // the second time, the choice may be remembered
			for from, want := range map[string]string{"127.0.0.1": test.fromNewYork, "127.0.1.1": test.fromHelsinki} {
				got, subnet := exchangeSubnet(t, s, from, "example.com. A", test.subnet)
				if got != want || test.scope >= 0 && int(subnet.SourceScope) != test.scope {
					t.Errorf("%s by %s: %s with scope %d, want %s with %d", test.subnet, from, got, subnet.SourceScope,
						want, test.scope)
				}
			}
		}
	}
}
