package front

import (
	"net/http"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// A request holds memory from its header block to the end of its response: 12 KB for its goroutine
// and net/http's state, and its fields. A few bytes of HTTP/2 can become 64 KiB of fields (HPACK).
// The client can make the edge wait for the rest of the request, for another response, or for a
// window to answer in. So the requests under way are bounded, and a large one counts as several.
const (
	maxUnderWay  = 1 << 16 // in all
	MaxOfNetwork = 1 << 12 // of one client network
	FieldsOfOne  = 8 << 10 // bytes of fields; a request counts as one more for each of these
)

// share is what a client network has. Connections hold a pointer to it, so a request takes no lock.
type share struct {
	conns int // connections; guarded by conns.mu
	load  atomic.Int64

	parked atomic.Int64 // bytes of bodies
}

// underWay counts what all clients have under way.
type underWay struct {
	load    atomic.Int64
	parked  atomic.Int64 // bytes of bodies
	refused prometheus.Counter
}

func newUnderWay() underWay {
	return underWay{refused: prometheus.NewCounter(prometheus.CounterOpts{Name: "kaiku_edge_requests_limited_total",
		Help: "Requests refused because there were too many under way, or their bodies too large, in all or of one client network."})}
}

// begin counts a request whose fields have size bytes. It returns what the request counts as, for
// end. If the request is one too many, it also returns the status that the request is refused with,
// and why.
func (u *underWay) begin(from *client, size int) (load int64, status int, why string) {
	load = 1 + int64(size/FieldsOfOne)
	if n := from.ofNetwork(); n != nil && n.load.Add(load) > MaxOfNetwork {
		u.refused.Inc()
		status, why = http.StatusTooManyRequests, "the client's network has as many requests under way as one may"
	}
	if u.load.Add(load) > maxUnderWay && status == 0 {
		u.refused.Inc()
		status, why = http.StatusServiceUnavailable, "the edge has as many requests under way as it may"
	}
	return load, status, why
}

// end takes back what begin counted.
func (u *underWay) end(from *client, load int64) {
	u.load.Add(-load)
	if n := from.ofNetwork(); n != nil {
		n.load.Add(-load)
	}
}

// ofNetwork returns the share of the client's network; nil if it has no limit.
func (c *client) ofNetwork() *share {
	if c == nil {
		return nil
	}
	return c.share
}
