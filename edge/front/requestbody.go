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

// requestBody is a request's body whose client has to go on sending: beyond a second for each KiB
// that it sends, it may keep the edge waiting for BodyTimeout in all. What it sends faster than
// that makes up for waits of before, and no more.
type requestBody struct {
	io.ReadCloser
	client  *client // nil if its connection is not limited
	timeout time.Duration
	left    time.Duration      // how long it may still keep the edge waiting
	drained bool               // whoever reads the connection next reads the rest of the body first, as with HTTP/1
	missing int64              // of the length that HTTP/2 or HTTP/3 was told, what is not read yet; 0 without
	begun   atomic.Bool        // the response has begun
	ended   error              // that Read returned; it stays
	slow    prometheus.Counter // nil where nobody counts

	from   context.Context    // of the request as net/http has it
	cancel context.CancelFunc // of the request
	whole  atomic.Bool        // all of the body was read
	// release takes back what counts of it as parked; nil if nothing does.
	release func()
	closed  atomic.Bool // nobody is to read any more
	// proceed tells a client that waits for it to send the body (RFC 9110, 10.1.1), when the body
	// is first read; nil if the server of the request does so.
	proceed func()
	told    atomic.Bool // the client was told

	mu sync.Mutex
	// control is nil once the request is answered. A transport may read on then, for an origin that
	// answered before it had all of the body, and a ResponseController must not be used any more:
	// with HTTP/2 that panics, with HTTP/1.1 it changes the deadline of the next request.
	control *http.ResponseController
}

// errSlowBody is the end of a body whose client sends too little.
var errSlowBody = fmt.Errorf("the body comes too slowly: %w", os.ErrDeadlineExceeded)

// watchBody has the client of a request go on sending the body, whoever reads it. It returns the
// request to go on with, and its body. With HTTP/1 net/http ends the context when the body can't be
// read, as if the client had left; this request's context goes on, so that the client can be told
// what is wrong.
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
		if b.whole.Load() { // else reading the body ends with an error
			b.cancel()
		}
	})
	out := r.WithContext(ctx) // net/http is to find its own body in its request
	out.Body = b
	return out, b
}

// Read reads on. While nobody reads there is no deadline, as the client may not be able to send
// more, but for what net/http drains. When the client is at fault the deadline is over, so that
// nobody waits for the rest.
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
		b.left = b.timeout // messages go both ways, at the pace of the two
	}
	began := time.Now()
	b.setDeadline(began.Add(b.left))
	n, err := b.ReadCloser.Read(p)
	if b.missing > 0 {
		n, err = b.checkLength(n, err)
	}
	if b.client != nil {
		// for what it comes framed in, with HTTP/2 and TLS, even if it comes in small pieces
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

// checkLength has the last bytes of a body of known length wait until it has ended: no origin is to
// get a whole request of which more comes (RFC 9113, 8.1.1).
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

// errLength is the end of a body that is longer than its request says.
var errLength = errors.New("the body is longer than Content-Length says")

// setDeadline sets that of the next bytes.
func (b *requestBody) setDeadline(t time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.control != nil {
		_ = b.control.SetReadDeadline(t) // a connection without deadlines has none to overrun
	}
}

// Close has nobody begin to read any more. What is below is the server's to close, once the answer
// is out: over HTTP/1 that waits for a Read, and so for the client.
func (b *requestBody) Close() error {
	b.closed.Store(true)
	return nil
}

// answer is called when the answer with a header begins. Over HTTP/1 one that comes before the end
// of the body does not wait for that, and the connection ends with it, so that nothing of the body
// is taken for a request.
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

// answered has to be called before the handler returns. What is still read is for linger.
func (b *requestBody) answered() {
	b.cancel()
	if b.drained && !b.whole.Load() {
		b.setDeadline(time.Now().Add(min(lingerTimeout, b.timeout)))
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.control = nil
}

// linger reads what comes after an answer that the client has whole: a connection that is closed
// with bytes unread is reset, and the answer may be lost with it (RFC 9112, 9.6).
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

// lingerBuffers are what is read to be dropped.
var lingerBuffers = sync.Pool{New: func() any { b := make([]byte, 64<<10); return &b }}

// LimitBodies answers with h, whose clients have to go on sending bodies that they have begun: they
// may keep a read waiting for timeout in all; 0 means a minute. It is for handlers that write their
// answer at once.
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
