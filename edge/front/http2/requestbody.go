package http2

import (
	"io"
	"net/http"
	"os"
	"sync"
)

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
