package http2

import (
	"net/http"
	"os"
	"sync"
	"time"

	xhttp2 "golang.org/x/net/http2"
)

// buffers are for writes, and smallBuffers for what a handler writes before it is sent.
var (
	buffers      = sync.Pool{New: func() any { b := make([]byte, 0, outSize+outSize/8); return &b }}
	smallBuffers = sync.Pool{New: func() any { b := make([]byte, 0, smallSize); return &b }}
)

const smallSize = 4 << 10

func putBuffer(b []byte) {
	if cap(b) <= 2*outSize {
		b = b[:0]
		buffers.Put(&b)
	}
}

// outBuffer is c.out, to append to. c.mu is held.
func (c *conn) outBuffer() []byte {
	if c.out == nil {
		c.out = *buffers.Get().(*[]byte)
	}
	return c.out
}

// appendHeaders appends a header block, in as many frames as it takes.
func (c *conn) appendHeaders(b []byte, id uint32, block []byte, end bool) []byte {
	kind, flags := xhttp2.FrameHeaders, xhttp2.Flags(0)
	if end {
		flags = xhttp2.FlagHeadersEndStream
	}
	for {
		n := min(len(block), c.frameSize)
		if n == len(block) {
			flags |= xhttp2.FlagHeadersEndHeaders
		}
		b = append(appendFrame(b, n, kind, flags, id), block[:n]...)
		if block = block[n:]; len(block) == 0 {
			return b
		}
		kind, flags = xhttp2.FrameContinuation, 0
	}
}

// hasOutput reports whether something can be written, or is to be released. c.mu is held.
func (c *conn) hasOutput() bool {
	return c.err == nil && (c.out != nil || len(c.released) > 0 || c.next() != nil)
}

// kick has what can be written be written by a goroutine, unless one does. c.mu is held.
func (c *conn) kick() {
	if !c.writing && c.hasOutput() {
		c.writing = true
		c.work.Add(1)
		go func() {
			defer c.work.Done()
			c.mu.Lock()
			defer c.mu.Unlock()
			c.writeAll()
		}()
	}
}

// flush writes what can be written, but for what does not fit in one write, which a goroutine does.
// While a client takes nothing it waits: what is read of it is to be answered first.
func (c *conn) flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.writing && len(c.out) > outSize && c.err == nil {
		c.room.Wait()
	}
	if c.writing || !c.hasOutput() {
		return
	}
	c.writing = true
	c.writeOnce()
	c.writing = false
	c.room.Broadcast()
	c.kick()
}

// writeAll writes until there is nothing to write. c.mu is held, and c.writing set.
func (c *conn) writeAll() {
	for c.hasOutput() {
		c.writeOnce()
	}
	c.writing = false
	c.room.Broadcast()
}

// writeOnce writes once. c.mu is held, and let go of while it writes.
func (c *conn) writeOnce() {
	b := c.outBuffer()
	c.out = nil
	for len(b) < outSize-smallSize {
		s := c.next()
		if s == nil {
			break
		}
		b = c.appendBody(b, s, outSize-len(b))
	}
	released := c.released
	c.released = nil
	now := time.Now()
	var err error
	if c.err == nil && c.writeArmed.Sub(now) < c.limits.WriteTimeout && !c.closing {
		c.writeArmed = now.Add(c.limits.WriteTimeout + c.limits.WriteTimeout/4)
		err = c.nc.SetWriteDeadline(c.writeArmed)
	}
	c.room.Broadcast()
	c.mu.Unlock()
	if err == nil && len(b) > 0 {
		_, err = c.nc.Write(b)
	}
	putBuffer(b)
	for _, r := range released {
		r.done(r.sent, r.whole && err == nil)
	}
	c.mu.Lock()
	if err != nil {
		c.fail(err)
	}
}

// appendBody appends what is sent next of a response, of at most room bytes. c.mu is held.
func (c *conn) appendBody(b []byte, s *stream, room int) []byte {
	n := min(len(s.pending), c.frameSize, room)
	n = int(min(int64(n), max(s.window, 0), max(c.sendWindow, 0)))
	last := s.ending && n == len(s.pending)
	var flags xhttp2.Flags
	if last && s.tail == nil {
		flags = xhttp2.FlagDataEndStream
	}
	if n > 0 || flags != 0 {
		b = append(appendFrame(b, n, xhttp2.FrameData, flags, s.id), s.pending[:n]...)
	}
	s.pending = s.pending[n:]
	c.took(s, n)
	s.served = c.nextTurn()
	if s.priority.incremental {
		s.turn = s.served
	}
	switch {
	case last:
		if s.tail != nil {
			b = c.appendHeaders(b, s.id, s.tail, true)
		}
		s.sendEnded = true
		c.maybeClose(s)
	case len(s.pending) == 0:
		s.cond.Broadcast()
	}
	return b
}

// took notes that n bytes of a body are sent. c.mu is held.
func (c *conn) took(s *stream, n int) {
	s.window -= int64(n)
	c.sendWindow -= int64(n)
	s.sent += int64(n)
	c.moved += int64(n)
}

// wait notes that a stream waits for its client. c.mu is held.
func (s *stream) wait() {
	s.marked, s.atMark = time.Now(), s.sent
	s.conn.queue(s)
}

// stalled reports whether a stream has something to send. c.mu is held.
func (s *stream) stalled() bool { return len(s.pending) > 0 || s.ending && !s.sendEnded }

// stalls reports whether a stream has something to send. c.mu is held.
func (c *conn) stalls() bool {
	for _, s := range c.streams {
		if s.stalled() {
			return true
		}
	}
	return false
}

// expireLater is expire if that was long ago.
func (c *conn) expireLater(now time.Time) {
	if now.Sub(c.looked) > c.limits.WriteTimeout/4 {
		c.looked = now
		c.mu.Lock()
		defer c.mu.Unlock()
		c.expire(now)
	}
}

// expire gives up responses whose clients take too little. c.mu is held.
func (c *conn) expire(now time.Time) {
	for _, s := range c.streams {
		switch {
		case !s.stalled():
		case s.sent-s.atMark >= outSize:
			s.marked, s.atMark = now, s.sent
		case now.Sub(s.marked) > c.limits.WriteTimeout:
			c.resetStream(s, xhttp2.ErrCodeCancel, os.ErrDeadlineExceeded)
		}
	}
}

// direct appends a part of a body to what is written first, if nothing of another waits. It returns
// how much it took. c.mu is held.
func (c *conn) direct(s *stream, p []byte, end bool) int {
	n := min(len(p), c.frameSize, outSize-frameHeader-len(c.out))
	n = int(min(int64(n), s.window, c.sendWindow))
	if len(c.ready) > 0 || n < 0 || n < len(p) && n < smallSize {
		return -1
	}
	var flags xhttp2.Flags
	if end && n == len(p) {
		flags = xhttp2.FlagDataEndStream
	}
	c.out = append(appendFrame(c.outBuffer(), n, xhttp2.FrameData, flags, s.id), p[:n]...)
	c.took(s, n)
	return n
}

// send sends a part of the body, and returns when p may be used again.
func (s *stream) send(p []byte) error {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(p) > 0 {
		if s.writeBy.over() {
			s.expireWrite()
			c.kick()
		}
		if s.err != nil {
			return s.err
		}
		if n := c.direct(s, p, false); n > 0 {
			p = p[n:]
			c.kick()
			continue
		}
		s.pending = p
		s.wait()
		s.writeBy.arm(c, s.expireWrite)
		c.kick()
		for len(s.pending) > 0 && s.err == nil {
			s.cond.Wait()
		}
		s.writeBy.stop()
		p = s.pending
		s.pending = nil
	}
	return s.err
}

// expireWrite ends the response, whose deadline is over. c.mu is held.
func (s *stream) expireWrite() {
	s.conn.resetStream(s, xhttp2.ErrCodeInternal, os.ErrDeadlineExceeded)
}

// sendHeaders sends a header block, once the connection has room.
func (s *stream) sendHeaders(block []byte, final, end bool) error {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	s.writeBy.arm(c, s.expireWrite)
	for len(c.out) > outSize && s.err == nil {
		c.room.Wait()
	}
	s.writeBy.stop()
	if s.err != nil {
		return s.err
	}
	s.begun = s.begun || final
	c.out = c.appendHeaders(c.outBuffer(), s.id, block, end)
	if end {
		s.sendEnded = true
		c.maybeClose(s)
	}
	if !final {
		c.kick()
	}
	return nil
}

// finish ends the response with what is left of its body, in buffer or nil, and a header block of
// trailers or nil. It does not wait. c.mu is held.
func (s *stream) finish(buffer *[]byte, tail []byte) {
	c := s.conn
	var p []byte
	if buffer != nil {
		p = *buffer
	}
	if s.err == nil && tail == nil {
		if n := c.direct(s, p, true); n >= 0 && n == len(p) {
			s.sendEnded = true
			c.maybeClose(s)
		} else if n > 0 {
			p = p[n:]
		}
	}
	if s.err != nil || s.sendEnded {
		if buffer != nil {
			smallBuffers.Put(buffer)
		}
		return
	}
	s.pending, s.buffer, s.tail, s.ending = p, buffer, tail, true
	s.wait()
	s.writeBy.arm(c, s.expireWrite)
}

// answerReady answers the request that was read last if Ready has the answer. c.mu is held, and let
// go of while Ready looks.
func (c *conn) answerReady(id uint32, p priority) bool {
	if len(c.out) > outSize/2 && !c.writing {
		c.mu.Unlock()
		c.flush()
		c.mu.Lock()
	}
	room := int(max(0, min(c.initial, c.sendWindow, int64(outSize-readSize-len(c.out)))))
	if len(c.ready) > 0 {
		room = 0
	}
	c.mu.Unlock()
	block, a, ok := c.find(room)
	c.mu.Lock()
	if !ok {
		return false
	}
	s := stream{conn: c, id: id, priority: p, window: c.initial, recvEnded: true, begun: true, ending: true,
		declared: -1, pending: a.Body, done: a.Done}
	if c.err != nil {
		c.release(a.Done, 0, false)
		return true
	}
	c.out = c.appendHeaders(c.outBuffer(), id, block, len(a.Body) == 0)
	for len(s.pending) > 0 {
		n := c.direct(&s, s.pending, true)
		if n <= 0 {
			break
		}
		s.pending = s.pending[n:]
	}
	if len(s.pending) == 0 {
		c.release(a.Done, s.sent, true)
		return true
	}
	c.open(&s)
	return true
}

// find asks Ready for the answer to the request that was read last. If that panics the handler has
// the request.
func (c *conn) find(room int) (block []byte, a Answer, ok bool) {
	b := &c.block
	defer func() {
		if p := recover(); p != nil {
			ok = false
			c.server.panicked(&http.Request{Method: b.method, Host: b.authority, RequestURI: b.path,
				RemoteAddr: c.remote, Proto: "HTTP/2.0", ProtoMajor: 2}, p)
		}
	}()
	block, a, ok = c.server.Ready.Find(c.peer, &Request{b.method, b.scheme, b.authority, b.path, b.fields, room},
		c.rendered[:0])
	if ok && cap(block) <= smallSize {
		c.rendered = block
	}
	if b.method == http.MethodHead {
		a.Body = nil
	}
	return block, a, ok
}

// release has a response be released once no lock is held. c.mu is held.
func (c *conn) release(done func(sent int64, whole bool), sent int64, whole bool) {
	if done != nil {
		c.released = append(c.released, release{done, sent, whole})
	}
}

// open has a stream of a Ready be sent of. c.mu is held.
func (c *conn) open(from *stream) {
	s := &stream{conn: c, id: from.id, priority: from.priority, window: from.window, recvEnded: true, begun: true,
		ending: true, declared: -1, done: from.done,
		pending: from.pending, sent: from.sent, turn: c.nextTurn()}
	s.cond.L = &c.mu
	if c.idle() && c.server.Idle != nil {
		c.server.Idle(c.nc, false)
	}
	c.streams[s.id] = s
	s.wait()
}
