package geodns

import (
	"math"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// nodeState is what is known of a node's health. It outlives the configurations that the node is in.
type nodeState struct {
	name   string
	probed bool // false is taken as healthy; does not change
	phase  atomic.Int32
	report atomic.Pointer[Report] // nil without a registry
	shed   atomic.Uint64          // of state, as the bits of a float64

	answered atomic.Pointer[prometheus.Counter] // of metrics.answered, with the first answer

	wasUp bool // it was healthy once; guarded by Server.mu, as is told
	told  bool // it was warned of
}

// Report is what the registry of the fleet says of a node. The zero value says nothing.
type Report struct {
	Draining bool    // it is to get no new clients
	Stale    bool    // it has not heard of all purges, or was not heard of for long
	Load     float64 // 0 to 1, of its capacity
	Plain    bool    // it does not yet speak its ALPN, as it has no certificates
}

// plain says whether a node was reported as not speaking TLS.
func (s *nodeState) plain() bool {
	r := s.report.Load()
	return r != nil && r.Plain
}

// now is the node's state.
func (s *nodeState) now() state {
	st := state{shed: math.Float64frombits(s.shed.Load())}
	switch r := s.report.Load(); {
	case !s.isHealthy():
		st.standing = down
	case r != nil && (r.Draining || r.Stale):
		st.standing = away
	}
	return st
}

// A node begins to shed above shedAbove of its capacity and takes clients back below shedBelow. In between nothing changes, and each step is small: what resolvers have
// cached goes on for a TTL, so that the load answers late, and a quick hand would swing.
const (
	shedAbove = 0.9
	shedBelow = 0.7
	shedTime  = 2 * time.Minute // from nothing to everything at a load of 1
)

// nextShed is how much a node sheds after some time at a load.
func nextShed(shed, load float64, passed time.Duration) float64 {
	step := float64(passed) / float64(shedTime)
	switch {
	case load > shedAbove:
		return min(1, shed+step*(load-shedAbove)/(1-shedAbove))
	case load < shedBelow:
		return max(0, shed-step/2)
	}
	return shed
}

// take takes a report, some time after the last, and tells whether the state is another now.
func (s *nodeState) take(r Report, passed time.Duration) (changed bool) {
	before, plain := s.now(), s.plain()
	s.report.Store(&r)
	s.shed.Store(math.Float64bits(nextShed(before.shed, r.Load, passed)))
	return s.now() != before || r.Plain != plain
}

// Phases of a node. One that was not probed yet is not answered, unless no other is healthy either.
const (
	unknown int32 = iota
	healthy
	unhealthy
)

func (s *nodeState) isHealthy() bool { return !s.probed || s.phase.Load() == healthy }

// newNodeState goes on with the state of a node of that name, if it was probed before and still is: a URL that has changed
// is no reason to forget whether the machine was up.
func newNodeState(node Node, before *snapshot) *nodeState {
	probed := node.Probe != ""
	if before != nil {
		if old := before.states[node.Name]; old != nil && old.probed == probed {
			return old
		}
	}
	return &nodeState{name: node.Name, probed: probed}
}

// hysteresis keeps one lost probe, or one lucky one, from moving traffic.
type hysteresis struct {
	phase  int32
	streak int // results in a row that speak against the phase
}

// observe takes the result of a probe and tells whether the phase has changed with it. The first result ever decides alone.
func (h *hysteresis) observe(ok bool, cfg Health) (changed bool) {
	to, after := unhealthy, cfg.UnhealthyAfter
	if ok {
		to, after = healthy, cfg.HealthyAfter
	}
	if h.phase == to {
		h.streak = 0
		return false
	}
	h.streak++
	if h.phase != unknown && h.streak < after {
		return false
	}
	h.phase, h.streak = to, 0
	return true
}
