package front

import (
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// secondsBuckets are the upper bounds of the buckets of durations, in seconds.
var secondsBuckets = []float64{.0001, .0003, .001, .003, .01, .03, .1, .3, 1, 3, 10}

// SecondsBuckets returns the upper bounds of Totals.Seconds but the last, in seconds.
func SecondsBuckets() []float64 { return secondsBuckets }

// Totals are sums over all sites since the edge started.
type Totals struct {
	Traffic
	// Bodies and HitBodies count bytes of the bodies of answers that have ended, and of those that
	// were hits. Traffic.Bytes also counts answers under way.
	Bodies, HitBodies uint64
	// Seconds counts answers that came through the cache by their duration. The last bucket has
	// those above all bounds.
	Seconds []uint64
}

// Totals returns the sums. Bytes is for the caller to set.
func (m *Metrics) Totals() Totals {
	t := Totals{Traffic: m.Traffic(), Seconds: make([]uint64, len(secondsBuckets)+1)}
	type of struct{ site, outcome string }
	bodies, outcomes := map[of]bool{}, map[string]bool{}
	m.found.Range(func(k, v any) bool {
		key, c := k.(counterKey), v.(*Counters)
		if key.site == "" {
			return true
		}
		if at := (of{key.site, key.outcome}); !bodies[at] {
			bodies[at] = true
			n := counted(c.bytes)
			t.Bodies += n
			if isHit(key.outcome) {
				t.HitBodies += n
			}
		}
		if !outcomes[key.outcome] && key.outcome != "none" {
			outcomes[key.outcome] = true
			addSeconds(t.Seconds, c.seconds)
		}
		return true
	})
	return t
}

// isHit reports whether an outcome is an answer from the store.
func isHit(outcome string) bool { return outcome == "hit" || outcome == "stale" }

// counted returns the value of a counter.
func counted(c prometheus.Counter) uint64 {
	var m dto.Metric
	_ = c.Write(&m) // a counter's never fails
	return uint64(m.GetCounter().GetValue())
}

// addSeconds adds the buckets of a histogram to counts.
func addSeconds(counts []uint64, of prometheus.Observer) {
	h, ok := of.(prometheus.Metric)
	var m dto.Metric
	if !ok || h.Write(&m) != nil {
		return
	}
	before := uint64(0) // those of a histogram are cumulative
	for i, b := range m.GetHistogram().GetBucket() {
		if i < len(counts)-1 {
			counts[i] += b.GetCumulativeCount() - before
			before = b.GetCumulativeCount()
		}
	}
	counts[len(counts)-1] += m.GetHistogram().GetSampleCount() - before
}
