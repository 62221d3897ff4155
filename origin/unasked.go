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
var errUnasked = errors.New("the server sent something that was not asked for")

// unaskedWait is for how long the transport may take to read on.
const unaskedWait = time.Second

// http1Conn is a connection over HTTP/1 as the transport has it, above TLS.
type http1Conn struct {
	net.Conn
	own *conn // below TLS

	mu      sync.Mutex
	reading bool          // the transport has nothing left, and waits for more
	closed  bool          // or it has closed the connection
	moved   chan struct{} // closed when one of them comes true; nil if nobody waits
	unasked bool          // a request has the connection, and wrote nothing yet
}

// Read reads on.
func (c *http1Conn) Read(b []byte) (int, error) {
	c.mu.Lock()
	c.reading = true
	c.move()
	c.mu.Unlock()
	n, err := c.Conn.Read(b)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reading = false
	if n > 0 && c.unasked {
		c.own.retired.Store(true)
		return 0, errUnasked
	}
	return n, err
}

// Write writes. From then on the server may answer.
func (c *http1Conn) Write(b []byte) (int, error) {
	c.mu.Lock()
	c.unasked = false
	c.mu.Unlock()
	return c.Conn.Write(b)
}

// Close closes the connection.
func (c *http1Conn) Close() error {
	c.mu.Lock()
	c.closed = true
	c.move()
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
func (c *http1Conn) move() {
	if c.moved != nil {
		close(c.moved)
		c.moved = nil
	}
}

// next reports whether the connection may have a further request: nothing is left of what the
// server sent. A request that has a closed one is sent on another by the transport.
func (c *http1Conn) next() bool {
	t := time.NewTimer(unaskedWait)
	defer t.Stop()
	for {
		c.mu.Lock()
		if c.reading || c.closed {
			c.unasked = true
			c.mu.Unlock()
			return isQuiet(c.own, unix.POLLIN|unix.POLLRDHUP)
		}
		if c.moved == nil {
			c.moved = make(chan struct{})
		}
		moved := c.moved
		c.mu.Unlock()
		select {
		case <-moved:
		case <-t.C:
			return false
		}
	}
}

// isQuiet reports whether none of some events of poll(2) is there for a connection.
func isQuiet(c *conn, events int16) bool {
	sc, ok := c.Conn.(syscall.Conn)
	if !ok {
		return true
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	quiet := false
	err = raw.Control(func(fd uintptr) {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: events}}, 0)
		quiet = err == nil && n == 0
	})
	return err == nil && quiet
}
