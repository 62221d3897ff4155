package front

import (
	"cmp"
	"crypto/tls"
	"net"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// gatherFrom is the size of the smallest Write whose TLS records are gathered: it is larger
	// than one record.
	gatherFrom = 16<<10 + 1
	// gatherNew is how many bytes a connection sends before gatherFrom applies. crypto/tls makes
	// short records on a new connection, until it has sent 128 KiB.
	gatherNew  = 160 << 10
	gatherSize = 72 << 10 // bytes of one write of HTTP/2, 64 KiB, with what TLS adds
)

const (
	// Over HTTP/1.1, the header block and the first bytes of a body of these sizes are gathered.
	// net/http buffers 4 KiB, and writes what exceeds them by itself.
	gatherFirst = 2 << 10
	gatherMost  = 32 << 10
)

var gathers = sync.Pool{New: func() any { b := make([]byte, 0, gatherSize); return &b }}

// gatheringTLS is a TLS connection that sends all records of one Write with one write of the
// socket. crypto/tls writes each record, of at most 16 KiB, by itself.
type gatheringTLS struct {
	*tls.Conn
	own *clientConn
	raw syscall.RawConn // of the socket
}

// Wait waits for input, or the end of the connection. Unlike Read it needs no buffer and little
// stack. TLS has no input left when a Read has returned at its deadline.
func (c *gatheringTLS) Wait() error {
	return c.raw.Read(func(fd uintptr) bool {
		var b [1]byte
		_, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		return err != unix.EAGAIN
	})
}

// Write encrypts and writes p. It gathers the records if there are probably several.
func (c *gatheringTLS) Write(p []byte) (int, error) {
	if len(p) < gatherFrom && (c.own.sent.Load() > gatherNew || len(p) < 1<<10) {
		return c.Conn.Write(p)
	}
	c.own.gather.begin()
	n, err := c.Conn.Write(p)
	return n, cmp.Or(c.own.gather.end(c.own.Conn), err)
}

// NetConn returns the connection below TLS.
func (c *gatheringTLS) NetConn() net.Conn { return c.own }

// gather collects bytes that are written to a connection, to send them together.
type gather struct {
	mu sync.Mutex
	to *[]byte // nil while nothing is gathered
}

func (g *gather) begin() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.to = gathers.Get().(*[]byte)
}

// take adds p to the gathered bytes. It returns false if nothing is being gathered.
func (g *gather) take(p []byte) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.to == nil {
		return false
	}
	*g.to = append(*g.to, p...)
	return true
}

// isEmpty reports whether nothing has been gathered since begin.
func (g *gather) isEmpty() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(*g.to) == 0
}

// end writes the gathered bytes. It holds the lock, so that what TLS itself writes meanwhile waits,
// such as the answer to a key update.
func (g *gather) end(conn net.Conn) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	b := g.to
	g.to = nil
	var err error
	if len(*b) > 0 {
		_, err = conn.Write(*b)
	}
	if cap(*b) <= 2*gatherSize {
		*b = (*b)[:0]
		gathers.Put(b)
	}
	return err
}
