//go:build real

package main

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kaiku-cdn/kaiku/edge/admin"
	"github.com/kaiku-cdn/kaiku/edge/purge"
	"github.com/kaiku-cdn/kaiku/edge/site"
)

// thousand is a fleet of 1,000 edges, whose reports are always new.
type thousand struct{}

func (thousand) Progress(context.Context, uint64, bool) []purge.Progress { return nil }
func (thousand) Names() []string                                         { return nil }
func (thousand) Drain(context.Context, string, bool) error               { return nil }
func (thousand) Location(string) *[2]float64                             { return nil }
func (thousand) NameServers() []string                                   { return nil }

func (thousand) Nodes() []admin.NodeStatus {
	var out []admin.NodeStatus
	for i := range 1000 {
		out = append(out, admin.NodeStatus{Node: fmt.Sprint("edge-", i), Roles: []string{"edge"}, Region: "eu",
			Version: "0.4.0", Live: i%50 != 0, Ready: true, Draining: i%70 == 0})
	}
	return out
}

func (thousand) Reports(_ context.Context, since int64) ([]admin.Reported, []admin.Point, error) {
	var out []admin.Reported
	for i := range 1000 {
		r := admin.Report{Location: &[2]float64{float64(i*37%110) - 45, float64(i*101%340) - 170},
			Rates:   &admin.Rates{Requests: 1000 * rand.Float64(), Hits: 500, Bytes: 1e8 * rand.Float64()},
			Seconds: []uint64{500, 300, 100, 50, 20, 5, 1, 0, 0, 0, 0, 0},
			Store:   &admin.StoreReport{Bytes: rand.Int64N(1 << 40), Disk: 1 << 40, Objects: 1e6},
			Sites: []admin.SiteReport{{Site: "www", Up: 2, Servers: 2},
				{Site: "shop", Up: 1 + i%2, Servers: 2, Why: "down"}}}
		if i < 3 {
			r.Served = map[string]map[string]int{}
			for n := range 100 {
				r.Served[fmt.Sprint("edge-", n)] = map[string]int{"FI": rand.IntN(50), "US": 1 + n, "JP": 5}
			}
		}
		out = append(out, admin.Reported{Node: fmt.Sprint("edge-", i), Report: r})
	}
	var points []admin.Point
	for i := range int64(360) {
		if at := time.Now().Add(-time.Hour).UnixMilli() + i*10_000; at > since && since == 0 {
			rates := admin.Rates{Requests: 1e5 * rand.Float64()}
			points = append(points, admin.Point{At: at, Rates: rates, Edges: 1000})
		}
	}
	return out, points, nil
}

// A page of 1,000 nodes that all change every two seconds stays usable. The test logs how long its
// frames take.
func TestRealPageOfManyNodes(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	s := &admin.Server{Address: "127.0.0.1:0", Fleet: thousand{}, Registry: prometheus.NewRegistry(), Log: log,
		Purger: &purge.Purger{Node: "edge-1", Sites: &site.Table{}, Tokens: &purge.Tokens{}, Log: log}}
	if err := s.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	b := openTab(t)
	b.screen(1280, 1000, "light")
	b.call("Page.navigate", map[string]any{"url": "http://" + s.Addr().String() + "/"}, nil)
	// the node that answers has no place
	b.until("document.querySelectorAll('#dots circle').length === 999 && document.querySelectorAll('#rows tr').length === 50")
	// CPU time, because the machine may be busy.
	b.call("Performance.enable", map[string]any{"timeDomain": "threadTicks"}, nil)
	before := b.spent()
	b.eval("new Promise(ok => setTimeout(ok, 8000))")
	t.Logf("of 8 s, the page's thread works for %.0f ms", 1000*(b.spent()-before))
	b.eval("document.getElementById('filter').focus()")
	b.write("edge-70")
	b.until("[...document.querySelectorAll('#rows th')].map(e => e.textContent).join() === 'edge-700,edge-70,edge-701,edge-702,edge-703,edge-704,edge-705,edge-706,edge-707,edge-708,edge-709'")
}

// spent returns the CPU time that the page's thread has taken, in seconds.
func (b *tab) spent() float64 {
	b.t.Helper()
	var out struct {
		Metrics []struct {
			Name  string
			Value float64
		}
	}
	b.call("Performance.getMetrics", nil, &out)
	for _, m := range out.Metrics {
		if m.Name == "TaskDuration" {
			return m.Value
		}
	}
	b.t.Fatal("no TaskDuration")
	return 0
}
