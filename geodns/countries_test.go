package geodns

import (
	"net/netip"
	"testing"
)

func TestCountries(t *testing.T) {
	t.Parallel()
	c, err := OpenCountries("testdata/finland.mmdb", nil)
	if err != nil {
		t.Fatal(err)
	}
	for addr, want := range map[string]string{"203.0.113.9": "FI", "::ffff:203.0.113.9": "FI", "127.0.0.1": ""} {
		if got := c.Of(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s is in %q, want %q", addr, got, want)
		}
	}
	if got := c.Of(netip.Addr{}); got != "" {
		t.Errorf("no address is in %q", got)
	}
	if same, err := OpenCountries("testdata/finland.mmdb", c); err != nil || same != c {
		t.Errorf("an unchanged file is read again: %v", err)
	}
	if _, err := OpenCountries("testdata", nil); err == nil {
		t.Error("a folder is a database")
	}
}
