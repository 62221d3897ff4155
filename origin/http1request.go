package origin

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/http/httpguts"
)

// This file writes requests of HTTP/1.1 (RFC 9112).

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
	if e := u.x.r.Body.Close(); err == nil && e != nil {
		err = &bodyError{e}
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
	if isOfBody(u.err) || !isClosedByPeer(u.err) && !errors.Is(u.err, net.ErrClosed) {
		return u.err
	}
	return nil
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
	return (errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)) && !isOfBody(err)
}

// bodyError is why the body of a request could not be read. Its cause may look like the end of the
// server's connection, and be that of the client's.
type bodyError struct{ error }

func (e *bodyError) Unwrap() error { return e.error }

func isOfBody(err error) bool { return errors.As(err, new(*bodyError)) }

// uploadBuffers are buffers for copying the bodies of requests.
var uploadBuffers = sync.Pool{New: func() any { return new([maxUploadRead]byte) }}

// writeBody writes the body of the request, each piece as it is read.
func (x *http1Exchange) writeBody() error {
	buf := uploadBuffers.Get().(*[maxUploadRead]byte)
	defer uploadBuffers.Put(buf)
	r, w, body := x.r, x.c.conn, bodyReader{x.r.Body}
	if r.ContentLength > 0 {
		n, err := io.CopyBuffer(onlyWriter{w}, io.LimitReader(body, r.ContentLength), buf[:])
		if err != nil {
			return err
		}
		more, err := io.CopyBuffer(io.Discard, body, buf[:])
		if err == nil && n+more != r.ContentLength {
			err = fmt.Errorf("the request's body has %d bytes, but its Content-Length is %d", n+more, r.ContentLength)
		}
		return err
	}
	buffered := bufio.NewWriter(w)
	chunks := &chunkFlusher{httputil.NewChunkedWriter(buffered), buffered}
	if _, err := io.CopyBuffer(chunks, body, buf[:]); err != nil {
		return err
	}
	_, _ = buffered.WriteString("0\r\n") // a failed write makes Flush fail
	if r.Trailer != nil {
		_ = r.Trailer.Write(buffered)
	}
	_, _ = buffered.WriteString("\r\n")
	return buffered.Flush()
}

// bodyReader reads the body of a request.
type bodyReader struct{ body io.Reader }

func (r bodyReader) Read(b []byte) (int, error) {
	n, err := r.body.Read(b)
	if err != nil && err != io.EOF {
		err = &bodyError{err}
	}
	return n, err
}

// onlyWriter hides the method by which io.Copy would do without a buffer.
type onlyWriter struct{ io.Writer }

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
		return fmt.Errorf("%q is not a valid method", r.Method)
	case !httpguts.ValidHostHeader(r.Host) || r.Host == "" && r.URL.Host == "":
		return fmt.Errorf("%q is not a valid Host", r.Host)
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
			return fmt.Errorf("%q is not a valid field name", name)
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
