package geodns

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

func TestSerialBackwards(t *testing.T) {
	zone := func(serial string) *Zone {
		z, errs := ParseZone(strings.NewReader("@ 60 IN SOA ns1 hostmaster "+serial+
			" 1 2 3 4\n@ 60 IN NS ns1\nns1 60 IN A 192.0.2.1\n"), "example.com", "zone")
		if len(errs) > 0 {
			t.Fatal(errs)
		}
		return z
	}
	for _, c := range []struct {
		from, to string
		warns    bool
	}{
		{"2026112301", "2026112302", false}, {"2026112302", "2026112301", true}, {"7", "7", false},
		{"4294967295", "1", false}, // the serial wraps (RFC 1982)
		{"1", "4294967295", true},
	} {
		var log bytes.Buffer
		s := &Server{Log: slog.New(slog.NewTextHandler(&log, nil))}
		for _, serial := range []string{c.from, c.to} {
			if err := s.Reload(Config{Zones: []*Zone{zone(serial)}}); err != nil {
				t.Fatal(err)
			}
		}
		if got := strings.Contains(log.String(), "went backwards"); got != c.warns {
			t.Errorf("from %s to %s: warning %v\n%s", c.from, c.to, got, log.String())
		}
	}
}
