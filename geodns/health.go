package geodns

import (
	"math"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// nodeState is what is known of a node's health. It outlives the configurations that the node is
// in.
type nodeState struct {
	name      string
	endpoints []*endpoint            // that are probed; none is taken as healthy; does not change
	report    atomic.Pointer[Report] // nil without a registry
	shed      atomic.Uint64          // of state, as the bits of a float64

	answered atomic.Pointer[prometheus.Counter] // of metrics.answered, with the first answer

	phase int32 // that was last reported; guarded by Server.mu, as all below
	wasUp bool  // it was healthy once
	told  bool  // it was warned of
}

// endpoint is what a prober asks: an address of a node, or the one place that tells about all of
// them.
type endpoint struct {
	node  *nodeState
	addr  netip.Addr // not valid: all of the node's addresses
	phase atomic.Int32

	wasUp, told bool // as of nodeState
}

// Report is what the registry of the fleet says of a node. The zero value says nothing.
type Report struct {
	Draining bool    // it is to get no new clients
	Stale    bool    // it has not heard of all purges, or was not heard of for long
	Load     float64 // 0 to 1, of its capacity
	Plain    bool    // it does not yet speak its ALPN, as it has no certificates
}

// plain reports whether a node was reported as not speaking TLS.
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

// A node begins to shed above shedAbove of its capacity and takes clients back below shedBelow. In
// between nothing changes, and each step is small: what resolvers have cached goes on for a TTL, so
// that the load answers late, and a quick hand would swing.
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

// Phases of an endpoint. A node of which none was probed yet is not answered, unless no other is
// healthy either.
const (
	unknown int32 = iota
	healthy
	unhealthy
	unroutable // this machine has no route to it, as of IPv6 where it has none: nothing is known
)

// isHealthy reports whether one of the node's endpoints answers. Those that this machine has no
// route to say nothing.
func (s *nodeState) isHealthy() bool {
	says := false
	for _, e := range s.endpoints {
		switch e.phase.Load() {
		case healthy:
			return true
		case unknown, unhealthy:
			says = true
		}
	}
	return !says
}

// nowPhase is the phase of the node as a whole.
func (s *nodeState) nowPhase() int32 {
	if s.isHealthy() {
		return healthy
	}
	for _, e := range s.endpoints {
		if e.phase.Load() == unknown {
			return unknown
		}
	}
	return unhealthy
}

// isDead reports whether an address is not to be answered, though the node is healthy.
func (e *endpoint) isDead() bool {
	phase := e.phase.Load()
	return phase == unhealthy || phase == unknown
}

// newNodeState goes on with the state of a node of that name, if it was probed before and still is:
// an address or a URL that has changed is no reason to forget whether the machine was up.
func newNodeState(node Node, before *snapshot) *nodeState {
	made := &nodeState{name: node.Name}
	for _, addr := range node.probed() {
		made.endpoints = append(made.endpoints, &endpoint{node: made, addr: addr})
	}
	if before == nil {
		return made
	}
	old := before.states[node.Name]
	if old == nil || (len(old.endpoints) == 0) != (len(made.endpoints) == 0) {
		return made
	}
	if slices.EqualFunc(old.endpoints, made.endpoints, func(a, b *endpoint) bool { return a.addr == b.addr }) {
		return old
	}
	made.phase, made.wasUp, made.told = old.phase, old.wasUp, old.told
	made.report.Store(old.report.Load())
	made.shed.Store(old.shed.Load())
	made.answered.Store(old.answered.Load())
	for _, e := range made.endpoints {
		e.phase.Store(old.nowPhase())
		for _, same := range old.endpoints {
			if same.addr == e.addr {
				e.phase.Store(same.phase.Load())
				e.wasUp, e.told = same.wasUp, same.told
			}
		}
	}
	return made
}

// hysteresis keeps one lost probe, or one lucky one, from moving traffic.
type hysteresis struct {
	phase  int32
	streak int // results in a row that speak against the phase
}

// observe takes the result of a probe and tells whether the phase has changed with it. The first
// result decides alone.
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
	if (h.phase == healthy || h.phase == unhealthy) && h.streak < after {
		return false
	}
	h.phase, h.streak = to, 0
	return true
}
