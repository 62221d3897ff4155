package http2

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	xhttp2 "golang.org/x/net/http2"
)

// connError is an error that ends the connection (RFC 9113, 5.4.1).
type connError struct {
	code xhttp2.ErrCode
	why  string
}

func (e *connError) Error() string { return fmt.Sprintf("%s: %s", e.code, e.why) }

func protocolError(why string) error { return &connError{xhttp2.ErrCodeProtocol, why} }

// flood returns the error that ends the connection of an abusive client.
func flood(why string) error { return &connError{xhttp2.ErrCodeEnhanceYourCalm, why} }

// abort ends the connection at once.
func (c *conn) abort(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fail(err)
}

// fail ends the connection with err, and wakes its reader, writer and streams. c.mu is held.
func (c *conn) fail(err error) {
	if c.err != nil {
		return
	}
	c.err = err
	c.wake()
	_ = c.nc.SetWriteDeadline(past)
	for _, s := range c.streams {
		c.remove(s, errGone)
	}
	c.room.Broadcast()
}

// drain begins the graceful shutdown of the connection (RFC 9113, 6.8). A first GOAWAY announces
// it. A round trip later, or after drainLimit, a second one names the last request, so that no
// request in flight is lost.
func (c *conn) drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.drained != serving || c.err != nil {
		return
	}
	c.drained = announced
	c.out = appendPing(appendGoAway(c.outBuffer(), maxWindow, xhttp2.ErrCodeNo), false, drainPing)
	c.kick()
	timer := time.AfterFunc(drainLimit, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.goAway()
	})
	context.AfterFunc(c.ctx, func() { timer.Stop() })
}

// goAway sends the GOAWAY that names the last request. c.mu is held.
func (c *conn) goAway() {
	if c.drained != announced || c.err != nil {
		return
	}
	c.drained = goneAway
	c.out = appendGoAway(c.outBuffer(), c.lastID, xhttp2.ErrCodeNo)
	c.kick()
	if c.idle() {
		c.wake()
	}
}

// end tells the client why the connection ends, and closes it.
func (c *conn) end(err error) {
	code, tell := codeOf(err)
	c.mu.Lock()
	tell = tell && c.err == nil
	if code != xhttp2.ErrCodeNo {
		c.server.Log.Debug("HTTP/2 connection ended", "client", c.remote, "error", err)
	}
	if code == xhttp2.ErrCodeEnhanceYourCalm && c.server.Flooding != nil {
		c.server.Flooding(c.nc, err.Error())
	}
	for _, s := range c.streams {
		c.remove(s, errGone)
	}
	if tell {
		c.say(code)
	}
	c.fail(errGone)
	for c.writing {
		c.room.Wait()
	}
	if c.out != nil {
		putBuffer(c.out)
		c.out = nil
	}
	released := c.released
	c.released = nil
	c.mu.Unlock()
	for _, r := range released {
		r.done.Done(r.sent, false)
	}
	if tell {
		c.linger()
	}
	_ = c.nc.Close()
}

// say writes the pending frames, and GOAWAY after them. c.mu is held.
func (c *conn) say(code xhttp2.ErrCode) {
	c.drained = goneAway
	c.out = appendGoAway(c.outBuffer(), c.lastID, code)
	c.closing, c.writeArmed = true, time.Now().Add(endTimeout)
	_ = c.nc.SetWriteDeadline(c.writeArmed)
	for c.writing {
		c.room.Wait()
	}
	c.writing = true
	for c.out != nil && c.err == nil {
		c.writeOnce()
	}
	c.writing = false
}

// linger closes the connection for writing, and discards what the client still sends. If a
// connection is closed with unread bytes, TCP resets it, and the client may miss the last frames.
func (c *conn) linger() {
	half, ok := c.nc.(interface{ CloseWrite() error })
	if !ok {
		return
	}
	_ = c.nc.SetWriteDeadline(time.Now().Add(lingerTime))
	if half.CloseWrite() != nil {
		return
	}
	_ = c.nc.SetReadDeadline(time.Now().Add(lingerTime))
	_, _ = io.CopyN(io.Discard, c.nc, lingerBytes)
}

// codeOf returns the error code for the GOAWAY of an error. tell reports whether one is sent.
func codeOf(err error) (code xhttp2.ErrCode, tell bool) {
	var own *connError
	var framing xhttp2.ConnectionError
	var stream xhttp2.StreamError
	switch {
	case errors.As(err, &own):
		return own.code, true
	case errors.As(err, &framing):
		return xhttp2.ErrCode(framing), true
	case errors.As(err, &stream):
		return stream.Code, true
	case errors.Is(err, xhttp2.ErrFrameTooLarge), errors.Is(err, io.ErrUnexpectedEOF):
		return xhttp2.ErrCodeFrameSize, true
	case errors.Is(err, errDone), errors.Is(err, errIdle), errors.Is(err, errPingTimeout), errors.Is(err,
		os.ErrDeadlineExceeded):
		return xhttp2.ErrCodeNo, true
	}
	return xhttp2.ErrCodeNo, false
}
