package origin

import (
	"math"
	"sync/atomic"
	"time"
)

// backend is one server of a Pool. Start sets the first group of fields. Pool.mu guards all fields
// from down on.
type backend struct {
	Server
	index     int
	addr      string
	host      string // the Host of requests; "" means the Host of the client's request
	tlsName   string // the SNI and the name to verify; "" means the Host that is sent
	hash      uint64
	weight    float64
	transport atomic.Pointer[transport]
	resolver  *resolver // nil if the URL has an IP address
	spares    spares
	probeSoon chan struct{} // receives a value to bring the next probe forward

	// down is set by failed probes, ejected by failed requests. refusing means that the last
	// failure was a failed connection.
	down, ejected, refusing bool
	// failing means that failureLimit requests in a row failed and that no request sent since
	// failingAt has succeeded. It does not change which requests the server gets.
	failing        bool
	failingAt      time.Time
	lastErr        error // of the last failed request or probe
	lastErrAt      time.Time
	contraryProbes int // probes in a row that contradict down
	failures       int // failed requests in a row
	// Ejections since the server was last stable. Each one doubles the duration of the next.
	recentEjections int
	readmitTimer    *time.Timer
	ejectedFor      time.Duration // duration of the last ejection
	ejectedAt       time.Time
	recoveredAt     time.Time // when the server last became up again; zero if it has always been up

	// What logChange has counted and logged.
	wasUnhealthy   bool // the health that logChange saw last
	unhealthySince time.Time
	logged         logState
	everHealthy    bool // a request or a probe has succeeded since Start

	// The load.
	inFlight      int   // requests
	clients       tally // requests of each client
	streams       int   // those that a client may hold open: uploads, upgrades, uncacheable responses
	tunnels       int   // tunnels, and upgrade requests that have no response yet
	tunnelClients tally
	waiting       int       // requests that were sent in full and have no response header yet
	lastHeardAt   time.Time // the last response header or good probe, or when waiting became 1
	// abandonedAt is when a client last gave up waiting for the silent server, or when a timeout
	// showed that it may hang. A response header or a good probe resets it to zero.
	abandonedAt time.Time
	latency     time.Duration // time to the response header, exponentially weighted moving average
	trial       bool          // a request is testing whether the server takes connections again
	http2       bool          // the last response came over HTTP/2
	current     float64       // current weight in smooth weighted round-robin

	connections int // open connections
	counts      Counts
}

// Counts are counters of one server since Start.
type Counts struct {
	Requests    uint64            `json:"requests"` // attempts sent, retries included
	Failures    map[string]uint64 `json:"failures"` // by Reason
	Connections uint64            `json:"connections_made"`
	Reused      uint64            `json:"reused"` // requests sent on an open connection
	Ejections   uint64            `json:"ejections"`
	Changes     uint64            `json:"changes"` // changes between healthy and not
	Probes      uint64            `json:"probes"`
	ProbesBad   uint64            `json:"probes_bad"`
}

// label returns the name of the server in logs and in Status: the name of an edge, or else scheme,
// host and port.
func (b *backend) label() string {
	if b.ServerName != "" {
		return b.ServerName
	}
	return b.URL.Scheme + "://" + b.URL.Host
}

// up reports whether the server is neither ejected nor down by its probes.
func (b *backend) up() bool { return !b.down && !b.ejected }

// healthy reports whether the server is up and not failing. A server can be up and failing: the
// last server of a pool is never ejected.
func (b *backend) healthy() bool { return b.up() && !b.failing }

// state returns the state that Status and the log show. share is the server's current weight
// divided by its full weight.
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

// logState is what the log says of a server.
type logState struct {
	unhealthy   bool
	windowStart time.Time // when the current logWindow began
	lines       int       // lines logged in the current logWindow
}

// minShare is the fraction of its weight that a server has when slow start begins.
const minShare = 0.1

// share returns the server's current weight. After the server comes back, its weight rises linearly
// from minShare of the full weight to all of it during slowStart.
func (b *backend) share(now time.Time, slowStart time.Duration) float64 {
	if b.recoveredAt.IsZero() {
		return b.weight
	}
	if gone := now.Sub(b.recoveredAt); gone < slowStart {
		return b.weight * math.Max(minShare, float64(gone)/float64(slowStart))
	}
	return b.weight
}

// silent reports whether requests have waited for the server for longer than after, with no
// response header and no good probe in between.
func (b *backend) silent(now time.Time, after time.Duration) bool {
	return b.waiting > 0 && now.Sub(b.lastHeardAt) > after
}
