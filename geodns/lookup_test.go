package geodns

import (
	"net/netip"
	"slices"
	"testing"
)

// TestLookupLimited queries a server that answers one query per second over UDP.
func TestLookupLimited(t *testing.T) {
	s := new(Server)
	cfg := testConfig(t)
	cfg.RateLimit = RateLimit{Responses: 1, Slip: 1, Exempt: []netip.Prefix{}}
	serve(t, s, cfg)
	for range 20 {
		got, err := Lookup(t.Context(), s.LocalAddr().String(), "www.example.com",
			netip.MustParsePrefix("10.20.0.0/24"))
		if err != nil || !slices.Equal(got, addrs("198.51.100.20")) {
			t.Fatalf("addresses are %v, %v", got, err)
		}
	}
}
