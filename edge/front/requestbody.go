package front

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// requestBody is the body of a request. It limits how long a slow client keeps the edge waiting:
// one second for each KiB that the client sends, and BodyTimeout in all beyond that. A client that
// sends faster makes up for earlier waits only.
type requestBody struct {
	io.ReadCloser
	client  *client // nil if its connection is not limited
	timeout time.Duration
	left    time.Duration      // how long the client may still keep the edge waiting
	drained bool               // the rest of the body is read before the next request, as in HTTP/1
	missing int64              // unread bytes of the length stated over HTTP/2 or HTTP/3; 0 if none is stated
	begun   atomic.Bool        // the response has begun
	ended   error              // the error that Read returned; it is returned again
	slow    prometheus.Counter // nil means that nothing is counted

	from   context.Context    // context of the request that net/http made
	cancel context.CancelFunc // cancels the context of the request that watchBody returned
	whole  atomic.Bool        // all of the body was read
	// release takes back what the body counts as parked; nil if it counts as nothing.
	release func()
	closed  atomic.Bool // further Reads fail
	// proceed sends a 100 to a client that waits for one (RFC 9110, 10.1.1), when the body is first
	// read; nil if the HTTP server does so.
	proceed func()
	told    atomic.Bool // the 100 was sent

	mu sync.Mutex
	// control is nil once the request is answered. A transport may read on for an origin that
	// answered early. The ResponseController must not be used then: with HTTP/2 it panics, and with
	// HTTP/1.1 it changes the deadline of the next request.
	control *http.ResponseController
}

// errSlowBody is the error of a body whose client sends too slowly.
var errSlowBody = fmt.Errorf("the client sends the body too slowly: %w", os.ErrDeadlineExceeded)

// watchBody limits how slowly a client may send the body of a request. It returns the request to go
// on with, and its body. If the body can't be read, net/http ends the context of an HTTP/1 request,
// as if the client had left. The context of the returned request goes on, so that the client can
// get an error.
func watchBody(r *http.Request, from *client, control *http.ResponseController, timeout time.Duration) (*http.Request,
	*requestBody) {
	b := &requestBody{ReadCloser: r.Body, client: from, timeout: timeout, drained: r.ProtoMajor == 1, control: control,
		from: r.Context()}
	b.left = b.timeout
	if !b.drained {
		b.missing = max(0, r.ContentLength)
	}
	ctx := b.from
	if b.drained {
		b.setDeadline(time.Now().Add(b.timeout))
		ctx = context.WithoutCancel(ctx)
	}
	ctx, b.cancel = context.WithCancel(ctx)
	context.AfterFunc(b.from, func() {
		if b.whole.Load() { // otherwise reading the body ends with an error
			b.cancel()
		}
	})
	out := r.WithContext(ctx) // net/http must find its own body in its request
	out.Body = b
	return out, b
}

// Read reads the next bytes. There is no deadline while nobody reads, because the client may not be
// able to send more; net/http, which drains the body, is the exception. When the client is at
// fault, the deadline expires, so that nothing waits for the rest.
func (b *requestBody) Read(p []byte) (int, error) {
	switch {
	case b.ended != nil:
		return 0, b.ended
	case b.closed.Load():
		return 0, http.ErrBodyReadAfterClose
	case b.proceed != nil && !b.told.Load():
		b.proceed()
	}
	if b.begun.Load() {
		b.left = b.timeout // the client may be waiting for more of the response
	}
	began := time.Now()
	b.setDeadline(began.Add(b.left))
	n, err := b.ReadCloser.Read(p)
	if b.missing > 0 {
		n, err = b.checkLength(n, err)
	}
	if b.client != nil {
		// for the framing of HTTP/2 and TLS, even if the pieces are small
		b.client.credit.Add(2*int64(n) + 256)
	}
	b.left = min(b.timeout, b.left-time.Since(began)+time.Duration(n)*time.Second/bodyRate)
	if err == nil && b.left <= 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		err = errSlowBody
		if b.slow != nil {
			b.slow.Inc()
		}
	}
	switch {
	case err == io.EOF:
		b.setDeadline(time.Time{})
		b.whole.Store(true)
		if b.release != nil {
			b.release()
		}
		if b.from.Err() != nil {
			b.cancel()
		}
	case err == nil && !b.drained:
		b.setDeadline(time.Time{})
	case err != nil:
		b.setDeadline(past)
	}
	b.ended = err
	return n, err
}

// checkLength holds the last bytes of a body of known length back until the body has ended. An
// origin must not get a complete request if more bytes follow (RFC 9113, 8.1.1).
func (b *requestBody) checkLength(n int, err error) (int, error) {
	b.missing -= int64(n)
	var more [1]byte
	for extra := 0; b.missing <= 0 && err == nil; {
		if extra, err = b.ReadCloser.Read(more[:]); extra > 0 {
			err = errLength
		}
	}
	if err != nil && err != io.EOF {
		n = 0
	}
	return n, err
}

// errLength is the error of a body that is longer than its Content-Length.
var errLength = errors.New("the body is longer than Content-Length")

// setDeadline sets the deadline for the next bytes.
func (b *requestBody) setDeadline(t time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.control != nil {
		_ = b.control.SetReadDeadline(t) // it fails only on a connection without deadlines
	}
}

// Close makes further Reads fail. The server closes the underlying body after the response: over
// HTTP/1.1 that waits for a Read, and so for the client.
func (b *requestBody) Close() error {
	b.closed.Store(true)
	return nil
}

// answer is called when a response begins. Over HTTP/1.1, a response that begins before the body
// has ended doesn't wait for the rest of it. It closes the connection, so that the rest isn't read
// as a request.
func (b *requestBody) answer(h http.Header) {
	b.begun.Store(true)
	if !b.drained || b.whole.Load() {
		return
	}
	h.Set("Connection", "close")
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.control != nil {
		_ = b.control.EnableFullDuplex()
	}
}

// answered must be called before the handler returns. linger reads what is still to come.
func (b *requestBody) answered() {
	b.cancel()
	if b.drained && !b.whole.Load() {
		b.setDeadline(time.Now().Add(min(lingerTimeout, b.timeout)))
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.control = nil
}

// linger reads and drops what follows a complete response. A connection that is closed with unread
// bytes is reset, and the response may be lost with it (RFC 9112, 9.6).
func (b *requestBody) linger() {
	if !b.drained || b.whole.Load() {
		return
	}
	buf := lingerBuffers.Get().(*[]byte)
	defer lingerBuffers.Put(buf)
	for {
		n, err := b.ReadCloser.Read(*buf)
		if err != nil {
			return
		}
		if b.client != nil {
			b.client.credit.Add(2 * int64(n))
		}
	}
}

// lingerBuffers hold bytes that are dropped.
var lingerBuffers = sync.Pool{New: func() any { b := make([]byte, 64<<10); return &b }}

// LimitBodies wraps h for clients that send bodies. A client may keep reads waiting for timeout in
// all; 0 means a minute. It is for handlers that write their response at once.
func LimitBodies(h http.Handler, timeout time.Duration) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Body != http.NoBody {
			var body *requestBody
			r, body = watchBody(r, nil, http.NewResponseController(w), cmp.Or(timeout, BodyTimeout))
			defer body.answered()
		}
		h.ServeHTTP(w, r)
	})
}
