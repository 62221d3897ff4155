package front

import (
	"net/http"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// A request holds memory from its header block to the end of its response: 12 KB for its goroutine
// and what net/http has of it, and its fields. A few bytes of HTTP/2 can make 64 KiB of fields
// (HPACK), and the client can let the edge wait for the rest of the request, for the response of
// another, or for a window to answer in. So the requests under way are bounded, where those that
// are large count as several.
const (
	maxUnderWay  = 1 << 16 // in all
	MaxOfNetwork = 1 << 12 // of one client network
	FieldsOfOne  = 8 << 10 // bytes of fields that a request has before it counts as several
)

// share is what a client network has. Connections know it by a pointer, so that a request takes no
// lock.
type share struct {
	conns int // connections; guarded by conns.mu
	load  atomic.Int64

	parked atomic.Int64 // bytes of bodies
}

// underWay is what all clients have under way.
type underWay struct {
	load    atomic.Int64
	parked  atomic.Int64 // bytes of bodies
	refused prometheus.Counter
}

func newUnderWay() underWay {
	return underWay{refused: prometheus.NewCounter(prometheus.CounterOpts{Name: "kaiku_edge_requests_limited_total",
		Help: "Requests refused because there were too many under way, or their bodies too large, in all or of one client network."})}
}

// begin counts a request whose fields have size bytes. It returns what it counts as, for end, and
// if it is one too many the status that it is refused with, and why.
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

// ofNetwork is what the network of a client has; nil if that is not limited.
func (c *client) ofNetwork() *share {
	if c == nil {
		return nil
	}
	return c.share
}
