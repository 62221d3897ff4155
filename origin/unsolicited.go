package origin

import (
	"errors"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A server may send more data than its response, by mistake or to pass it off as the response to
// the next request on the connection, which may be another client's. The transport closes an idle
// connection on which data arrives. But a new request may take the connection before the transport
// has looked at the rest of its read buffer.
//
// So a request on a used HTTP/1 connection waits until the transport calls Read again, which it
// does once its buffer is empty. Then it checks the socket for data. Data that arrives before the
// first byte of the request is written ends the connection. Data that arrives after that can't be
// told from a response.

// errUnsolicited means that a server sent data before a request was written.
var errUnsolicited = errors.New("the server sent something that was not asked for")

// drainWait is how long the transport may take to call Read again.
const drainWait = time.Second

// http1Conn is an HTTP/1 connection as the transport sees it, above TLS.
type http1Conn struct {
	net.Conn
	raw *conn // below TLS

	mu      sync.Mutex
	reading bool          // the transport has emptied its buffer and waits in Read
	closed  bool          // the transport has closed the connection
	changed chan struct{} // closed when reading or closed becomes true; nil if nobody waits
	claimed bool          // a request has claimed the connection and written nothing yet
}

// Read implements io.Reader. It fails if data arrives between isClean and the first Write.
func (c *http1Conn) Read(b []byte) (int, error) {
	c.mu.Lock()
	c.reading = true
	c.notify()
	c.mu.Unlock()
	n, err := c.Conn.Read(b)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reading = false
	if n > 0 && c.claimed {
		c.raw.retired.Store(true)
		return 0, errUnsolicited
	}
	return n, err
}

// Write implements io.Writer. From the first Write on, data from the server is a response.
func (c *http1Conn) Write(b []byte) (int, error) {
	c.mu.Lock()
	c.claimed = false
	c.mu.Unlock()
	return c.Conn.Write(b)
}

// Close implements io.Closer. TLS writes its last record then, which must not wait for a reader: a
// connection that was opened in advance and never used has none.
func (c *http1Conn) Close() error {
	c.mu.Lock()
	c.closed = true
	c.notify()
	c.mu.Unlock()
	c.raw.endRead()
	return c.Conn.Close()
}

// CloseWrite shuts down the writing side of an upgraded connection.
func (c *http1Conn) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return errors.ErrUnsupported
}

// notify wakes the goroutine that waits in isClean. The caller holds mu.
func (c *http1Conn) notify() {
	if c.changed != nil {
		close(c.changed)
		c.changed = nil
	}
}

// isClean reports whether no unread data is left on the connection, so that a further request may
// use it. It waits up to drainWait. If the transport has closed the connection, the transport sends
// the request on another one.
func (c *http1Conn) isClean() bool {
	var late <-chan time.Time // set once there is something to wait for
	for {
		c.mu.Lock()
		if c.reading || c.closed {
			c.claimed = true
			c.mu.Unlock()
			return hasNoEvents(c.raw, unix.POLLIN|unix.POLLRDHUP)
		}
		if c.changed == nil {
			c.changed = make(chan struct{})
		}
		changed := c.changed
		c.mu.Unlock()
		if late == nil {
			late = time.After(drainWait)
		}
		select {
		case <-changed:
		case <-late:
			return false
		}
	}
}

// hasNoEvents reports whether poll(2) shows none of the given events for c.
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
		fds := []unix.PollFd{{Fd: int32(fd), Events: events}}
		n, err := unix.Poll(fds, 0)
		for err == unix.EINTR { // the runtime interrupts its threads
			n, err = unix.Poll(fds, 0)
		}
		none = err == nil && n == 0
	})
	return err == nil && none
}
