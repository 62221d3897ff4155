package geodns

import "sync/atomic"

// nodeState is what is known of a node's health. It outlives the configurations that the node is in.
type nodeState struct {
	name   string
	probed bool // false is taken as healthy; does not change
	phase  atomic.Int32
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
