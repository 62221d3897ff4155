package origin

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/sys/unix"
)

// A server may send more data than its response, by mistake or to pass it off as the response to
// the next request on the connection, which may be another client's. A connection is kept only if
// nothing was read beyond the response. A request is written to it only if nothing has arrived
// since (isFit). Data that arrives later can't be told from a response.

var (
	// errNothingWritten means that a connection ended before a byte of the request was written.
	errNothingWritten = errors.New("the connection has ended")
	// errNoAnswer means that FirstByteTimeout has passed.
	errNoAnswer = &timeoutError{"timeout awaiting the response header"}
	// errHeaderSize means that the header of a response exceeds maxHeader.
	errHeaderSize = fmt.Errorf("the origin's response header exceeds %d bytes", maxHeader)
	// errSwitch means that the origin switched protocols without being asked.
	errSwitch = errors.New("the origin switched protocols, but the request has no Upgrade")
	// errBodyClosed is returned by a Read after Close.
	errBodyClosed = errors.New("read on a closed response body")
)

// silentError means that a connection ended before the first byte of the response.
type silentError struct{ error }

func (e *silentError) Unwrap() error { return e.error }

// http1Conn is a connection to a server of HTTP/1. It carries one request at a time.
type http1Conn struct {
	conn       net.Conn // own, or TLS over it
	own        *conn
	transport  *transport
	addr       string // host and port of the URL of its requests
	in         *bufio.Reader
	out        []byte // the header of a request; the memory is used again
	names      []string
	headerLeft int // bytes that a response header may have yet; -1 outside of a header
	idleSince  time.Time
}

func newHTTP1Conn(t *transport, c net.Conn, addr string) *http1Conn {
	h := &http1Conn{conn: c, own: connOf(c), transport: t, addr: addr, headerLeft: -1}
	h.in = bufio.NewReaderSize(h, 16<<10) // a small response comes in one read
	return h
}

// Read implements io.Reader for the buffer. It limits the size of a response's header.
func (c *http1Conn) Read(b []byte) (int, error) {
	if c.headerLeft < 0 {
		return c.conn.Read(b)
	}
	if c.headerLeft == 0 {
		return 0, errHeaderSize
	}
	n, err := c.conn.Read(b[:min(len(b), c.headerLeft)])
	c.headerLeft -= n
	return n, err
}

func (c *http1Conn) close() { _ = c.conn.Close() }

// isExpired reports whether the server may close the idle connection at any moment.
func (c *http1Conn) isExpired(now time.Time) bool {
	limit := idleTimeout
	if n := c.own.idleLimit.Load(); n > 0 {
		limit = min(limit, time.Duration(n-1))
	}
	return now.Sub(c.idleSince) >= limit
}

// mayBeFit reports whether an idle connection may be fit for a request. It is not if it has expired
// or the server has closed it.
func (c *http1Conn) mayBeFit(now time.Time) bool {
	return !c.isExpired(now) && hasNoEvents(c.own, unix.POLLRDHUP)
}

// isFit reports whether a request may be written to an idle connection: it has not expired, the
// server has not closed it, and has sent nothing since the last response.
func (c *http1Conn) isFit(now time.Time) bool {
	if c.isExpired(now) {
		return false
	}
	if c.conn == net.Conn(c.own) {
		return hasNoEvents(c.own, unix.POLLIN|unix.POLLRDHUP)
	}
	if !hasNoEvents(c.own, unix.POLLRDHUP) {
		return false
	}
	// What has arrived over TLS may be a session ticket. Reading shows whether it is data.
	wait := -time.Second
	if !hasNoEvents(c.own, unix.POLLIN) {
		wait = ticketWait
	}
	_ = c.conn.SetReadDeadline(now.Add(wait))
	n, err := c.conn.Read(make([]byte, 1))
	_ = c.conn.SetReadDeadline(time.Time{})
	return n == 0 && errors.Is(err, os.ErrDeadlineExceeded)
}

const (
	// ticketWait is how long reading may take what has arrived on a TLS connection.
	ticketWait = time.Millisecond
	// maxKeptHeader is how many bytes for the header of a request an idle connection keeps.
	maxKeptHeader = 8 << 10
)

// exchange sends a request and returns the response, whose body ends the exchange. If it fails, the
// connection is closed.
func (c *http1Conn) exchange(r *http.Request, to progress) (*http.Response, error) {
	ctx := r.Context()
	x := &http1Exchange{c: c, r: r}
	x.stop = context.AfterFunc(ctx, func() { _ = c.own.Close() })
	resp, err := x.run(to)
	if err == nil {
		return resp, nil
	}
	x.stop()
	c.close()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if failure := x.upload.failure(); failure != nil {
		return nil, failure
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, errNoAnswer
	}
	return nil, err
}

// http1Exchange is a request on a connection and its response. It is the body of the response.
type http1Exchange struct {
	c        *http1Conn
	r        *http.Request
	stop     func() bool   // ends the watch of the request's context
	upload   *upload       // nil if the request has no body
	response http.Response // what readPlain returns
	body     io.Reader     // of a response that net/http has read; nil for one of readPlain
	left     int64         // bytes of the body of such a response that are not read yet
	length   int64         // of the body; -1 if unknown
	reusable bool          // the connection may have further requests if the body is read to its end
	ended    atomic.Bool
	atEnd    atomic.Bool // the body was read to its end
}

// run writes the request and reads the header of the response.
func (x *http1Exchange) run(to progress) (*http.Response, error) {
	c := x.c
	c.appendRequest(x.r)
	before := c.own.written.Load()
	if _, err := c.conn.Write(c.out); err != nil {
		if c.own.written.Load() == before {
			return nil, fmt.Errorf("%w: %w", errNothingWritten, err)
		}
		if !isClosedByPeer(err) {
			return nil, err
		}
		// the server may have answered all the same
	}
	if hasBody(x.r) {
		x.upload = newUpload(x, c.expectAnswer)
		go x.upload.run() // ends with the request's body or the connection
	} else {
		c.expectAnswer()
	}
	resp, err := x.readHeader(to)
	if err != nil {
		return nil, err
	}
	x.upload.answered()
	_ = c.conn.SetReadDeadline(time.Time{})
	return x.accept(resp)
}

// expectAnswer sets the time limit for the header of the response.
func (c *http1Conn) expectAnswer() {
	_ = c.conn.SetReadDeadline(time.Now().Add(c.transport.pool.FirstByteTimeout))
}

// readHeader reads the header of the final response, and the interim responses before it.
func (x *http1Exchange) readHeader(to progress) (*http.Response, error) {
	c := x.c
	c.headerLeft = maxHeader
	defer func() { c.headerLeft = -1 }()
	if _, err := c.in.Peek(1); err != nil {
		return nil, &silentError{err}
	}
	for range maxInterim {
		resp := x.readPlain()
		if resp == nil {
			var err error
			if resp, err = http.ReadResponse(c.in, x.r); err != nil {
				return nil, err
			}
		}
		if resp.StatusCode < 100 || resp.StatusCode > 199 || resp.StatusCode == http.StatusSwitchingProtocols {
			return resp, nil
		}
		if err := to.interim(resp.StatusCode, resp.Header); err != nil {
			return nil, err
		}
		c.headerLeft = maxHeader
	}
	return nil, fmt.Errorf("the origin sent more than %d interim responses", maxInterim)
}

// accept makes the exchange the body of its response.
func (x *http1Exchange) accept(resp *http.Response) (*http.Response, error) {
	if resp.StatusCode == http.StatusSwitchingProtocols {
		if !upgrades(x.r) || !httpguts.HeaderValuesContainsToken(resp.Header["Connection"],
			"upgrade") {
			return nil, errSwitch
		}
		x.stop() // the connection is the caller's
		resp.Body = &switched{x.c}
		return resp, nil
	}
	x.reusable = !resp.Close && !x.r.Close && !x.c.transport.once
	if x.r.Method == http.MethodHead || resp.ContentLength == 0 || resp.Body == http.NoBody {
		resp.Body = http.NoBody
		x.end(true)
		return resp, nil
	}
	x.length = resp.ContentLength
	if resp != &x.response {
		x.body, resp.Body = resp.Body, x
	}
	return resp, nil
}

// end ends the exchange. complete says that the response was read to its end, so that the
// connection may have further requests.
func (x *http1Exchange) end(complete bool) {
	if !x.ended.CompareAndSwap(false, true) {
		return
	}
	undisturbed := x.stop()
	if complete && undisturbed && x.reusable && x.c.in.Buffered() == 0 && x.upload.succeeded() {
		if cap(x.c.out) > maxKeptHeader {
			x.c.out = nil
		}
		x.c.transport.putIdle(x.c)
		return
	}
	x.c.close()
}

// Read implements io.Reader.
func (x *http1Exchange) Read(b []byte) (int, error) {
	if x.ended.Load() {
		if x.atEnd.Load() {
			return 0, io.EOF
		}
		return 0, errBodyClosed
	}
	n, err := x.readBody(b)
	switch {
	case err == io.EOF:
		x.atEnd.Store(true)
		x.end(true)
	case err != nil:
		if ctx := x.r.Context(); ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		x.end(false)
	}
	return n, err
}

// arrived is Arrived for a body over HTTP/1.
func (x *http1Exchange) arrived(n int64, wait time.Duration) bool {
	in := x.c.in
	switch {
	case x.ended.Load() || n > int64(in.Size()):
		return false
	case n <= int64(in.Buffered()):
		return true
	case wait == 0:
		return false
	}
	_ = x.c.conn.SetReadDeadline(time.Now().Add(wait))
	_, err := in.Peek(int(n))
	_ = x.c.conn.SetReadDeadline(time.Time{})
	return err == nil
}

// Close implements io.Closer. Unless the body was read to its end, it closes the connection.
func (x *http1Exchange) Close() error {
	x.end(false)
	return nil
}

// switched is a connection after a 101 response.
type switched struct{ c *http1Conn }

func (s *switched) Read(b []byte) (int, error)  { return s.c.in.Read(b) }
func (s *switched) Write(b []byte) (int, error) { return s.c.conn.Write(b) }
func (s *switched) Close() error                { return s.c.conn.Close() }

// CloseWrite shuts down the writing side of the connection.
func (s *switched) CloseWrite() error {
	if w, ok := s.c.conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return errors.ErrUnsupported
}

// hasNoEvents reports whether poll(2) shows none of the given events for c. It reports true for a
// connection that is no socket.
func hasNoEvents(c *conn, events int16) bool {
	if c.raw == nil {
		return true
	}
	none := false
	err := c.raw.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd), Events: events}}
		n, err := unix.Poll(fds, 0)
		for err == unix.EINTR { // the runtime interrupts its threads
			n, err = unix.Poll(fds, 0)
		}
		none = err == nil && n == 0
	})
	return err == nil && none
}
