package front

import (
	"log/slog"
	"runtime/debug"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// Panics counts and logs the panics of an edge. The packages of the edge share one.
type Panics struct {
	Log *slog.Logger
	n   atomic.Uint64
}

// Count returns how many panics there were.
func (p *Panics) Count() uint64 { return p.n.Load() }

// Caught logs and counts a panic. where names what panicked, such as "a request". That ends; the
// edge goes on.
func (p *Panics) Caught(where string, panicked any, attrs ...any) {
	p.n.Add(1)
	p.Log.Error("panic in "+where+": this is a bug in Kaiku; please report it",
		append(attrs, "panic", panicked, "stack", string(debug.Stack()))...)
}

// Collector returns the metric of panics.
func (p *Panics) Collector() prometheus.Collector {
	return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "kaiku_edge_panics_total",
		Help: "Panics, each of which ended one request or fetch and is logged with its stack."},
		func() float64 { return float64(p.n.Load()) })
}
