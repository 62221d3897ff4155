package origin

import (
	"maps"
	"time"
)

// Status is the state of a pool.
type Status struct {
	Site    string         `json:"site"`
	Panic   bool           `json:"panic,omitempty"` // most servers are unhealthy, so all are used
	Waiting int            `json:"waiting"`         // requests in the queue
	Refused uint64         `json:"refused"`         // found the queue full or timed out in it
	Limited uint64         `json:"limited"`         // refused: their client had used its share
	Faults  uint64         `json:"client_faults"`   // requests that failed because of their client
	Retries uint64         `json:"retries"`
	Hedges  uint64         `json:"hedges"`
	Servers []ServerStatus `json:"servers"`
}

// ServerStatus is the state of a server.
type ServerStatus struct {
	Server string `json:"server"`        // scheme, host and port, or the name of an edge
	State  string `json:"state"`         // up, slow-start, failing, ejected, unhealthy, self
	Why    string `json:"why,omitempty"` // the last error while the server is not healthy
	Backup bool   `json:"backup,omitempty"`
	Weight int    `json:"weight"`
	// Share is the current fraction of the weight, 0.1 to 1. It is less than 1 during slow start.
	Share       float64 `json:"share"`
	InFlight    int     `json:"in_flight"` // requests, Streams included
	Streams     int     `json:"streams"`   // requests that a client may hold open
	Tunnels     int     `json:"tunnels"`
	Connections int     `json:"connections"` // open connections
	// LastFailure is the last failed request or probe, even if the server has recovered since.
	LastFailure *Failure `json:"last_failure,omitempty"`
	Counts
}

// Up reports whether the server is neither unhealthy nor ejected nor failing.
func (s *ServerStatus) Up() bool {
	return s.State != "unhealthy" && s.State != "ejected" && s.State != "failing"
}

// Status returns the current state of the pool.
func (p *Pool) Status() Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	st := Status{
		Site: p.Name, Panic: p.panic, Waiting: len(p.queue), Refused: p.refused, Limited: p.limited,
		Faults: p.clientFaults, Retries: p.retries, Hedges: p.hedges,
	}
	for _, b := range p.all {
		weight := max(1, b.Weight)
		s := ServerStatus{
			Server: b.label(), Backup: b.Backup, Weight: weight, Share: b.share(now, p.SlowStart) / float64(weight),
			InFlight: b.inFlight, Streams: b.streams, Tunnels: b.tunnels, Connections: b.connections, Counts: b.counts,
		}
		s.Failures = maps.Clone(b.counts.Failures)
		s.State = b.state(s.Share)
		if b.lastErr != nil {
			last := p.lastFailure(b)
			s.LastFailure = &last
			if !b.healthy() {
				s.Why = last.Error
			}
		}
		st.Servers = append(st.Servers, s)
	}
	return st
}
