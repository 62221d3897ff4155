package http2

import (
	"errors"
	"os"
	"time"

	xhttp2 "golang.org/x/net/http2"
)

// await writes pending output, and waits for the header of a frame.
func (c *conn) await() error {
	c.flush()
	if c.large {
		c.newFramer()
	}
	for {
		if err := c.arm(); err != nil {
			return err
		}
		err := c.input()
		if err == nil {
			c.heard = time.Now()
			c.expireLater(c.heard)
			return nil
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		now := time.Now()
		if err := c.overdue(now); err != nil {
			return err
		}
		c.flush()
		c.park(now)
	}
}

// arm sets the read deadline to when the reader next has something else to do. It keeps an earlier
// deadline, which does no harm.
func (c *conn) arm() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.woken {
		return nil
	}
	want := c.heard.Add(c.limits.PingAfter)
	if !c.pinged.IsZero() {
		want = c.pinged.Add(c.limits.PingTimeout)
	}
	if end := c.since.Add(c.limits.IdleTimeout); c.idle() && end.Before(want) {
		want = end
	}
	if end := c.parkBy(); !end.IsZero() && end.Before(want) {
		want = end
	}
	if end := time.Now().Add(c.limits.WriteTimeout / 2); end.Before(want) && c.stalls() {
		want = end
	}
	if c.armed.IsZero() || c.armed.After(want) {
		c.armed = want
		return c.nc.SetReadDeadline(want)
	}
	return nil
}

// within sets the read deadline for the rest of a frame to d from now.
func (c *conn) within(d time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.woken {
		return c.over(time.Now())
	}
	c.armed = time.Now().Add(d)
	return c.nc.SetReadDeadline(c.armed)
}

// overdue does what is due at a read deadline: it ends an idle connection, resets slow streams, and
// sends PING or ends the connection if none was answered.
func (c *conn) overdue(now time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.woken, c.armed = false, time.Time{}
	if err := c.over(now); err != nil {
		return err
	}
	c.expire(now)
	if c.heard.After(c.pinged) {
		c.pinged = time.Time{}
	}
	switch {
	case !c.pinged.IsZero():
		if now.Sub(c.pinged) >= c.limits.PingTimeout {
			return errPingTimeout
		}
	case now.Sub(c.heard) >= c.limits.PingAfter:
		c.pinged = now
		c.out = appendPing(c.outBuffer(), false, alivePing)
	}
	return nil
}

// over returns why the connection must end, or nil if it need not. c.mu is held.
func (c *conn) over(now time.Time) error {
	switch {
	case c.err != nil:
		return c.err
	case !c.idle():
		return nil
	case c.drained == goneAway:
		return errDone
	case now.Sub(c.since) >= c.limits.IdleTimeout:
		return errIdle
	}
	return nil
}

// idle reports whether no request is under way. c.mu is held.
func (c *conn) idle() bool { return len(c.streams)+c.orphans == 0 }

// wake interrupts the reader, so that it checks for work. c.mu is held.
func (c *conn) wake() {
	c.woken = true
	_ = c.nc.SetReadDeadline(past)
}

// past is a deadline that has expired.
var past = time.Unix(1, 0)

// stalled reports whether a stream has something to send. c.mu is held.
func (s *stream) stalled() bool { return s.left() > 0 || s.ending && !s.sendEnded }

// stalls reports whether any stream has something to send. c.mu is held.
func (c *conn) stalls() bool {
	for _, s := range c.streams {
		if s.stalled() {
			return true
		}
	}
	return false
}

// expireLater calls expire unless it did so within the last quarter of Limits.WriteTimeout.
func (c *conn) expireLater(now time.Time) {
	if now.Sub(c.looked) > c.limits.WriteTimeout/4 {
		c.looked = now
		c.mu.Lock()
		defer c.mu.Unlock()
		c.expire(now)
	}
}

// expire resets streams whose client took less than 64 KiB in Limits.WriteTimeout. c.mu is held.
func (c *conn) expire(now time.Time) {
	for _, s := range c.streams {
		switch {
		case !s.stalled():
		case s.sent-s.atMark >= outSize:
			s.marked, s.atMark = now, s.sent
		case now.Sub(s.marked) > c.limits.WriteTimeout:
			c.resetStream(s, xhttp2.ErrCodeCancel, os.ErrDeadlineExceeded)
		}
	}
}

// deadline is a read or write deadline of a handler. It has a timer only while a goroutine waits.
type deadline struct {
	at    time.Time // zero means none
	timer *time.Timer
}

// over reports whether the deadline has expired.
func (d *deadline) over() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

// arm starts the timer, which calls expire with c.mu held when the deadline expires. c.mu is held.
func (d *deadline) arm(c *conn, expire func()) {
	if d.at.IsZero() || d.timer != nil {
		return
	}
	var timer *time.Timer
	timer = time.AfterFunc(time.Until(d.at), func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if d.timer == timer {
			d.timer = nil
			expire()
			c.kick()
		}
	})
	d.timer = timer
}

// stop stops the timer. c.mu is held.
func (d *deadline) stop() {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
}

// set sets the deadline. c.mu is held.
func (d *deadline) set(t time.Time) {
	d.stop()
	d.at = t
}
