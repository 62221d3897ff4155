package http2

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"
	"time"

	xhttp2 "golang.org/x/net/http2"
)

var (
	errLength = errors.New("the body is not as long as Content-Length says")
	errBroken = errors.New("the body can't be read")
	errClosed = errors.New("the response is over")
)

// stream is a request whose response is not yet sent completely.
type stream struct {
	conn    *conn
	id      uint32
	request *http.Request // nil if Ready had the answer
	cancel  context.CancelFunc
	body    requestBody
	writer  response

	// conn.mu guards all that follows.
	cond      sync.Cond // wakes the reader of the request body and the writer of the response
	err       error     // why the stream has ended; nil if it has not
	running   bool      // the handler is running
	recvEnded bool      // the client sends no more
	sendEnded bool      // the server sends no more

	in         bodyBuffer
	bodyErr    error // returned once in is empty; nil if more may come
	declared   int64 // Content-Length of the request; -1 if it is not known
	received   int64
	trailer    http.Header
	recvWindow int64 // bytes that the client may still send
	recvUnused int64 // bytes consumed and not yet returned by WINDOW_UPDATE
	waiting    bool  // a goroutine waits for the body
	readBy     deadline
	writeBy    deadline

	priority priority
	turn     uint64
	served   uint64 // the turn of its last DATA frame
	queued   bool   // in conn.ready
	begun    bool   // the final header block is in the output
	window   int64
	pending  []byte // unsent part of the body
	ending   bool   // only tail comes after pending or file
	tail     []byte // header block of the trailers; nil if there are none
	sent     int64  // bytes of the body
	marked   time.Time
	atMark   int64 // value of sent at marked
	file     File  // the body, in place of pending; nil if there is none
	unread   int64 // bytes left in file
	broken   bool  // file can't be read; only the writer uses it
	done     Release
	buffer   *[]byte // holds pending; goes back to smallBuffers
}

// release is a call of Release.Done that is due when no lock is held.
type release struct {
	done  Release
	sent  int64
	whole bool
}

// newContext makes the context of a request.
func newContext(parent context.Context) (context.Context, context.CancelFunc) {
	return context.WithCancel(parent)
}

// sendable reports whether the stream can send, regardless of the window of the connection.
func (s *stream) sendable() bool {
	if s.err != nil || s.sendEnded {
		return false
	}
	left := s.left()
	return left > 0 && s.window > 0 || left == 0 && s.ending
}

// left returns how many bytes of the body wait to be sent. c.mu is held.
func (s *stream) left() int64 { return int64(len(s.pending)) + s.unread }

// queue adds a stream to c.ready if it can send. c.mu is held.
func (c *conn) queue(s *stream) {
	if !s.queued && s.sendable() {
		s.queued = true
		c.ready = append(c.ready, s)
	}
}

// run calls the handler and ends the response.
func (s *stream) run() {
	c := s.conn
	defer c.work.Done()
	s.writer.init(s)
	whole := false
	defer func() { // deferred because a handler may call runtime.Goexit
		s.cancel()
		s.writer.end(whole)
	}()
	whole = s.call()
}

// call calls the handler. It returns false if the handler panicked.
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

// maybeClose closes a stream whose response is sent, if the request has ended too or its handler
// has returned. c.mu is held.
func (c *conn) maybeClose(s *stream) {
	switch {
	case s.err != nil || !s.sendEnded:
	case s.recvEnded:
		c.remove(s, errClosed)
	case !s.running: // NO_ERROR: the client need not send the rest (RFC 9113, 8.1)
		c.resetStream(s, xhttp2.ErrCodeNo, errClosed)
	}
}

// resetStream ends a stream with err, and sends RST_STREAM with code. c.mu is held.
func (c *conn) resetStream(s *stream, code xhttp2.ErrCode, err error) {
	if s.err == nil {
		c.remove(s, err)
		c.appendReset(s.id, code)
	}
}

// appendReset appends RST_STREAM to the output, and records the stream for wasReset. c.mu is held.
func (c *conn) appendReset(id uint32, code xhttp2.ErrCode) {
	b := appendFrame(c.outBuffer(), 4, xhttp2.FrameRSTStream, 0, id)
	c.out = append(b, byte(code>>24), byte(code>>16), byte(code>>8), byte(code))
	if len(c.reset) < max(minResets, c.limits.MaxStreams) {
		c.reset = append(c.reset, id)
		return
	}
	c.reset[c.nreset%len(c.reset)] = id
	c.nreset++
}

// minResets is how many streams that the server reset are remembered at least. As many are as the
// client may have at once, because the server may reset all of them in one round trip.
const minResets = 64

// wasReset reports whether the server reset a stream so recently that the client may not know yet.
// c.mu is held.
func (c *conn) wasReset(id uint32) bool {
	return slices.Contains(c.reset, id)
}

// remove ends a stream with err, and releases what it holds. c.mu is held.
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

// ran records that the handler of a stream has returned. c.mu is held.
func (c *conn) ran(s *stream) {
	s.running = false
	if s.err != nil {
		c.orphans--
		c.rest()
	}
}

// rest records that the connection has become idle, if it has. c.mu is held.
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
