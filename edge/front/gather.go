package front

import (
	"cmp"
	"crypto/tls"
	"net"
	"sync"
)

const (
	// gatherFrom is how much is written at least for its records to be gathered: what is longer
	// than one of TLS. A connection that is new has short ones, until it has sent 128 KiB.
	gatherFrom = 16<<10 + 1
	gatherNew  = 160 << 10
	gatherSize = 72 << 10 // of what HTTP/2 writes at once, 64 KiB, and what TLS adds
)

var gathers = sync.Pool{New: func() any { b := make([]byte, 0, gatherSize); return &b }}

// gatheringTLS is a connection over TLS. The records of one Write leave in one write of the socket;
// crypto/tls has one for each, of 16 KiB at most.
type gatheringTLS struct {
	*tls.Conn
	own *clientConn
}

// Write writes.
func (c *gatheringTLS) Write(p []byte) (int, error) {
	if len(p) < gatherFrom && (c.own.sent.Load() > gatherNew || len(p) < 1<<10) {
		return c.Conn.Write(p)
	}
	c.own.gather.begin()
	n, err := c.Conn.Write(p)
	return n, cmp.Or(c.own.gather.end(c.own.Conn), err)
}

// NetConn is the connection below TLS.
func (c *gatheringTLS) NetConn() net.Conn { return c.own }

// gather is what is written to a connection until it is sent together.
type gather struct {
	mu sync.Mutex
	to *[]byte // nil while nothing is gathered
}

func (g *gather) begin() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.to = gathers.Get().(*[]byte)
}

// take keeps p, if it is to be gathered.
func (g *gather) take(p []byte) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.to == nil {
		return false
	}
	*g.to = append(*g.to, p...)
	return true
}

// end writes what was gathered. What TLS writes meanwhile, as the answer to a new key, waits.
func (g *gather) end(conn net.Conn) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	b := g.to
	g.to = nil
	_, err := conn.Write(*b)
	if cap(*b) <= 2*gatherSize {
		*b = (*b)[:0]
		gathers.Put(b)
	}
	return err
}
