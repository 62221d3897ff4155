package origin

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// errStalled says that a server sent nothing more of a body in time.
var errStalled = &timeoutError{"the origin stopped sending the body"}

// timeoutError is one that IsTimeout knows.
type timeoutError struct{ text string }

func (e *timeoutError) Error() string { return e.text }

// Timeout is true.
func (e *timeoutError) Timeout() bool { return true }

// body is a response's body that gives back the place at its server when it ends, and that ends
// when the server sends nothing for too long.
type responseBody struct {
	io.ReadCloser
	pool       *Pool
	place      *place
	reqBody    *requestBody    // the request's body, which may not have ended
	ctx        context.Context // of the attempt
	sentAt     time.Time       // when the request was
	successful bool            // the status is none of a failure, so that the end of the body is a success
	timer      *time.Timer
	stalled    atomic.Bool
	closed     atomic.Bool
	finish     func()
}

// newBody wraps the body of a response from b. That of an upgrade is a connection, which may be
// silent for as long as it likes.
func (p *Pool) newBody(ctx context.Context, cancel context.CancelCauseFunc, resp *http.Response, pl *place, reqBody *requestBody, sent time.Time) io.ReadCloser {
	y := &responseBody{ReadCloser: resp.Body, pool: p, place: pl, reqBody: reqBody, ctx: ctx, sentAt: sent, successful: !isFailure(resp.StatusCode) || p.Relays}
	y.finish = sync.OnceFunc(func() {
		cancel(nil)
		p.release(pl)
	})
	if rw, ok := resp.Body.(io.ReadWriteCloser); ok && resp.StatusCode == http.StatusSwitchingProtocols {
		return &upgraded{rw, y.finish}
	}
	y.timer = time.AfterFunc(p.BetweenBytesTimeout, func() {
		y.stalled.Store(true)
		cancel(errStalled)
	})
	y.timer.Stop()
	return y
}

// Read reads on; the wait for the next bytes is bounded, but not the time that the caller takes
// with them.
func (y *responseBody) Read(b []byte) (int, error) {
	y.timer.Reset(y.pool.BetweenBytesTimeout)
	n, err := y.ReadCloser.Read(b)
	y.timer.Stop()
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
	case y.pool.Relays: // it may have been the origin that failed
	case y.reqBody.clientFault() != nil: // with the request the response ends
	case !y.closed.Load() && (y.stalled.Load() || y.ctx.Err() == nil): // or it is the caller who ended it
		y.pool.failed(y.place.b, time.Now(), err, false, false, false)
	}
	y.pool.mu.Unlock()
	y.finish()
	return n, err
}

// Close ends the body.
func (y *responseBody) Close() error {
	y.closed.Store(true)
	err := y.ReadCloser.Close()
	y.finish()
	return err
}

// upgraded is the connection of a 101.
type upgraded struct {
	io.ReadWriteCloser
	finish func()
}

// CloseWrite ends the sending side.
func (u *upgraded) CloseWrite() error {
	if w, ok := u.ReadWriteCloser.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return errors.ErrUnsupported
}

// Close ends the connection.
func (u *upgraded) Close() error {
	err := u.ReadWriteCloser.Close()
	u.finish()
	return err
}
