package origin

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"time"
)

// errStalled means that a server sent or accepted no data of a body within BetweenBytesTimeout.
var errStalled = &timeoutError{"the origin stopped sending the body"}

// timeoutError is an error that IsTimeout recognizes.
type timeoutError struct{ text string }

func (e *timeoutError) Error() string { return e.text }

// Timeout marks the error as a timeout, as in net.Error.
func (e *timeoutError) Timeout() bool { return true }

// responseBody is the body of a response. It releases the place at the server when it ends. It
// fails with errStalled if the server sends nothing for BetweenBytesTimeout.
type responseBody struct {
	io.ReadCloser
	pool       *Pool
	place      *place
	reqBody    *requestBody    // the request's body, which may still be under way
	ctx        context.Context // of the attempt
	sentAt     time.Time       // when the request was sent
	successful bool            // the status is no failure, so reading to the end is a success
	timer      *time.Timer     // nil until a Read waits
	stalled    atomic.Bool
	closed     atomic.Bool
	cancel     context.CancelCauseFunc // ends ctx
	finished   atomic.Bool
}

// finish ends the attempt and releases the place at the server.
func (y *responseBody) finish() {
	if y.finished.CompareAndSwap(false, true) {
		y.cancel(nil)
		y.pool.release(y.place)
	}
}

// newBody wraps the body of a response from the server of pl. The body of a 101 response is a
// connection and has no timeout.
func (p *Pool) newBody(
	ctx context.Context, cancel context.CancelCauseFunc, resp *http.Response,
	pl *place, reqBody *requestBody, sent time.Time,
) io.ReadCloser {
	y := &responseBody{
		ReadCloser: resp.Body, pool: p, place: pl, reqBody: reqBody, ctx: ctx, sentAt: sent,
		cancel:     cancel,
		successful: !isFailure(resp.StatusCode) || p.Relays,
	}
	if rw, ok := resp.Body.(io.ReadWriteCloser); ok && resp.StatusCode == http.StatusSwitchingProtocols {
		return &upgraded{rw, y.finish}
	}
	return y
}

// startTimer limits the time that a Read waits.
func (y *responseBody) startTimer() {
	limit := y.pool.BetweenBytesTimeout
	if y.timer != nil {
		y.timer.Reset(limit)
		return
	}
	y.timer = time.AfterFunc(limit, func() {
		y.stalled.Store(true)
		y.cancel(errStalled)
	})
}

// Read implements io.Reader. BetweenBytesTimeout limits the wait for data, but not the time between
// two calls.
func (y *responseBody) Read(b []byte) (int, error) {
	x, ok := y.ReadCloser.(*http1Exchange)
	waits := !ok || !x.arrived(1, 0) || x.length < 0
	if waits {
		y.startTimer()
	}
	n, err := y.ReadCloser.Read(b)
	if waits {
		y.timer.Stop()
	}
	if err != nil && y.stalled.Load() {
		err = errStalled
	}
	if err == nil {
		return n, nil
	}
	y.pool.mu.Lock()
	switch {
	case err == io.EOF:
		if y.successful {
			y.pool.succeeded(y.place.b, y.sentAt, time.Now())
		}
	case y.pool.Relays: // the origin may have failed, not the edge
	case y.reqBody.clientFault() != nil: // the request failed, which ended the response
	case !y.closed.Load() && (y.stalled.Load() || y.ctx.Err() == nil): // unless the caller ended it
		y.pool.failed(y.place.b, time.Now(), err, false, false, false)
	}
	y.pool.mu.Unlock()
	y.finish()
	return n, err
}

// Close implements io.Closer. It releases the place at the server.
func (y *responseBody) Close() error {
	y.closed.Store(true)
	err := y.ReadCloser.Close()
	y.finish()
	return err
}

// upgraded is the connection of a 101 response.
type upgraded struct {
	io.ReadWriteCloser
	finish func()
}

// CloseWrite shuts down the writing side of the connection.
func (u *upgraded) CloseWrite() error {
	if w, ok := u.ReadWriteCloser.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return errors.ErrUnsupported
}

// Close closes the connection and releases the place at the server.
func (u *upgraded) Close() error {
	err := u.ReadWriteCloser.Close()
	u.finish()
	return err
}
