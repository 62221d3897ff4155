package origin

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/http/httputil"
	"net/textproto"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/sys/unix"
)

// A server may send more data than its response, by mistake or to pass it off as the response to
// the next request on the connection, which may be another client's. So a connection is kept only
// if
// nothing was read beyond the response, and a request is written only if nothing has arrived since
// (isFit). Data that arrives after that can't be told from a response.

var (
	// errNothingWritten means that a connection ended before a byte of the request was written.
	errNothingWritten = errors.New("the connection has ended")
	// errNoAnswer means that FirstByteTimeout has passed.
	errNoAnswer = &timeoutError{"timeout awaiting the response header"}
	// errHeaderSize means that the header of a response exceeds maxHeader.
	errHeaderSize = fmt.Errorf("the origin's response header exceeds %d bytes", maxHeader)
	// errSwitch means that the origin switched protocols without being asked.
	errSwitch = errors.New("the origin switched protocols, which the request did not ask for")
	// errBodyClosed is returned by a Read after Close.
	errBodyClosed = errors.New("read of a response body that is closed")
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
	// maxKeptHeader is how much memory for the header of a request an idle connection keeps, in bytes.
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
	stop     func() bool // ends the watch of the request's context
	upload   *upload     // nil if the request has no body
	body     io.Reader   // of the response
	reusable bool        // the connection may have further requests if the body is read to its end
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
	answerBy := func() { _ = c.conn.SetReadDeadline(time.Now().Add(c.transport.pool.FirstByteTimeout)) }
	if hasBody(x.r) {
		x.upload = newUpload(x, answerBy)
		go x.upload.run() // ends with the request's body or the connection
	} else {
		answerBy()
	}
	resp, err := x.readHeader(to)
	if err != nil {
		return nil, err
	}
	x.upload.answered()
	_ = c.conn.SetReadDeadline(time.Time{})
	return x.accept(resp)
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
		resp, err := http.ReadResponse(c.in, x.r)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode < 100 || resp.StatusCode > 199 || resp.StatusCode == http.StatusSwitchingProtocols {
			return resp, nil
		}
		if to.interim != nil {
			if err := to.interim(resp.StatusCode, resp.Header); err != nil {
				return nil, err
			}
		}
		if t := httptrace.ContextClientTrace(x.r.Context()); t != nil && t.Got1xxResponse != nil {
			if err := t.Got1xxResponse(resp.StatusCode, textproto.MIMEHeader(resp.Header)); err != nil {
				return nil, err
			}
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
	x.body, resp.Body = resp.Body, x
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
	n, err := x.body.Read(b)
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

// upload writes the body of a request.
type upload struct {
	x        *http1Exchange
	done     chan struct{}
	complete func() // called when the body is written, unless the response came first

	mu       sync.Mutex
	hasReply bool  // the header of the response was read
	err      error // of reading or writing the body
}

func newUpload(x *http1Exchange, complete func()) *upload {
	return &upload{x: x, done: make(chan struct{}), complete: complete}
}

// run writes the body. If that fails because the server has closed the connection, what the server
// sent before that still counts.
func (u *upload) run() {
	defer close(u.done)
	err := u.x.writeBody()
	if e := u.x.r.Body.Close(); err == nil {
		err = e
	}
	u.mu.Lock()
	u.err = err
	if (err == nil || isClosedByPeer(err)) && !u.hasReply {
		u.complete()
	}
	u.mu.Unlock()
	if err != nil && !isClosedByPeer(err) {
		_ = u.x.c.own.Close()
	}
}

// answered records that the header of the response was read.
func (u *upload) answered() {
	if u != nil {
		u.mu.Lock()
		u.hasReply = true
		u.mu.Unlock()
	}
}

// failure returns why the body could not be read or written, unless the connection has ended.
func (u *upload) failure() error {
	if u == nil {
		return nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if isClosedByPeer(u.err) || errors.Is(u.err, net.ErrClosed) {
		return nil
	}
	return u.err
}

// succeeded reports whether the whole body was written. It waits a moment for the end of the last
// write.
func (u *upload) succeeded() bool {
	if u == nil {
		return true
	}
	select {
	case <-u.done:
	default:
		t := time.NewTimer(uploadGrace)
		defer t.Stop()
		select {
		case <-u.done:
		case <-t.C:
			return false
		}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.err == nil
}

// isClosedByPeer reports whether a write failed because the server has closed the connection.
func isClosedByPeer(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)
}

// uploadBuffers are buffers for copying the bodies of requests.
var uploadBuffers = sync.Pool{New: func() any { return new([maxUploadRead]byte) }}

// writeBody writes the body of the request, each piece as it is read.
func (x *http1Exchange) writeBody() error {
	buf := uploadBuffers.Get().(*[maxUploadRead]byte)
	defer uploadBuffers.Put(buf)
	r, w := x.r, x.c.conn
	if r.ContentLength > 0 {
		n, err := io.CopyBuffer(onlyWriter{w}, io.LimitReader(r.Body, r.ContentLength), buf[:])
		if err != nil {
			return err
		}
		more, err := io.CopyBuffer(io.Discard, onlyReader{r.Body}, buf[:])
		if err == nil && n+more != r.ContentLength {
			err = fmt.Errorf("the request's body has %d bytes, %d were announced", n+more, r.ContentLength)
		}
		return err
	}
	buffered := bufio.NewWriter(w)
	if _, err := io.CopyBuffer(&chunkFlusher{httputil.NewChunkedWriter(buffered), buffered},
		onlyReader{r.Body}, buf[:]); err != nil {
		return err
	}
	_, _ = buffered.WriteString("0\r\n") // a failed write makes Flush fail
	if r.Trailer != nil {
		_ = r.Trailer.Write(buffered)
	}
	_, _ = buffered.WriteString("\r\n")
	return buffered.Flush()
}

// onlyReader and onlyWriter hide the methods by which io.Copy would do without a buffer.
type (
	onlyReader struct{ io.Reader }
	onlyWriter struct{ io.Writer }
)

// chunkFlusher sends each chunk at once.
type chunkFlusher struct {
	chunks io.Writer
	out    *bufio.Writer
}

func (f *chunkFlusher) Write(b []byte) (int, error) {
	n, err := f.chunks.Write(b)
	if err == nil {
		err = f.out.Flush()
	}
	return n, err
}

// hasBody reports whether a request has a body.
func hasBody(r *http.Request) bool { return r.Body != nil && r.Body != http.NoBody }

func closeBody(r *http.Request) {
	if r.Body != nil {
		_ = r.Body.Close()
	}
}

// checkRequest returns an error if a request can't be written.
func checkRequest(r *http.Request) error {
	switch {
	case !isMethod(r.Method):
		return fmt.Errorf("the method %q is none", r.Method)
	case !httpguts.ValidHostHeader(r.Host) || r.Host == "" && r.URL.Host == "":
		return fmt.Errorf("the host %q is none", r.Host)
	case strings.ContainsFunc(r.URL.RequestURI(), func(c rune) bool { return c <= ' ' || c == 0x7f }):
		return fmt.Errorf("the target %q has a control character or space", r.URL.RequestURI())
	}
	if err := checkFields(r.Header); err != nil {
		return err
	}
	return checkFields(r.Trailer)
}

func checkFields(h http.Header) error {
	for name, values := range h {
		if !httpguts.ValidHeaderFieldName(name) {
			return fmt.Errorf("the field name %q is none", name)
		}
		for _, v := range values {
			if !httpguts.ValidHeaderFieldValue(v) {
				return fmt.Errorf("the value of the field %s has a control character", name)
			}
		}
	}
	return nil
}

// isMethod reports whether a method is a token (RFC 9110, 9.1).
func isMethod(method string) bool {
	return method != "" && !strings.ContainsFunc(method, func(c rune) bool { return !httpguts.IsTokenRune(c) })
}

// appendRequest puts the header of a request into c.out.
func (c *http1Conn) appendRequest(r *http.Request) {
	b := append(c.out[:0], r.Method...)
	b = append(b, ' ')
	b = append(b, r.URL.RequestURI()...)
	b = append(b, " HTTP/1.1\r\nHost: "...)
	host := r.Host
	if host == "" {
		host = r.URL.Host
	}
	b = append(append(b, host...), "\r\n"...)
	if agent := r.Header.Get("User-Agent"); agent != "" {
		b = appendField(b, "User-Agent", agent)
	}
	if (r.Close || c.transport.once) && !httpguts.HeaderValuesContainsToken(r.Header["Connection"], "close") {
		b = append(b, "Connection: close\r\n"...)
	}
	b = appendFraming(b, r)
	c.names = c.names[:0]
	for name := range r.Header {
		switch name {
		case "Host", "User-Agent", "Content-Length", "Transfer-Encoding", "Trailer":
		default:
			c.names = append(c.names, name)
		}
	}
	slices.Sort(c.names)
	for _, name := range c.names {
		for _, v := range r.Header[name] {
			b = appendField(b, name, v)
		}
	}
	c.out = append(b, "\r\n"...)
}

// appendFraming appends the fields that tell the length of the body (RFC 9112, 6).
func appendFraming(b []byte, r *http.Request) []byte {
	switch {
	case !hasBody(r):
		switch r.Method {
		case http.MethodPost, http.MethodPut, http.MethodPatch:
			b = append(b, "Content-Length: 0\r\n"...)
		}
	case r.ContentLength > 0:
		b = append(b, "Content-Length: "...)
		b = append(strconv.AppendInt(b, r.ContentLength, 10), "\r\n"...)
	default:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
		names := make([]string, 0, len(r.Trailer))
		for name := range r.Trailer {
			names = append(names, name)
		}
		if len(names) > 0 {
			slices.Sort(names)
			b = appendField(b, "Trailer", strings.Join(names, ","))
		}
	}
	return b
}

func appendField(b []byte, name, value string) []byte {
	b = append(b, name...)
	b = append(b, ": "...)
	b = append(b, strings.Trim(value, " \t")...)
	return append(b, "\r\n"...)
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
