package http2

import (
	"os"

	xhttp2 "golang.org/x/net/http2"
)

// direct appends a DATA frame with the beginning of p to c.out. It does so if no other stream waits
// and there is room in c.out and the windows. end reports whether p ends the stream. direct returns
// how many bytes of p it took, or -1 if it appended no frame. c.mu is held.
func (c *conn) direct(id uint32, window int64, p []byte, end bool) int {
	n := min(len(p), c.frameSize, outSize-frameHeader-len(c.out))
	n = int(min(int64(n), window, c.sendWindow))
	if len(c.ready) > 0 || n < 0 || n < len(p) && n < smallSize {
		return -1
	}
	var flags xhttp2.Flags
	if end && n == len(p) {
		flags = xhttp2.FlagDataEndStream
	}
	c.out = append(appendFrame(c.outBuffer(), n, xhttp2.FrameData, flags, id), p[:n]...)
	c.took(n)
	return n
}

// direct is conn.direct for a stream.
func (s *stream) direct(p []byte, end bool) int {
	n := s.conn.direct(s.id, s.window, p, end)
	if n > 0 {
		s.window -= int64(n)
		s.sent += int64(n)
	}
	return n
}

// send sends a piece of the body. It returns when the caller may reuse p.
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
		if n := s.direct(p, false); n > 0 {
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

// expireWrite resets the stream because its write deadline has expired. c.mu is held.
func (s *stream) expireWrite() {
	s.conn.resetStream(s, xhttp2.ErrCodeInternal, os.ErrDeadlineExceeded)
}

// sendHeaders appends a header block to the output, once the connection has room. final reports
// whether the response is not interim, and end whether the block ends the stream.
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

// finish sends the end of the response: the rest of its body in buffer, and the trailers' header
// block tail. Either may be nil. It does not wait. c.mu is held.
func (s *stream) finish(buffer *[]byte, tail []byte) {
	c := s.conn
	var p []byte
	if buffer != nil {
		p = *buffer
	}
	if s.err == nil && tail == nil {
		if n := s.direct(p, true); n >= 0 && n == len(p) {
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
