package origin

import (
	"math"
	"net/http"
	"sync/atomic"
	"time"
)

// backend is a server as the pool sees it. What is below the line is guarded by Pool.mu.
type backend struct {
	Server
	index     int
	addr      string
	host      string // sent as Host; "" means that of the request
	tlsName   string // sent as SNI and verified; "" means the Host that is sent
	hash      uint64
	weight    float64
	transport atomic.Pointer[http.Transport]
	resolver  *resolver // nil for an IP address
	spares    spares
	probeSoon chan struct{} // gets one when the next probe is to be soon

	// How it looks. down is what probes say; ejected what requests met. refusing says that its last
	// failure was that it took no connection, which is no matter of opinion.
	down, ejected, refusing bool
	// failing says that requests failed several times in a row, and none that was sent later
	// succeeded. It does not matter for which requests the server gets.
	failing         bool
	failingAt       time.Time
	lastErr         error // of the last failure
	lastErrAt       time.Time
	contraryProbes  int // in a row with another outcome than down says
	failures        int // of requests, in a row
	recentEjections int // ejections, each of which came soon after the one before
	readmitTimer    *time.Timer
	ejectedFor      time.Duration // length of the last pause
	ejectedAt       time.Time
	recoveredAt     time.Time // when it came back; zero if it was never gone

	// What was told of that.
	wasUnhealthy   bool // it was not well when somebody last looked, since
	unhealthySince time.Time
	logged         logState
	everHealthy    bool // it was well once

	// What it has to do.
	inFlight      int   // requests
	clients       tally // of those
	streams       int   // of those, that are held at the pace of clients
	tunnels       int   // and upgrades that are not answered yet
	tunnelClients tally
	waiting       int           // requests that it has whole and that have no header block yet
	lastHeardAt   time.Time     // when it last answered one, or a probe, or the first of them was sent
	abandonedAt   time.Time     // when somebody left whom it had kept waiting; zero once it has answered anything
	latency       time.Duration // of answers, a moving mean
	trial         bool          // one request finds out whether it takes connections again
	http2         bool          // it spoke HTTP/2 last
	current       float64       // smooth weighted round-robin

	connections int // that are open
	counts      Counts
}

// Counts are of a server since the start.
type Counts struct {
	Requests    uint64            `json:"requests"` // sent, retries included
	Failures    map[string]uint64 `json:"failures"` // by reason
	Connections uint64            `json:"connections_made"`
	Reused      uint64            `json:"reused"` // requests on a connection that was there already
	Ejections   uint64            `json:"ejections"`
	Changes     uint64            `json:"changes"` // of how it looks
	Probes      uint64            `json:"probes"`
	ProbesBad   uint64            `json:"probes_bad"`
}

// label is what people know it by: an edge by its name.
func (b *backend) label() string {
	if b.ServerName != "" {
		return b.ServerName
	}
	return b.URL.Scheme + "://" + b.URL.Host
}

// up reports whether requests should go to it.
func (b *backend) up() bool { return !b.down && !b.ejected }

// well reports whether nothing is known to be wrong with it. One that is up may be not well: the
// last one gets requests whatever comes of them.
func (b *backend) healthy() bool { return b.up() && !b.failing }

// state is how it looks, in a word.
func (b *backend) state(share float64) string {
	switch {
	case b.Self:
		return "self"
	case b.down:
		return "unhealthy"
	case b.ejected:
		return "ejected"
	case b.failing:
		return "failing"
	case share < 1:
		return "slow-start"
	}
	return "up"
}

// illness is what the log was told of a server.
type logState struct {
	unhealthy   bool
	windowStart time.Time // when the first of the lines was written
	lines       int       // since then
}

// minShare is the part of its weight that a server begins slow start with.
const minShare = 0.1

// share is its weight now: one that came back gets it over the time of slow start, so that its
// caches and its pools can fill.
func (b *backend) share(now time.Time, slowStart time.Duration) float64 {
	if b.recoveredAt.IsZero() {
		return b.weight
	}
	if gone := now.Sub(b.recoveredAt); gone < slowStart {
		return b.weight * math.Max(minShare, float64(gone)/float64(slowStart))
	}
	return b.weight
}

// silent reports whether it has answered nothing for a while though it was asked: it may hang, and
// until it is known whether it does, others are asked.
func (b *backend) silent(now time.Time, after time.Duration) bool {
	return b.waiting > 0 && now.Sub(b.lastHeardAt) > after
}
