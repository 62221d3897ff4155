package origin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// RequestError is a failure of Fetch that the request caused: its body could not be read from the
// client, or it can't be sent. It does not affect the health of servers, and the request is not
// retried.
type RequestError struct{ Err error }

func (e *RequestError) Error() string { return "request: " + e.Err.Error() }

// Unwrap returns the underlying error.
func (e *RequestError) Unwrap() error { return e.Err }

var (
	// ErrFields is wrapped by a RequestError if the request's header exceeds the limit that the
	// server announced over HTTP/2.
	ErrFields = errors.New("the header block is larger than the origin accepts")
	// errSlowClient is wrapped by a RequestError if the server gave up waiting for the client's
	// body.
	errSlowClient = &timeoutError{"the origin closed the connection before the client had sent the body"}
)

// continueWait is how long a request with "Expect: 100-continue" waits for the server's 100 (RFC
// 9110, section 10.1.1). Some servers never send it.
const continueWait = time.Second

// errUnwanted ends a request's body after the server has responded without it.
var errUnwanted = errors.New("the origin answered without the body")

// clientGrace is how long a request may wait for its client in total. After that, any failure while
// the body is being sent is the client's fault.
const clientGrace = time.Second

// requestBody wraps the body of a request on its way to a server. It decides who is at fault if the
// request fails: the client has to send in time, and the server has to accept in time.
type requestBody struct {
	io.ReadCloser
	pool     *Pool
	place    *place
	declared int64 // Content-Length; -1 if there is none
	read     int64
	timer    *time.Timer // limits the time between two reads, which the server spends
	stalled  atomic.Bool // the server accepted no data for too long
	started  atomic.Bool // Read was called
	closed   atomic.Bool
	readErr  atomic.Pointer[error]

	ctx             context.Context // of the attempt; ends with the response
	expectsContinue bool            // the client is waiting for a 100 response
	wanted          chan struct{}   // receives a value when the server wants the body
	answered        chan struct{}   // closed when the round trip ends

	mu           sync.Mutex
	clientTime   time.Duration // total time spent waiting for the client
	readingSince time.Time     // start of the current Read; zero between reads
	complete     bool          // the client has sent the whole body
}

// noRequestBody is the requestBody of every request without a body.
var noRequestBody requestBody

// watchRequestBody wraps the body of r, if it has one. It cancels the attempt if the server accepts
// no data for BetweenBytesTimeout, as when HTTP/2 flow control stalls. Time that the client takes
// does not count.
func (p *Pool) watchRequestBody(r *http.Request, pl *place, cancel context.CancelCauseFunc) *requestBody {
	if r.Body == nil || r.Body == http.NoBody {
		return &noRequestBody
	}
	s := &requestBody{
		ReadCloser: r.Body, pool: p, place: pl, declared: -1, ctx: r.Context(),
		wanted: make(chan struct{}, 1), answered: make(chan struct{}),
	}
	if r.ContentLength > 0 {
		s.declared = r.ContentLength
	}
	s.timer = time.AfterFunc(time.Hour, func() {
		s.stalled.Store(true)
		cancel(errStalled)
	})
	s.timer.Stop()
	s.expectsContinue = r.Header.Get("Expect") != ""
	r.Body = s
	r.GetBody = s.reopen
	return s
}

// reopen implements http.Request.GetBody. It lets the transport send the body on another connection
// if nothing of it was read for the first one.
func (s *requestBody) reopen() (io.ReadCloser, error) {
	if s.started.Load() {
		return nil, errors.New("the body has already been read")
	}
	s.closed.Store(false)
	return s, nil
}

// wantBody records that the server sent 100 Continue.
func (s *requestBody) wantBody() {
	select {
	case s.wanted <- struct{}{}:
	default:
	}
}

// awaitContinue waits until the server wants the body, or for at most continueWait. If the response
// comes first, the client must not be asked to send its body. awaitContinue then waits for the end
// of the response, because the transport closes the connection when reading a body fails.
func (s *requestBody) awaitContinue() error {
	t := time.NewTimer(continueWait)
	defer t.Stop()
	select {
	case <-s.wanted:
		return nil
	case <-t.C:
		return nil
	case <-s.answered:
	case <-s.ctx.Done():
	}
	<-s.ctx.Done()
	return errUnwanted
}

// Read implements io.Reader. The time until the next Read counts as the server's.
func (s *requestBody) Read(b []byte) (int, error) {
	s.timer.Stop()
	s.started.Store(true)
	if s.expectsContinue {
		if err := s.awaitContinue(); err != nil {
			return 0, err
		}
		s.expectsContinue = false
	}
	s.mu.Lock()
	s.readingSince = time.Now()
	s.mu.Unlock()
	n, err := s.ReadCloser.Read(b)
	s.mu.Lock()
	s.clientTime += time.Since(s.readingSince)
	s.readingSince = time.Time{}
	s.mu.Unlock()
	s.read += int64(n)
	switch {
	case s.declared >= 0 && s.read > s.declared:
		err = fmt.Errorf("the body is longer than its Content-Length of %d", s.declared)
	case err == io.EOF && s.read < s.declared:
		err = fmt.Errorf("%w: the body has %d bytes, but its Content-Length is %d", io.ErrUnexpectedEOF, s.read,
			s.declared)
	}
	switch {
	case err == nil:
		s.timer.Reset(s.pool.BetweenBytesTimeout)
	case err == io.EOF:
		s.mu.Lock()
		s.complete = true
		s.mu.Unlock()
		s.pool.mu.Lock()
		s.place.awaitResponse(time.Now())
		s.pool.mu.Unlock()
	case !s.closed.Load(): // otherwise the server ended it
		s.readErr.Store(&err)
	}
	return n, err
}

// Close implements io.Closer.
func (s *requestBody) Close() error {
	s.closed.Store(true)
	s.timer.Stop()
	return s.ReadCloser.Close()
}

// stopWatch ends the watch after the round trip.
func (s *requestBody) stopWatch() {
	if s.timer != nil { // the request has a body
		close(s.answered)
		s.timer.Stop()
	}
}

// clientFault returns a RequestError if the client failed to send the body or was too slow, else
// nil.
func (s *requestBody) clientFault() error {
	if err := s.readErr.Load(); err != nil {
		return &RequestError{*err}
	}
	if s.timer == nil { // the request has no body
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	clientTime := s.clientTime
	if !s.readingSince.IsZero() {
		clientTime += time.Since(s.readingSince)
	}
	if s.complete || clientTime < clientGrace {
		return nil
	}
	return &RequestError{errSlowClient}
}

// requestFault returns a RequestError if a round trip failed because of the request, or nil if it
// is the server's failure.
func requestFault(err error, reqBody *requestBody) error {
	switch {
	case errors.As(err, new(*RequestError)): // it can't be sent
		return err
	// net/http does not export this error
	case strings.Contains(err.Error(), "request header list larger than peer's advertised limit"):
		return &RequestError{ErrFields}
	}
	return reqBody.clientFault()
}
