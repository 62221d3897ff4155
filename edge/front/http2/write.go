package http2

import (
	"slices"
	"sync"
	"time"

	xhttp2 "golang.org/x/net/http2"
)

// buffers holds buffers for writes to the connection. smallBuffers holds those for header blocks
// and for what a handler writes.
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

// outBuffer returns c.out to append to, or a new buffer if c.out is nil. c.mu is held.
func (c *conn) outBuffer() []byte {
	if c.out == nil {
		c.out = *buffers.Get().(*[]byte)
	}
	return c.out
}

// tableState is the state of the dynamic table of what is sent. No header block uses the table. If
// a client wants one smaller than initialTable, the next header block must begin with a change of
// its size (RFC 7541, 4.2). It becomes 0, which suits every later setting.
type tableState uint8

const (
	tableUnused  tableState = iota
	tableShrinks            // the next header block begins with the change
	tableGone
)

const (
	initialTable = 4096 // bytes, of SETTINGS_HEADER_TABLE_SIZE
	noTable      = 0x20 // changes the size to 0 (RFC 7541, 6.3)
)

// appendHeaders appends a header block in as many frames as it takes. c.mu is held.
func (c *conn) appendHeaders(b []byte, id uint32, block []byte, end bool) []byte {
	if c.table == tableShrinks {
		c.table = tableGone
		block = append([]byte{noTable}, block...)
	}
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

// hasOutput reports whether something can be written, or waits to be released. c.mu is held.
func (c *conn) hasOutput() bool {
	return c.err == nil && (c.out != nil || len(c.released) > 0 || c.next() != nil)
}

// kick starts a goroutine that writes, unless one does already or there is no output. c.mu is held.
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

// flush writes once, and leaves the rest of the output to a goroutine. If another goroutine writes
// and c.out is full, flush waits first: the client must take its answers before more is read.
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

// writeOnce writes c.out, and as many DATA frames as fit. c.mu is held, but not during the write.
func (c *conn) writeOnce() {
	b := c.outBuffer()
	c.out = nil
	for len(b) < outSize-smallSize {
		s := c.next()
		if s == nil {
			break
		}
		b = c.appendBody(b, s, outSize-frameHeader-len(b))
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
	size := len(b)
	if b = c.fillFrames(b); err == nil && len(b) > 0 {
		_, err = c.nc.Write(b)
	}
	whole := err == nil && len(b) == size
	putBuffer(b)
	for i, r := range released {
		r.done.Done(r.sent, r.whole && whole)
		released[i] = release{}
	}
	c.mu.Lock()
	if c.released == nil {
		c.released = released[:0] // to be used again
	}
	c.filled()
	if err != nil {
		c.fail(err)
	}
}

// appendBody appends a DATA frame of s with a payload of at most room bytes, and the trailers after
// the last one. c.mu is held.
func (c *conn) appendBody(b []byte, s *stream, room int) []byte {
	left := s.left()
	n := int(min(left, int64(min(c.frameSize, room)), max(s.window, 0), max(c.sendWindow, 0)))
	last := s.ending && int64(n) == left
	var flags xhttp2.Flags
	if last && s.tail == nil {
		flags = xhttp2.FlagDataEndStream
	}
	if n > 0 || flags != 0 {
		b = appendFrame(b, n, xhttp2.FrameData, flags, s.id)
	}
	if s.file != nil && n > 0 {
		c.fills = append(c.fills, fill{s: s, at: len(b), n: n})
		b = slices.Grow(b, n)[:len(b)+n]
		s.unread -= int64(n)
	} else {
		b = append(b, s.pending[:n]...)
		s.pending = s.pending[n:]
	}
	s.window -= int64(n)
	s.sent += int64(n)
	c.took(n)
	if s.request == nil {
		c.promised -= int64(n)
	}
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
	case int64(n) == left:
		s.cond.Broadcast()
	}
	return b
}

// took records that n bytes of a body are sent. c.mu is held.
func (c *conn) took(n int) {
	c.sendWindow -= int64(n)
	c.moved += int64(n)
}

// wait queues a stream, and starts measuring how fast its client takes the response. c.mu is held.
func (s *stream) wait() {
	s.marked, s.atMark = time.Now(), s.sent
	s.conn.queue(s)
}

// release schedules the call of done for when no lock is held. c.mu is held.
func (c *conn) release(done Release, sent int64, whole bool) {
	if done != nil {
		c.released = append(c.released, release{done, sent, whole})
	}
}
