package http2

import (
	"io"
	"net/http"
	"os"
	"sync"
)

// endBody records the end of the body: io.EOF, or the error that ended it. c.mu is held.
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

// addBody buffers a piece of the body. It drops the piece, and returns its credit to the
// connection's window, if the body has ended. c.mu is held.
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
	// needsContinue reports whether the client waits for 100 (Continue) before it sends the body.
	// Code that reads a field of this name from a body of net/http's server finds it here too.
	needsContinue bool
}

// Read reads from the body. It sends 100 (Continue) if the client waits for that, and extends the
// windows by what it has read. One goroutine at a time may call it.
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

// expireRead ends the body with os.ErrDeadlineExceeded. c.mu is held.
func (s *stream) expireRead() {
	if s.bodyErr == nil {
		s.bodyErr = os.ErrDeadlineExceeded
		s.cond.Broadcast()
	}
}

// Close ends the reading of the body. What the client still sends of it is dropped.
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

// bodyChunk is a unit of a bodyBuffer.
type bodyChunk [4 << 10]byte

var bodyChunks = sync.Pool{New: func() any { return new(bodyChunk) }}

// bodyBuffer holds the part of a request body that was received and not yet read.
type bodyBuffer struct {
	chunks []*bodyChunk
	from   int // where the unread bytes begin in the first chunk
	to     int // where they end in the last chunk
	size   int // unread bytes
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

// release empties the buffer, and returns how many bytes it held.
func (b *bodyBuffer) release() int {
	for _, chunk := range b.chunks {
		bodyChunks.Put(chunk)
	}
	n := b.size
	*b = bodyBuffer{}
	return n
}
