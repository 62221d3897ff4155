package config

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/kaiku-cdn/kaiku/geodns"
)

// serialServer starts a name server whose zone has a serial. It returns the server's address.
func serialServer(t *testing.T, serial uint32) string {
	t.Helper()
	text := fmt.Sprintf("@ 60 IN SOA ns1 h %d 2 3 4 5\n@ 60 IN NS ns1\nns1 60 IN A 127.0.0.1\n", serial)
	zone, errs := geodns.ReadZone("example.com", "example.com.zone", func(string) (string, error) { return text, nil })
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	s := &geodns.Server{Addr: "127.0.0.1:0", Log: slog.New(slog.DiscardHandler)}
	if err := s.Reload(geodns.Config{Zones: []*geodns.Zone{zone}}); err != nil {
		t.Fatal(err)
	}
	if err := s.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s.LocalAddr().String()
}

// check queries the fleet's name servers, and warns of a serial that would go backwards.
func TestCheckFindsSerialsThatGoBackwards(t *testing.T) {
	server := serialServer(t, 2026112702)
	fleet := "nodes:\n  ns1: { roles: [geodns], addresses: [127.0.0.1] }\n" +
		"geodns: { listen: \"" + server + "\", zones: [{ name: example.com, file: example.com.zone }] }\n"
	for _, c := range []struct {
		name, soa string
		offline   bool
		want      string
	}{
		{"behind", "@ 60 IN SOA ns1 h 2026112701 2 3 4 5", false,
			"zone:1:19: warning: the serial 2026112701 is behind 2026112702, which ns1 (" + server +
				") answers, so that whoever compares serials keeps the zone of before: write 2026112703"},
		{"in lines of its own", "@ 60 IN SOA ns1 h (\n  2026112701 ; serial\n  2 3 4 5 )", false,
			"zone:2:3: warning: the serial 2026112701 is behind"},
		{"offline", "@ 60 IN SOA ns1 h 2026112701 2 3 4 5", true, ""},
		{"the same", "@ 60 IN SOA ns1 h 2026112702 2 3 4 5", false, ""},
		{"ahead", "@ 60 IN SOA ns1 h 2026112703 2 3 4 5", false, ""},
		{"around", "@ 60 IN SOA ns1 h 4026112703 2 3 4 5", false, ""},
		{"behind by the clock's other half", "@ 60 IN SOA ns1 h 4226112703 2 3 4 5", false,
			"the serial 4226112703 is behind"},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, failed := audited(t, writeFleet(t, fleet, c.soa+"\n@ 60 IN NS ns1\nns1 60 IN A 127.0.0.1\n"),
				Audit{Serials: !c.offline})
			if failed || !strings.Contains(out, c.want) || c.want == "" && strings.Contains(out, "warning") {
				t.Errorf("got\n%s\nwant %q", out, c.want)
			}
		})
	}
}
