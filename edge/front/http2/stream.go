package http2

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	xhttp2 "golang.org/x/net/http2"
)

var (
	errLength = errors.New("the body is not as long as Content-Length says")
	errBroken = errors.New("the body can't be read")
	errClosed = errors.New("the response is over")
)

// stream is a request that is not answered whole.
type stream struct {
	conn    *conn
	id      uint32
	request *http.Request // nil if Ready had the answer
	cancel  context.CancelFunc
	body    requestBody
	writer  response

	// All that follows is guarded by conn.mu.
	cond      sync.Cond // of who reads the body, and who writes
	err       error     // why it is over; nil if it is not
	running   bool      // its handler is
	recvEnded bool      // nothing more comes
	sendEnded bool      // nothing more goes

	in         bodyBuffer
	bodyErr    error // after what is in in; nil if more may come
	declared   int64 // length of the body; -1 if it is not known
	received   int64
	trailer    http.Header
	recvWindow int64 // what the client may still send
	recvUnused int64 // what was read of that, and is not given back yet
	waiting    bool  // somebody waits for the body
	readBy     deadline
	writeBy    deadline

	priority priority
	turn     uint64
	served   uint64 // the turn in which it was sent of last
	queued   bool   // in conn.ready
	begun    bool   // the final header block is out
	window   int64
	pending  []byte // of the body, to be sent
	ending   bool   // nothing comes after that but tail
	tail     []byte // header block of the trailers; nil if there are none
	sent     int64  // bytes of the body
	marked   time.Time
	atMark   int64 // of sent
	file     File  // in place of pending; nil if it is not
	unread   int64 // bytes of that
	broken   bool  // it can't be read; the writer's
	done     Release
	buffer   *[]byte // that pending is part of, to be given back
}

// release is a callback to be made when no lock is held.
type release struct {
	done  Release
	sent  int64
	whole bool
}

// newContext makes the context of a request.
func newContext(parent context.Context) (context.Context, context.CancelFunc) {
	return context.WithCancel(parent)
}

// sendable reports whether something can be sent but for the window of the connection.
func (s *stream) sendable() bool {
	if s.err != nil || s.sendEnded {
		return false
	}
	left := s.left()
	return left > 0 && s.window > 0 || left == 0 && s.ending
}

// left is how many bytes are there to be sent. c.mu is held.
func (s *stream) left() int64 { return int64(len(s.pending)) + s.unread }

// queue has a stream be sent of, if it can be. c.mu is held.
func (c *conn) queue(s *stream) {
	if !s.queued && s.sendable() {
		s.queued = true
		c.ready = append(c.ready, s)
	}
}

// run answers the request.
func (s *stream) run() {
	c := s.conn
	defer c.work.Done()
	s.writer.init(s)
	whole := false
	defer func() { // even if the handler ends its goroutine
		s.cancel()
		s.writer.end(whole)
	}()
	whole = s.call()
}

// call calls the handler. It reports false if that panicked.
func (s *stream) call() (whole bool) {
	defer func() {
		if whole {
			return
		}
		if p := recover(); p != nil && p != http.ErrAbortHandler {
			s.conn.server.panicked(s.request, p)
		}
	}()
	s.conn.server.Handler.ServeHTTP(&s.writer, s.request)
	return true
}

// maybeClose closes a stream of which nothing more comes, or is of interest. c.mu is held.
func (c *conn) maybeClose(s *stream) {
	switch {
	case s.err != nil || !s.sendEnded:
	case s.recvEnded:
		c.remove(s, errClosed)
	case !s.running: // the client need not send the rest (RFC 9113, 8.1)
		c.resetStream(s, xhttp2.ErrCodeNo, errClosed)
	}
}

// resetStream tells the client that a stream is over. c.mu is held.
func (c *conn) resetStream(s *stream, code xhttp2.ErrCode, err error) {
	if s.err == nil {
		c.remove(s, err)
		c.appendReset(s.id, code)
	}
}

// appendReset appends RST_STREAM. c.mu is held.
func (c *conn) appendReset(id uint32, code xhttp2.ErrCode) {
	b := appendFrame(c.outBuffer(), 4, xhttp2.FrameRSTStream, 0, id)
	c.out = append(b, byte(code>>24), byte(code>>16), byte(code>>8), byte(code))
	c.reset[c.nreset%len(c.reset)] = id
	c.nreset++
}

// wasReset reports whether the server reset a stream lately, so that the client may not know. c.mu
// is held.
func (c *conn) wasReset(id uint32) bool {
	for _, r := range c.reset {
		if r == id {
			return true
		}
	}
	return false
}

// remove ends a stream. c.mu is held.
func (c *conn) remove(s *stream, err error) {
	if s.err != nil {
		return
	}
	s.err = err
	delete(c.streams, s.id)
	if s.bodyErr == nil {
		s.bodyErr = err
	}
	s.recvEnded = true
	c.giveBack(nil, int64(s.in.release()))
	s.readBy.stop()
	s.writeBy.stop()
	if err != errClosed && s.cancel != nil {
		s.cancel()
	}
	c.release(s.done, s.sent, s.sendEnded)
	s.done = nil
	if s.buffer != nil {
		smallBuffers.Put(s.buffer)
		s.buffer = nil
	}
	if s.request == nil {
		c.promised -= s.left()
	}
	s.pending, s.unread, s.tail = nil, 0, nil
	s.cond.Broadcast()
	c.room.Broadcast()
	if s.running {
		c.orphans++
	} else {
		c.rest()
	}
}

// ran notes that the handler of a stream has returned. c.mu is held.
func (c *conn) ran(s *stream) {
	s.running = false
	if s.err != nil {
		c.orphans--
		c.rest()
	}
}

// rest notes it if there is no request any more. c.mu is held.
func (c *conn) rest() {
	if !c.idle() {
		return
	}
	c.since = time.Now()
	if c.server.Idle != nil {
		c.server.Idle(c.nc, true)
	}
	if c.drained == goneAway {
		c.wake()
	}
}
