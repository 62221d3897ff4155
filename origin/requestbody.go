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

// RequestError is the failure of a Fetch that is no server's: the request could not be read from
// the client, or can't be sent. It counts for nothing of how a server looks, and nobody is asked
// again.
type RequestError struct{ Err error }

func (e *RequestError) Error() string { return "request: " + e.Err.Error() }

// Unwrap returns what is wrong with the request.
func (e *RequestError) Unwrap() error { return e.Err }

var (
	// ErrFields is in a RequestError where a server announced that it does not take as many header
	// fields.
	ErrFields = errors.New("the origin does not take a header block of this size")
	// errWaited is in a RequestError where the server did not wait longer for the client.
	errSlowClient = &timeoutError{"the origin ended the connection before the client had sent the body"}
)

// continueWait is how long a server may take to say that it wants the body of a client that waits
// to be told (RFC 9110, 10.1.1). Some never say it.
const continueWait = time.Second

// errUnwanted ends a body that a server did not want.
var errUnwanted = errors.New("the origin answered without the body")

// clientWait is how long a body may be waited for in all before it is the client's fault that the
// server gives up, however it does.
const clientGrace = time.Second

// sending is a request's body on its way to a server. It tells whose fault a failure is: until the
// body ends it is the client that has to go on sending, and the server that has to go on taking.
type requestBody struct {
	io.ReadCloser
	pool     *Pool
	place    *place
	declared int64 // Content-Length; -1 without
	read     int64
	timer    *time.Timer // for the server
	stalled  atomic.Bool // the server took nothing for too long
	started  atomic.Bool // it was read
	closed   atomic.Bool
	readErr  atomic.Pointer[error]

	ctx             context.Context // of the attempt, which ends with the response
	expectsContinue bool            // the client waits to be told, and was not
	wanted          chan struct{}   // gets one when the server wants the body
	answered        chan struct{}   // closed when there is an answer, or none will come

	mu           sync.Mutex
	clientTime   time.Duration // for the client
	readingSince time.Time     // since when it is waited for; zero if it is not
	complete     bool          // it has sent all
}

// watchSending puts itself in the place of a request's body, if there is one. Where a server takes
// nothing for too long, as by HTTP/2 when it gives no window, it cancels. How long the client takes
// to send is not the server's fault.
func (p *Pool) watchRequestBody(r *http.Request, pl *place, cancel context.CancelCauseFunc) *requestBody {
	s := &requestBody{ReadCloser: r.Body, pool: p, place: pl, declared: -1, ctx: r.Context(), wanted: make(chan struct{}, 1), answered: make(chan struct{})}
	if r.Body == nil || r.Body == http.NoBody {
		return s
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

// again lets the transport send the body on another connection if it wrote nothing on the first.
func (s *requestBody) reopen() (io.ReadCloser, error) {
	if s.started.Load() {
		return nil, errors.New("the body was read already")
	}
	s.closed.Store(false)
	return s, nil
}

// want notes that the server wants the body.
func (s *requestBody) wantBody() {
	select {
	case s.wanted <- struct{}{}:
	default:
	}
}

// await waits until the server wants the body, or has not said for long whether it does. After an
// answer that came before, nobody is to tell the client to send the body. It waits for the end of
// that answer then, as a transport ends its connection when it can't read a body.
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

// Read reads on. The time until the next Read is the server's.
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
		err = fmt.Errorf("the body is longer than the %d bytes that were announced", s.declared)
	case err == io.EOF && s.read < s.declared:
		err = fmt.Errorf("%w: the body has %d bytes, %d were announced", io.ErrUnexpectedEOF, s.read, s.declared)
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
	case !s.closed.Load(): // else the server ended it
		s.readErr.Store(&err)
	}
	return n, err
}

// Close ends the body.
func (s *requestBody) Close() error {
	s.closed.Store(true)
	s.timer.Stop()
	return s.ReadCloser.Close()
}

// end ends the watch: there is an answer, or none will come.
func (s *requestBody) stopWatch() {
	close(s.answered)
	if s.timer != nil {
		s.timer.Stop()
	}
}

// fault is what the client did wrong with the body; nil if it did nothing wrong.
func (s *requestBody) clientFault() error {
	if err := s.readErr.Load(); err != nil {
		return &RequestError{*err}
	}
	if s.timer == nil { // there is none
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

// requestFault is what is wrong with a request whose round trip failed; nil if it is the server's
// failure. asked is whether the transport had anything to do with the server.
func requestFault(err error, reachedTransport bool, reqBody *requestBody) error {
	switch {
	case !reachedTransport: // it does not send such a request
		return &RequestError{err}
	case strings.Contains(err.Error(), "request header list larger than peer's advertised limit"): // which net/http does not export
		return &RequestError{ErrFields}
	}
	return reqBody.clientFault()
}
