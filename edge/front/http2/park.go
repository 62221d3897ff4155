package http2

import (
	"bufio"
	"sync"
	"time"
)

// parkAfter is how long a connection without requests keeps what it needs to read.
const parkAfter = time.Second

// Waiter is a net.Conn that can wait for input without a buffer. Idle connections wait so, if the
// net.Conn that ServeConn gets is a Waiter.
type Waiter interface {
	// Wait returns nil when Read would return something, or an error. It observes the read
	// deadline. It may return nil too early; Read then waits.
	Wait() error
}

var readers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, readSize) }}

// unpark takes what the connection needs to read.
func (c *conn) unpark() {
	c.br = readers.Get().(*bufio.Reader)
	c.br.Reset(c.nc)
	c.newFramer()
}

// parkBy returns when the reader next checks whether to park; zero if it need not. That is also
// parkAfter the last frame if a request is under way, which may be over by then. c.mu is held.
func (c *conn) parkBy() time.Time {
	by := c.heard.Add(parkAfter)
	if c.waiter == nil || c.br == nil || c.br.Buffered() > 0 || !c.idle() && !by.After(time.Now()) {
		return time.Time{}
	}
	return by
}

// park gives back what the connection needs to read, if it has been idle for parkAfter.
func (c *conn) park(now time.Time) {
	c.mu.Lock()
	by := c.parkBy()
	can := c.idle() && !by.IsZero() && !by.After(now)
	c.mu.Unlock()
	if can {
		c.br.Reset(nil)
		readers.Put(c.br)
		c.br, c.fr, c.rendered, c.block.fields, c.asked = nil, nil, nil, nil, Request{}
	}
}

// input waits until the header of a frame is there.
func (c *conn) input() error {
	if c.br == nil {
		if err := c.waiter.Wait(); err != nil {
			return err
		}
		c.unpark()
	}
	_, err := c.br.Peek(frameHeader)
	return err
}
