package origin

import (
	"errors"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A server may send more than a response: by mistake, or to have the rest taken for the answer to
// the next request on the connection, which may be another client's. The transport closes an idle
// connection on which something comes. But a request that takes the connection just when its last
// response ended may be earlier than the look at what is left in the transport's buffer. So a
// request that takes a connection over HTTP/1 which had another one waits until the transport reads
// on, as it does when its buffer is empty; looks whether the socket has anything; and until its
// first byte is written, nothing may come. What a server sends after that can't be told from an
// answer.

// errUnasked is the failure of a connection on which a server sent something before it was asked.
var errUnsolicited = errors.New("the server sent something that was not asked for")

// unaskedWait is for how long the transport may take to read on.
const drainWait = time.Second

// http1Conn is a connection over HTTP/1 as the transport has it, above TLS.
type http1Conn struct {
	net.Conn
	raw *conn // below TLS

	mu          sync.Mutex
	reading     bool          // the transport has nothing left, and waits for more
	closed      bool          // or it has closed the connection
	changed     chan struct{} // closed when one of them comes true; nil if nobody waits
	unsolicited bool          // a request has the connection, and wrote nothing yet
}

// Read reads on.
func (c *http1Conn) Read(b []byte) (int, error) {
	c.mu.Lock()
	c.reading = true
	c.notify()
	c.mu.Unlock()
	n, err := c.Conn.Read(b)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reading = false
	if n > 0 && c.unsolicited {
		c.raw.retired.Store(true)
		return 0, errUnsolicited
	}
	return n, err
}

// Write writes. From then on the server may answer.
func (c *http1Conn) Write(b []byte) (int, error) {
	c.mu.Lock()
	c.unsolicited = false
	c.mu.Unlock()
	return c.Conn.Write(b)
}

// Close closes the connection.
func (c *http1Conn) Close() error {
	c.mu.Lock()
	c.closed = true
	c.notify()
	c.mu.Unlock()
	return c.Conn.Close()
}

// CloseWrite ends the sending side of an upgraded connection.
func (c *http1Conn) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return errors.ErrUnsupported
}

// move tells who waits. The caller holds mu.
func (c *http1Conn) notify() {
	if c.changed != nil {
		close(c.changed)
		c.changed = nil
	}
}

// next reports whether the connection may have a further request: nothing is left of what the
// server sent. A request that has a closed one is sent on another by the transport.
func (c *http1Conn) isClean() bool {
	t := time.NewTimer(drainWait)
	defer t.Stop()
	for {
		c.mu.Lock()
		if c.reading || c.closed {
			c.unsolicited = true
			c.mu.Unlock()
			return hasNoEvents(c.raw, unix.POLLIN|unix.POLLRDHUP)
		}
		if c.changed == nil {
			c.changed = make(chan struct{})
		}
		changed := c.changed
		c.mu.Unlock()
		select {
		case <-changed:
		case <-t.C:
			return false
		}
	}
}

// isQuiet reports whether none of some events of poll(2) is there for a connection.
func hasNoEvents(c *conn, events int16) bool {
	sc, ok := c.Conn.(syscall.Conn)
	if !ok {
		return true
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	none := false
	err = raw.Control(func(fd uintptr) {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: events}}, 0)
		none = err == nil && n == 0
	})
	return err == nil && none
}
