package http2

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"sync"
	"time"

	xhttp2 "golang.org/x/net/http2"
)

var (
	errLength = errors.New("the body is not as long as Content-Length says")
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
	done     func(sent int64, whole bool)
	buffer   *[]byte // that pending is part of, to be given back
}

// release is a callback to be made when no lock is held.
type release struct {
	done  func(sent int64, whole bool)
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
	return len(s.pending) > 0 && s.window > 0 || len(s.pending) == 0 && s.ending
}

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
	s.pending, s.tail = nil, nil
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

// endBody notes that nothing more comes of the body. c.mu is held.
func (s *stream) endBody(err error) {
	if err == io.EOF && s.declared >= 0 && s.received != s.declared {
		err = errLength
	}
	s.recvEnded = true
	if s.bodyErr == nil {
		s.bodyErr = err
	}
	s.cond.Broadcast()
}

// addBody takes a part of the body, or gives it back if nobody is to read it. c.mu is held.
func (s *stream) addBody(p []byte) {
	if s.bodyErr != nil {
		s.conn.giveBack(nil, int64(len(p)))
		return
	}
	s.in.write(p)
	if s.waiting {
		s.cond.Broadcast()
	}
}

// requestBody is the body of a request.
type requestBody struct {
	s *stream
	// needsContinue says that the client waits to be told to send it. A server that asks a body
	// of net/http for a field of this name finds it here too.
	needsContinue bool
}

// Read reads, and has the client send on. It is called by one goroutine at a time.
func (b *requestBody) Read(p []byte) (int, error) {
	s, c := b.s, b.s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if b.needsContinue {
		b.needsContinue = false
		if !s.begun && s.err == nil {
			c.out = c.appendHeaders(c.outBuffer(), s.id, AppendStatus(nil, http.StatusContinue), false)
			c.kick()
		}
	}
	for {
		if s.readBy.over() {
			s.expireRead()
		}
		if n := s.in.read(p); n > 0 || len(p) == 0 {
			c.giveBack(s, int64(n))
			c.kick()
			return n, nil
		}
		if s.bodyErr != nil {
			if s.bodyErr == io.EOF {
				for name, lines := range s.trailer {
					s.request.Trailer[name] = lines
				}
				s.trailer = nil
			}
			return 0, s.bodyErr
		}
		s.readBy.arm(c, s.expireRead)
		s.waiting = true
		s.cond.Wait()
		s.waiting = false
	}
}

// expireRead ends the body for its reader. c.mu is held.
func (s *stream) expireRead() {
	if s.bodyErr == nil {
		s.bodyErr = os.ErrDeadlineExceeded
		s.cond.Broadcast()
	}
}

// Close has nobody read any more; what comes is dropped.
func (b *requestBody) Close() error {
	s, c := b.s, b.s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.bodyErr == nil || s.in.size > 0 {
		s.bodyErr = http.ErrBodyReadAfterClose
	}
	c.giveBack(nil, int64(s.in.release()))
	s.cond.Broadcast()
	c.kick()
	return nil
}

// deadline is a time by which something has to be done. It has a timer only while somebody waits.
type deadline struct {
	at    time.Time // zero means none
	timer *time.Timer
}

// over reports whether it is.
func (d *deadline) over() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

// arm has expire be called, with c.mu held, when the deadline is over. c.mu is held.
func (d *deadline) arm(c *conn, expire func()) {
	if d.at.IsZero() || d.timer != nil {
		return
	}
	var timer *time.Timer
	timer = time.AfterFunc(time.Until(d.at), func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if d.timer == timer {
			d.timer = nil
			expire()
			c.kick()
		}
	})
	d.timer = timer
}

// stop takes the timer back. c.mu is held.
func (d *deadline) stop() {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
}

// set sets the deadline. c.mu is held.
func (d *deadline) set(t time.Time) {
	d.stop()
	d.at = t
}

// bodyChunk is what a body that waits to be read is kept in.
type bodyChunk [4 << 10]byte

var bodyChunks = sync.Pool{New: func() any { return new(bodyChunk) }}

// bodyBuffer is what came of a body and nobody has read.
type bodyBuffer struct {
	chunks []*bodyChunk
	from   int // of the first
	to     int // of the last
	size   int
}

func (b *bodyBuffer) write(p []byte) {
	b.size += len(p)
	for len(p) > 0 {
		if len(b.chunks) == 0 || b.to == len(bodyChunk{}) {
			b.chunks = append(b.chunks, bodyChunks.Get().(*bodyChunk))
			b.to = 0
		}
		n := copy(b.chunks[len(b.chunks)-1][b.to:], p)
		b.to += n
		p = p[n:]
	}
}

func (b *bodyBuffer) read(p []byte) int {
	total := 0
	for total < len(p) && b.size > 0 {
		end := len(bodyChunk{})
		if len(b.chunks) == 1 {
			end = b.to
		}
		n := copy(p[total:], b.chunks[0][b.from:end])
		total += n
		b.size -= n
		if b.from += n; b.from == end {
			bodyChunks.Put(b.chunks[0])
			b.chunks[0] = nil
			b.chunks = b.chunks[1:]
			b.from = 0
		}
	}
	if len(b.chunks) == 0 {
		b.chunks, b.from, b.to = nil, 0, 0
	}
	return total
}

// release drops what is there, and returns how much that was.
func (b *bodyBuffer) release() int {
	for _, chunk := range b.chunks {
		bodyChunks.Put(chunk)
	}
	n := b.size
	*b = bodyBuffer{}
	return n
}
