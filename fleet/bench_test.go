package fleet

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// BenchmarkPurgeToAllEdges measures the time from a purge being acknowledged until the last of 20
// edges has applied it.
func BenchmarkPurgeToAllEdges(b *testing.B) {
	const edges = 20
	nodes := startControl(b, b.TempDir(), 1)
	type applied struct {
		seq uint64
		at  time.Time
	}
	news := make(chan applied, edges*16)
	var followers []*Follower
	for i := range edges {
		f := &Follower{Client: dial(b, nodes, fmt.Sprintf("edge%d", i), RoleEdge),
			Apply: func(_ []Logged, after Position) error {
				news <- applied{after.Seq, time.Now()}
				return nil
			},
			Lost: func(Position) error { return nil }}
		followers = append(followers, f)
		go func() { _ = f.Serve(b.Context()) }()
	}
	for _, f := range followers {
		testwait.Until(b, "all are in touch", f.InTouch)
	}
	c := dial(b, nodes, "purger", RoleEdge)
	appendPurge(b, c, -1)
	for range edges {
		<-news
	}
	var took []time.Duration
	b.ResetTimer()
	for i := range b.N {
		seq := appendPurge(b, c, i)
		acknowledged := time.Now()
		last := time.Duration(0)
		for range edges {
			if a := <-news; a.seq == seq {
				last = max(last, a.at.Sub(acknowledged))
			}
		}
		took = append(took, last)
	}
	b.StopTimer()
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "median-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
}

// BenchmarkReplay has an edge that was away for a million purges catch up. Run it with -benchtime
// 1x.
func BenchmarkReplay(b *testing.B) {
	const purges = 1_000_000
	nodes := startControl(b, b.TempDir(), 1)
	nodes[0].stop()
	nodes[0].noSync = true
	nodes[0].start(b)
	c := dial(b, nodes, "purger", RoleEdge)
	appendPurge(b, c, -1)
	for i := range purges {
		p, err := json.Marshal(map[string][]string{"urls": {fmt.Sprintf("https://www.example.com/some/page/%d.html",
			i)}})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := c.js.PublishAsync(subjectOf(""), p, jetstream.WithStallWait(time.Minute)); err != nil {
			b.Fatal(err)
		}
	}
	<-c.js.PublishAsyncComplete()
	last, _, err := c.position(b.Context())
	if err != nil || last.Seq < purges {
		b.Fatalf("the log is at %v, %v", last, err)
	}
	b.ResetTimer()
	for i := range b.N {
		var n atomic.Int64
		f := &Follower{Client: dial(b, nodes, fmt.Sprintf("edge%d", i), RoleEdge), Start: Position{Log: last.Log},
			Apply: func(purges []Logged, _ Position) error {
				n.Add(int64(len(purges)))
				return nil
			},
			Lost: func(Position) error { return io.ErrUnexpectedEOF }}
		go func() { _ = f.Serve(b.Context()) }()
		testwait.Until(b, "it has caught up", f.InTouch)
		if n.Load() != int64(last.Seq) {
			b.Fatalf("%d purges came, want %d", n.Load(), last.Seq)
		}
	}
}

// BenchmarkHeal measures how long purges are refused after three control nodes that were all cut
// off for 15 s can reach each other again, and when the first has a connection to another one. Run
// it with -benchtime 5x.
func BenchmarkHeal(b *testing.B) {
	nodes, cut := apart(b, 3)
	c := dial(b, nodes[:1], "hel1", RoleEdge)
	appendPurge(b, c, 0)
	var routes, purges []time.Duration
	for b.Loop() {
		for i := range nodes {
			cut(i, true)
		}
		testwait.Until(b, "all are alone", func() bool {
			for _, n := range nodes {
				if n.nats().NumRoutes() > 0 {
					return false
				}
			}
			return true
		})
		time.Sleep(15 * time.Second)
		for i := range nodes {
			cut(i, false)
		}
		healed := time.Now()
		testwait.Until(b, "two are connected", func() bool { return nodes[0].nats().NumRoutes() > 0 })
		routes = append(routes, time.Since(healed))
		appendPurge(b, c, len(routes))
		purges = append(purges, time.Since(healed))
	}
	slices.Sort(routes)
	slices.Sort(purges)
	b.ReportMetric(routes[len(routes)/2].Seconds(), "route-median-s")
	b.ReportMetric(purges[len(purges)/2].Seconds(), "purge-median-s")
	b.ReportMetric(purges[len(purges)-1].Seconds(), "purge-max-s")
	b.ReportMetric(0, "ns/op")
}
