package capacity

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"sort"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/kaiku-cdn/kaiku/storage"
)

// Content is what a site has, and how its popularity is spread.
type Content struct {
	Objects float64 // distinct objects
	Bytes   float64 // of all objects together
	// Zipf is the exponent of the popularity: the object of rank r is requested in proportion to
	// 1/r^Zipf. Web traffic has 0.6 to 1.1 (Breslau et al., INFOCOM 1999).
	Zipf float64
	// Fresh is the share of the objects that new ones replace each day.
	Fresh float64
}

// Ratios are the shares of the requests that the fleet answers from its stores.
type Ratios struct {
	Edge float64 `json:"edge"` // by the edge that the client asked
	// Fleet is the share that no origin sees: it has also the hits at the owner and at the shield.
	Fleet float64 `json:"fleet"`
}

const (
	// sampled is how many objects are simulated. If there are more, each stands for several, and
	// the stores are smaller by as much (spatial sampling; Waldspurger et al., FAST 2015).
	sampled = 6_000
	// turns is how often an edge is asked for as many requests as there are objects, and measured
	// is the share of them, at the end, that counts.
	turns    = 10
	measured = 0.5
	// maxSimulated bounds the requests of a simulation.
	maxSimulated = 1_000_000
)

// site has the edges of one region in the simulation.
type site struct {
	share float64
	edges []*storage.Simulation
}

// expect returns the ratios of a fleet: for each region its share of the requests and its number of
// edges, each with a store of disk bytes. With shield, misses of all regions go through one more
// edge. The result is the same for the same arguments.
func (c *Content) expect(shares []float64, edges []int, disk float64, shield bool) Ratios {
	n := int(math.Min(math.Max(1, c.Objects), sampled))
	step := math.Max(1, c.Objects) / float64(n)
	// Each sampled object stands for step ranks, and is requested as often as one of them on
	// average.
	cumulative, upTo := make([]float64, n), harmonic(c.Zipf)
	for i := range cumulative {
		cumulative[i] = upTo(float64(i+1) * step)
	}
	sum := cumulative[n-1]
	size := int64(math.Max(1, c.Bytes/math.Max(1, c.Objects)))
	budget := int64(math.Max(disk/step, 1))
	sites, total := make([]site, len(shares)), 0
	for i, share := range shares {
		sites[i].share = share
		for range edges[i] {
			sites[i].edges = append(sites[i].edges, storage.NewSimulation(budget))
		}
		total += edges[i]
	}
	var last *storage.Simulation
	if shield {
		last = storage.NewSimulation(budget)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	requests := min(n*turns*total, maxSimulated)
	var asked, atEdge, inFleet float64
	for i := range requests {
		s := pick(sites, rng.Float64())
		rank := sort.SearchFloat64s(cumulative, rng.Float64()*sum)
		key := uint64(rank)
		edge := rng.IntN(len(s.edges))
		owner := int(key % uint64(len(s.edges)))
		hit := s.edges[edge].Request(key, size)
		any := hit || owner != edge && s.edges[owner].Request(key, size) || last != nil && last.Request(key, size)
		if float64(i) < float64(requests)*(1-measured) {
			continue
		}
		asked++
		if hit {
			atEdge++
		}
		if any {
			inFleet++
		}
	}
	return Ratios{Edge: atEdge / asked, Fleet: inFleet / asked}
}

// harmonic returns the function that sums r^-z over the ranks up to n.
func harmonic(z float64) func(n float64) float64 {
	const exact = 1000 // ranks; beyond them an integral is close enough
	sums := make([]float64, exact+1)
	for r := 1; r <= exact; r++ {
		sums[r] = sums[r-1] + math.Pow(float64(r), -z)
	}
	integral := func(x float64) float64 {
		if z == 1 {
			return math.Log(x)
		}
		return math.Pow(x, 1-z) / (1 - z)
	}
	return func(n float64) float64 {
		if n <= exact {
			return sums[int(n)]
		}
		return sums[exact] + integral(n+0.5) - integral(exact+0.5)
	}
}

// pick returns the site for a number from 0 to 1.
func pick(sites []site, at float64) *site {
	for i := range sites {
		if at -= sites[i].share; at < 0 {
			return &sites[i]
		}
	}
	return &sites[len(sites)-1]
}

// Log is what an access log says.
type Log struct {
	Requests int64
	Bytes    int64
	Objects  int64 // distinct URLs
	Content  int64 // bytes of these
	Hits     int64 // that a store of the given size has
	HitBytes int64
	Days     float64 // from the first to the last line
}

// maxLogObjects bounds the memory for the URLs of a log, about 100 bytes each.
const maxLogObjects = 20_000_000

// line is what matters of a line of Kaiku's access log.
type line struct {
	Time   time.Time `json:"time"`
	Method string    `json:"method"`
	Host   string    `json:"host"`
	Target string    `json:"target"`
	Status int       `json:"status"`
	Bytes  int64     `json:"bytes"`
}

// Replay reads an access log of an edge (edge.access_log) and runs its GETs with status 200 through
// the policy of a store of disk bytes. The first fifth of them only fills the store. The rest is
// counted. Replay reads the log twice, because it has to know first how many lines there are.
func Replay(open func() (io.ReadCloser, error), disk int64) (*Log, error) {
	lines := int64(0)
	if err := eachLine(open, func(*line) error { lines++; return nil }); err != nil {
		return nil, err
	}
	if lines == 0 {
		return nil, fmt.Errorf("no GET with status 200 in it: want the JSON lines of edge.access_log")
	}
	l := &Log{}
	sizes := map[uint64]int64{}
	s := storage.NewSimulation(disk)
	var first, last time.Time
	n := int64(0)
	err := eachLine(open, func(e *line) error {
		key := xxhash.Sum64String(e.Host + e.Target)
		if _, ok := sizes[key]; !ok && len(sizes) == maxLogObjects {
			return fmt.Errorf("more than %d URLs: use a part of the log", maxLogObjects)
		}
		sizes[key] = max(sizes[key], e.Bytes)
		if n == 0 {
			first = e.Time
		}
		last = e.Time
		hit := s.Request(key, e.Bytes)
		if n++; n <= lines/5 {
			return nil
		}
		l.Requests++
		l.Bytes += e.Bytes
		if hit {
			l.Hits++
			l.HitBytes += e.Bytes
		}
		return nil
	})
	for _, size := range sizes {
		l.Objects++
		l.Content += size
	}
	l.Days = last.Sub(first).Hours() / 24
	return l, err
}

// eachLine calls fn for each GET with status 200.
func eachLine(open func() (io.ReadCloser, error), fn func(*line) error) error {
	f, err := open()
	if err != nil {
		return err
	}
	defer f.Close()
	in := bufio.NewScanner(f)
	in.Buffer(make([]byte, 64<<10), 1<<20)
	for n := 1; in.Scan(); n++ {
		var e line
		if err := json.Unmarshal(in.Bytes(), &e); err != nil {
			return fmt.Errorf("line %d: want a JSON line of edge.access_log: %w", n, err)
		}
		if e.Method != "GET" || e.Status != 200 || e.Bytes < 0 {
			continue
		}
		if err := fn(&e); err != nil {
			return err
		}
	}
	return in.Err()
}
