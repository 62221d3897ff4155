package main

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
	"github.com/kaiku-cdn/kaiku/cmd/kaiku/node"
	"github.com/kaiku-cdn/kaiku/fleet/freeport"
	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// geodns.listen and --listen take several addresses, which all answer.
func TestSeveralListenAddresses(t *testing.T) {
	k := newKeeping(t)
	first, second := freeport.Addr(t), strings.Replace(freeport.Addr(t), "127.0.0.1", "127.0.0.2", 1)
	text := `
nodes: { fra1: { roles: [geodns], location: [0, 0], addresses: [127.0.0.1] } }
geodns: { listen: LISTEN, data: copies, zones: [{ name: a.example, file: zones/a.zone }] }
`
	for name, c := range map[string]struct {
		file  string
		flags []string
	}{
		"file":  {`["` + first + `", "` + second + `"]`, nil},
		"flags": {`"127.0.0.1:1"`, []string{first, second}},
	} {
		t.Run(name, func(t *testing.T) {
			k.write("fleet.yaml", strings.Replace(text, "LISTEN", c.file, 1))
			p, err := node.New(filepath.Join(k.dir, "fleet.yaml"), "fra1", nil, node.Overrides{Listen: c.flags},
				slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- p.Run(ctx) }()
			for _, addr := range []string{first, second} {
				testwait.Until(t, addr+" answers", func() bool {
					return askSOA(ctx, (&net.Dialer{}).DialContext, addr,
						"a.example") == nil
				})
			}
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
	for list, want := range map[string]string{
		`[":53", "127.0.0.1:53"]`: "node fra1 listens on :53 for geodns already",
		`["127.0.0.1:53", ""]`:    "geodns.listen[1]: want an address to listen on",
		`["127.0.0.1:53", "x"]`:   `geodns.listen[1]: "x" is not an address to listen on`,
		`"x"`:                     `geodns.listen: "x" is not an address to listen on`,
		`{ a: b }`:                "geodns.listen: want one address, or a list of them, as [\"203.0.113.10:53\", \"[2001:db8::10]:53\"]",
	} {
		k.write("fleet.yaml", strings.Replace(text, "LISTEN", list, 1))
		if _, _, err := config.Load(filepath.Join(k.dir, "fleet.yaml")); err == nil ||
			!strings.Contains(err.Error(), want) {
			t.Errorf("listen: %s: error is %v, want %s", list, err, want)
		}
	}
	for _, list := range []string{`":53"`, `""`, "[]", `[":53"]`} {
		k.write("fleet.yaml", strings.Replace(text, "LISTEN", list, 1))
		if f, _, err := config.Load(filepath.Join(k.dir, "fleet.yaml")); err != nil ||
			!slices.Equal(f.DNSListen(), []string{":53"}) {
			t.Errorf("listen: %s: error is %v", list, err)
		}
	}
}
