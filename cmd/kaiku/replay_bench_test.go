package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
	"github.com/kaiku-cdn/kaiku/cmd/kaiku/node"
	"github.com/kaiku-cdn/kaiku/edge"
	"github.com/kaiku-cdn/kaiku/fleet"
	"github.com/kaiku-cdn/kaiku/fleet/freeport"
)

// BenchmarkReplay has an edge that slept for a hundred thousand purges catch up, its store
// included. Each is on the disk before the next: filling the log takes a minute or more. Run it
// with -benchtime 1x.
func BenchmarkReplay(b *testing.B) {
	const purges = 100_000
	dir := b.TempDir()
	addr := func() string { return freeport.Addr(b) }
	text := fmt.Sprintf(`
sites: [{ name: www, hosts: [www.example.com], origin: { servers: ["http://127.0.0.1:1"] } }]
edge: { disk: 256MiB }
secrets: { fleet_key: fleet.key }
nodes:
  c1: { roles: [control], addresses: [127.0.0.9], control: { listen: %q, data: %q } }
  hel1: { roles: [edge], location: [0, 0], addresses: [127.0.0.1], edge: { http: %q, admin: %q, data: %q } }
`, addr(), filepath.Join(dir, "c1"), addr(), addr(), filepath.Join(dir, "hel1"))
	fleetFile := filepath.Join(dir, "fleet.yaml")
	for file, content := range map[string]string{fleetFile: text,
		filepath.Join(dir, "fleet.key"): strings.Repeat("secret", 8)} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	log := slog.New(slog.DiscardHandler)
	start := func(name string) (*node.Process, func()) {
		f, _, err := config.Load(fleetFile)
		if err != nil {
			b.Fatal(err)
		}
		p, err := node.New(fleetFile, name, f.Node(name).Roles, node.Overrides{}, log)
		if err != nil {
			b.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- p.Run(ctx) }()
		return p, func() {
			cancel()
			if err := <-done; err != nil {
				b.Error(err)
			}
		}
	}
	_, stopControl := start("c1")
	defer stopControl()
	p, stop := start("hel1")
	until(b, "the edge is in touch", func() bool { return p.Edge.Purges.InTouch() })
	stop()

	key, err := fleet.NewKey([]byte(strings.Repeat("secret", 8)))
	if err != nil {
		b.Fatal(err)
	}
	conf, err := key.TLS("purger", fleet.RoleEdge)
	if err != nil {
		b.Fatal(err)
	}
	f, _, err := config.Load(fleetFile)
	if err != nil {
		b.Fatal(err)
	}
	clients, _ := f.ControlAddresses()
	c := &fleet.Client{Node: "purger", Servers: []string{clients["c1"]}, TLS: conf, Log: log}
	if err := c.Dial(); err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	var wg sync.WaitGroup
	next := make(chan int)
	for range 64 {
		wg.Go(func() {
			for i := range next {
				for {
					if _, err := c.Append(b.Context(), fmt.Sprint(i), "",
						edge.PurgeRequest{URLs: []string{fmt.Sprintf("https://www.example.com/some/page/%d.html",
							i)}}); err == nil {
						break
					}
				}
			}
		})
	}
	for i := range purges {
		next <- i
	}
	close(next)
	wg.Wait()

	b.ResetTimer()
	p, stop = start("hel1")
	until(b, "the edge has caught up", func() bool { return p.Edge.Purges.InTouch() })
	b.StopTimer()
	if got := p.Edge.Store.Position().Seq; got != purges {
		b.Errorf("it trusts what it has at %d of %d", got, purges)
	}
	stop()
}
