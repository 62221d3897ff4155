package admin

import (
	"math"
	"slices"
	"sync"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/front"
)

// Reported is the last report of a node.
type Reported struct {
	Node   string
	Age    time.Duration // since it was sent
	Report Report
}

// Point is what all edges of a fleet together did at a time.
type Point struct {
	At int64 `json:"at"` // in milliseconds of Unix time
	Rates
	// P50 and P99 are durations of answers in seconds; 0 if there were none.
	P50   float64 `json:"p50"`
	P99   float64 `json:"p99"`
	Edges int     `json:"edges"` // that reported
}

const (
	// HistoryEvery is the time between two points of a History.
	HistoryEvery = 10 * time.Second
	maxPoints    = int(time.Hour / HistoryEvery)
)

// History has the points of the last hour. The zero value is empty.
type History struct {
	mu     sync.Mutex
	points []Point
}

// Add adds a point that is made from the last reports of all nodes.
func (h *History) Add(now time.Time, all []Reported) { h.add(pointOf(now, all)) }

// add adds points.
func (h *History) add(points ...Point) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range points {
		if n := len(h.points); n > 0 && p.At <= h.points[n-1].At {
			continue
		}
		h.points = append(h.points, p)
	}
	if n := len(h.points) - maxPoints; n > 0 {
		h.points = slices.Delete(h.points, 0, n)
	}
}

// Since returns the points after a time, in milliseconds of Unix time.
func (h *History) Since(at int64) []Point {
	h.mu.Lock()
	defer h.mu.Unlock()
	from, _ := slices.BinarySearchFunc(h.points, at+1, func(p Point, at int64) int { return int(p.At - at) })
	return slices.Clone(h.points[from:])
}

// last returns the time of the last point, or 0.
func (h *History) last() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := len(h.points); n > 0 {
		return h.points[n-1].At
	}
	return 0
}

// pointOf returns the sum of reports.
func pointOf(now time.Time, all []Reported) Point {
	p := Point{At: now.UnixMilli()}
	seconds := make([]uint64, len(front.SecondsBuckets())+1)
	for _, r := range all {
		if r.Report.Rates == nil {
			continue
		}
		p.Edges++
		p.Requests += r.Report.Rates.Requests
		p.Hits += r.Report.Rates.Hits
		p.Errors += r.Report.Rates.Errors
		p.Bytes += r.Report.Rates.Bytes
		p.Bodies += r.Report.Rates.Bodies
		p.HitBytes += r.Report.Rates.HitBytes
		p.Origin += r.Report.Rates.Origin
		for i, n := range r.Report.Seconds {
			if i < len(seconds) {
				seconds[i] += n
			}
		}
	}
	p.P50, p.P99 = quantile(seconds, .5), quantile(seconds, .99)
	return p
}

// quantile returns about the value below which a share q of the counted durations is, in seconds.
// Within a bucket it interpolates.
func quantile(seconds []uint64, q float64) float64 {
	all := uint64(0)
	for _, n := range seconds {
		all += n
	}
	if all == 0 {
		return 0
	}
	rank, low := q*float64(all), 0.0
	for i, high := range front.SecondsBuckets() {
		if n := float64(seconds[i]); rank <= n && n > 0 {
			return math.Round((low+(high-low)*rank/n)*1e7) / 1e7
		}
		rank, low = rank-float64(seconds[i]), high
	}
	return low // longer than the last bound
}
