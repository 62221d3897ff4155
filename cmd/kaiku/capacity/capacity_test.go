package capacity

import (
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"sort"
	"strings"
	"testing"

	"github.com/kaiku-cdn/kaiku/storage"
)

func testCosts() *Costs {
	return &Costs{Hits: []HitCost{{"http2", 1 << 10, 10}, {"http2", 32 << 10, 40}, {"http2", 1 << 20, 700}}, Miss: 200,
		Handshake: 300, Resumed: 100, Query: 5, Connection: 26000, Object: 40}
}

// million is the question of the README: a million users on two continents.
func million() *Question {
	return &Question{
		Demand: Demand{Users: 1e6, Pages: 10, Bytes: 2e6, Requests: 40, Peak: 3,
			Regions: []Region{{"eu", 0.6}, {"us", 0.4}}},
		Machine: Machine{Cores: 2, Memory: 4 << 30, Disk: 200 << 30, Line: 1e9},
		Content: Content{Objects: 1e6, Bytes: 1 << 40, Zipf: 0.9}, Costs: testCosts(), Origin: 2000}
}

func near(t *testing.T, what string, got, want, share float64) {
	t.Helper()
	if math.Abs(got-want) > share*math.Abs(want) {
		t.Errorf("%s: %g, want %g", what, got, want)
	}
}

// The arithmetic of a plan, beside the same by hand.
func TestPlanByHand(t *testing.T) {
	q := million()
	p := For(q)
	peak := 1e6 * 10 * 40 / 86400.0 * 3 // 13,889 requests a second
	eu := p.Regions[0]
	near(t, "requests", eu.Requests, 0.6*peak, 1e-9)
	near(t, "bits", eu.Bits, 0.6*peak*50000*8, 1e-9)
	near(t, "month", eu.Month, 1e6*10*2e6*0.6*30.44, 1e-9)
	// 3.33 Gbit/s on lines of 1 Gbit/s that should be 60 % full
	if eu.Edges != 6 || eu.Binds != "line" {
		t.Errorf("eu: %d edges because of %s, want 6 because of line", eu.Edges, eu.Binds)
	}
	hit := 40 + (700-40)*(50000-32768.0)/(1048576-32768)
	cpu := 0.6 * peak * (hit + (1-p.Ratios.Edge)*200 + 200.0/40) / 1e6
	near(t, "CPU", eu.CPU, cpu/2/6, 1e-9)
	near(t, "origin", p.Origin, peak*(1-p.Ratios.Fleet), 1e-9)
	near(t, "needed", p.Needed, 1-2000/peak, 1e-9)
	if p.NameServers != 2 || p.Control != 3 {
		t.Errorf("%d name servers and %d control nodes", p.NameServers, p.Control)
	}
}

func TestPlanIsDeterministic(t *testing.T) {
	if a, b := For(million()).String(), For(million()).String(); a != b {
		t.Errorf("two plans differ:\n%s\n%s", a, b)
	}
}

// Larger disks and a shield never make the ratios worse, and what binds is what is scarce.
func TestPlanFollowsItsQuestion(t *testing.T) {
	last := Ratios{}
	for _, gib := range []float64{10, 250, 1200} {
		q := million()
		q.Disk = gib * (1 << 30)
		r := For(q).Ratios
		if r.Edge <= last.Edge || r.Fleet < r.Edge {
			t.Errorf("disk of %g GiB: %+v, with less disk %+v", gib, r, last)
		}
		last = r
	}
	if last.Edge < 0.97 {
		t.Errorf("a disk that holds everything: %+v", last)
	}
	q := million()
	q.Disk = 50 << 30
	without := For(q).Ratios.Fleet
	q.Shield = true
	if with := For(q).Ratios.Fleet; with <= without {
		t.Errorf("%.4f of hits with a shield, %.4f without", with, without)
	}
	for _, c := range []struct {
		change func(*Question)
		binds  string
	}{
		{func(q *Question) { q.Line = 1e12; q.Cores = 0.1 }, "CPU"},
		{func(q *Question) { q.Line = 1e12; q.Memory = 1 << 27; q.Costs.Connection = 1e6 }, "connections"},
		{func(q *Question) { q.Users = 1000 }, "the loss of one"},
	} {
		q := million()
		q.Log = &Log{Requests: 10, Hits: 9} // no simulation
		c.change(q)
		if got := For(q).Regions[0]; got.Binds != c.binds {
			t.Errorf("%d edges because of %s, want because of %s", got.Edges, got.Binds, c.binds)
		}
	}
}

// A sample of the objects gives nearly the ratio that all of them give.
func TestSampleIsNearTheWhole(t *testing.T) {
	const objects, size = 8 * sampled, 1000
	for _, zipf := range []float64{0.7, 0.9, 1.1} {
		c := Content{Objects: objects, Bytes: objects * size, Zipf: zipf}
		const disk = objects * size / 10
		got := c.expect([]float64{1}, []int{1}, disk, false).Edge
		cumulative := make([]float64, objects)
		sum := 0.0
		for i := range cumulative {
			sum += math.Pow(float64(i+1), -zipf)
			cumulative[i] = sum
		}
		s, rng := storage.NewSimulation(disk), rand.New(rand.NewPCG(3, 4))
		hits, counted := 0, 0
		for i := range objects * 12 {
			hit := s.Request(uint64(sort.SearchFloat64s(cumulative, rng.Float64()*sum)), size)
			if i > objects*6 {
				counted++
				if hit {
					hits++
				}
			}
		}
		if want := float64(hits) / float64(counted); math.Abs(got-want) > 0.015 {
			t.Errorf("Zipf %.1f: %.4f from the sample, %.4f from all", zipf, got, want)
		}
	}
}

func TestReplay(t *testing.T) {
	var log strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&log, `{"time":"2026-11-28T10:%02d:00Z","method":"GET","host":"www.example.com","target":"/%d","status":200,"bytes":1000}`+"\n",
			i/20, i%10)
		log.WriteString(`{"time":"2026-11-28T10:00:00Z","method":"POST","host":"www.example.com","target":"/p","status":200,"bytes":5}` + "\n")
	}
	open := func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(log.String())), nil }
	l, err := Replay(open, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if l.Requests != 800 || l.Hits != 800 || l.Objects != 10 || l.Content != 10000 || l.Bytes != 800000 {
		t.Errorf("%+v", l)
	}
	for _, bad := range []string{"", "not JSON\n", `{"method":"POST","status":200}` + "\n"} {
		if _, err := Replay(func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(bad)), nil },
			1<<20); err == nil {
			t.Errorf("%q is taken for a log", bad)
		}
	}
}

func TestParseCosts(t *testing.T) {
	for _, bad := range []string{"", "[]", "{}",
		`{"miss_us":1,"handshake_us":1,"resumed_us":1,"query_us":1,"connection_bytes":1,"object_bytes":1}`} {
		if _, err := ParseCosts([]byte(bad)); err == nil {
			t.Errorf("%q is taken for costs", bad)
		}
	}
	c := testCosts()
	for bytes, want := range map[float64]float64{1: 10, 1024: 10, 32768: 40, 2 << 20: 1400} {
		near(t, fmt.Sprint(bytes), c.Hit("http2", bytes), want, 1e-9)
	}
}
