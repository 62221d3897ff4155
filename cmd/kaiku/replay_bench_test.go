package main

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
	"github.com/kaiku-cdn/kaiku/cmd/kaiku/node"
	"github.com/kaiku-cdn/kaiku/edge/purge"
	"github.com/kaiku-cdn/kaiku/fleet"
	"github.com/kaiku-cdn/kaiku/fleet/freeport"
	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// BenchmarkReplay measures how long an edge takes to catch up with a hundred thousand purges that
// it has slept through, its store included. The control node writes each purge to its disk before
// it takes the next, so filling the log takes a minute or more. Run it with -benchtime 1x.
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
	writeFiles(b, dir, map[string]string{"fleet.yaml": text, "fleet.key": regionKey})
	fleetFile := filepath.Join(dir, "fleet.yaml")
	log := slog.New(slog.DiscardHandler)
	start := func(name string) (p *node.Process, stop func()) {
		p = newNode(b, fleetFile, name, node.Overrides{}, log)
		return p, serveNode(b, name, p)
	}
	start("c1")
	p, stop := start("hel1")
	testwait.Until(b, "the edge is in touch", func() bool { return p.Edge.Purges.InTouch() })
	stop()
	appendPurges(b, fleetFile, purges)

	b.ResetTimer()
	p, stop = start("hel1")
	testwait.Until(b, "the edge has caught up", func() bool { return p.Edge.Purges.InTouch() })
	b.StopTimer()
	if got := p.Edge.Store.Position().Seq; got != purges {
		b.Errorf("the edge has applied %d purges of %d", got, purges)
	}
	stop()
}

// appendPurges appends n purges to the log of control node c1.
func appendPurges(b *testing.B, fleetFile string, n int) {
	b.Helper()
	key, err := fleet.NewKey([]byte(regionKey))
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
	c := &fleet.Client{Node: "purger", Servers: []string{clients["c1"]}, TLS: conf, Log: slog.New(slog.DiscardHandler)}
	if err := c.Dial(); err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	var group sync.WaitGroup
	next := make(chan int)
	for range 64 {
		group.Go(func() {
			for i := range next {
				one := purge.Request{URLs: []string{fmt.Sprintf("https://www.example.com/some/page/%d.html", i)}}
				for {
					if _, err := c.Append(b.Context(), fmt.Sprint(i), "", one); err == nil {
						break
					}
				}
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	group.Wait()
}
