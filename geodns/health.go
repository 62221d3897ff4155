package geodns

import (
	"math"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// nodeState is what the server knows about a node's health. It outlives the configurations that
// have the node.
type nodeState struct {
	name string
	// The endpoints to probe; immutable. A node without endpoints counts as healthy.
	endpoints []*endpoint
	// The last report of the registry, or nil.
	report atomic.Pointer[Report]
	shed   atomic.Uint64 // state.shed, as the bits of a float64

	// The node's counter of metrics.answered. It is set with the first answer.
	answered atomic.Pointer[prometheus.Counter]

	// The last reported phase. Guarded by Server.mu, like the fields below.
	phase  int32
	wasUp  bool // the node has been healthy before
	warned bool // a warning about the node has been logged
}

// endpoint is what a prober probes: one address of a node, or one URL that stands for all of them.
type endpoint struct {
	node  *nodeState
	addr  netip.Addr // invalid if the endpoint stands for all addresses of the node
	phase atomic.Int32

	wasUp, warned bool // like nodeState's
}

// Report is what the fleet's registry says about a node. The zero value describes a node without
// load that may get new clients.
type Report struct {
	Draining bool    // the node must get no new clients
	Stale    bool    // the node is behind with purges, or hasn't been heard of for long
	Load     float64 // the node's load, 0 to 1 of its capacity
	Plain    bool    // the node has no certificates yet and doesn't speak its ALPN
}

// plain reports whether the registry says that the node doesn't speak TLS.
func (s *nodeState) plain() bool {
	r := s.report.Load()
	return r != nil && r.Plain
}

// now returns the node's current state.
func (s *nodeState) now() state {
	st := state{shed: math.Float64frombits(s.shed.Load())}
	switch r := s.report.Load(); {
	case !s.isHealthy():
		st.standing = down
	case r != nil && (r.Draining || r.Stale):
		st.standing = degraded
	}
	return st
}

// A node begins to shed clients above a load of shedAbove, and takes them back below shedBelow.
// Nothing changes between the two. Each step is small, because resolvers cache answers for a TTL:
// the load reacts late, and large steps would make it oscillate.
const (
	shedAbove = 0.9
	shedBelow = 0.7
	shedTime  = 2 * time.Minute // time from shedding nothing to shedding everything at a load of 1
)

// nextShed returns how much a node sheds after it had the given load for the time passed.
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

// applyReport applies a report. passed is the time since the last report. changed reports whether
// the node's state has changed.
func (s *nodeState) applyReport(r Report, passed time.Duration) (changed bool) {
	before, plain := s.now(), s.plain()
	s.report.Store(&r)
	s.shed.Store(math.Float64bits(nextShed(before.shed, r.Load, passed)))
	return s.now() != before || r.Plain != plain
}

// Phases of an endpoint. No answer has a node before one of its endpoints has been probed, unless
// no other node is healthy either.
const (
	unknown int32 = iota
	healthy
	unhealthy
	// This machine has no route to the endpoint, such as to an IPv6 address when it has no IPv6.
	// The endpoint's health is unknown.
	unroutable
)

// isHealthy reports whether some endpoint of the node answers. It ignores endpoints to which this
// machine has no route. A node whose endpoints are all ignored counts as healthy.
func (s *nodeState) isHealthy() bool {
	known := false
	for _, e := range s.endpoints {
		switch e.phase.Load() {
		case healthy:
			return true
		case unknown, unhealthy:
			known = true
		}
	}
	return !known
}

// nowPhase returns the phase of the node as a whole.
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

// isDead reports whether the endpoint's probes fail or it hasn't been probed yet. Answers leave out
// the endpoint's address even if the node is healthy.
func (e *endpoint) isDead() bool {
	phase := e.phase.Load()
	return phase == unhealthy || phase == unknown
}

// newNodeState returns the state of a node. It takes over what the previous snapshot knows about
// the node. Changed addresses or a changed URL don't reset the node's health. A node that wasn't
// probed before, or isn't probed any more, starts afresh.
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
	made.phase, made.wasUp, made.warned = old.phase, old.wasUp, old.warned
	made.report.Store(old.report.Load())
	made.shed.Store(old.shed.Load())
	made.answered.Store(old.answered.Load())
	for _, e := range made.endpoints {
		e.phase.Store(old.nowPhase())
		for _, same := range old.endpoints {
			if same.addr == e.addr {
				e.phase.Store(same.phase.Load())
				e.wasUp, e.warned = same.wasUp, same.warned
			}
		}
	}
	return made
}

// hysteresis keeps a single lost or lucky probe from moving traffic.
type hysteresis struct {
	phase  int32
	streak int // consecutive results that contradict the phase
}

// observe takes the result of a probe. It reports whether the phase has changed. The first result
// sets the phase at once.
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
