package http2

import (
	"io"
	"net"
	"net/http"

	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Request is a request without a body, as received.
type Request struct {
	Method, Scheme, Authority, Path string
	// Fields are the header fields, in order and with names in lower case. They are valid only
	// until Find returns.
	Fields []hpack.HeaderField
	// Room is how many bytes of a body in memory the server copies at once. It keeps a reference to
	// a longer body, and to any in files, until the client has taken it.
	Room int
	// Window is how many bytes the client's windows admit beyond what is already promised to other
	// responses. The rest of a longer body waits until the client extends them, possibly forever.
	Window int64
}

// Answer is a response that is ready to be sent.
type Answer struct {
	// Body is the response body. It must not change before the response is released.
	Body []byte
	// File, if not nil, takes the place of Body. The server reads it as it sends, in one goroutine
	// at a time and with no lock held.
	File File
	// Priority is the response's field of that name, which overrides the request's (RFC 9218, 5).
	Priority string
	// Release, if not nil, is notified once of the end of the response.
	Release Release
}

// File is a body that is not in memory.
type File interface {
	io.Reader
	Len() int64 // unread bytes
}

// Release is notified of the end of a response.
type Release interface {
	// Done is called once, when nothing refers to the body any more, in any goroutine and with no
	// lock held. sent is how many bytes of the body were sent. whole reports whether the response
	// was sent completely.
	Done(sent int64, whole bool)
}

// Ready looks a request up among responses that are ready to be sent. It is called in the goroutine
// that reads the connection, so it must not wait.
type Ready interface {
	// Find looks up the answer to a request on a connection. c is the result of Open. Find appends
	// the header block to b, with AppendStatus and AppendField, so that it needs no HPACK state. If
	// ok is false the handler gets the request, and the block and the answer are ignored.
	Find(c any, r *Request, b []byte) (block []byte, a Answer, ok bool)
	// Open returns what the server passes to Find for each request of a connection.
	Open(c Conn) any
}

// Conn describes a connection to a Ready.
type Conn struct {
	ServerName string // the client's server name (SNI); "" if there is none
	Secure     bool   // the connection is over TLS
	RemoteAddr string
	NetConn    net.Conn
}

// answerReady answers the request that was read last, if Ready has the answer. It reports whether
// it did. c.mu is held, but not while Ready looks.
func (c *conn) answerReady(id uint32, p priority) bool {
	if len(c.out) > outSize/2 && !c.writing {
		c.mu.Unlock()
		c.flush()
		c.mu.Lock()
	}
	window := max(0, min(c.initial, c.sendWindow-c.promised))
	room := int(max(0, min(window, int64(outSize-readSize-len(c.out)))))
	if len(c.ready) > 0 {
		room = 0
	}
	c.mu.Unlock()
	block, a, ok := c.find(room, window)
	c.mu.Lock()
	switch {
	case !ok:
		return false
	case c.err != nil:
		c.release(a.Release, 0, false)
		return true
	}
	size := int64(len(a.Body))
	if a.File != nil {
		size = a.File.Len()
	}
	c.out = c.appendHeaders(c.outBuffer(), id, block, size == 0)
	sent := 0
	for window := c.initial; sent < len(a.Body); {
		n := c.direct(id, window-int64(sent), a.Body[sent:], true)
		if n <= 0 {
			break
		}
		sent += n
	}
	if int64(sent) == size {
		c.release(a.Release, size, true)
		return true
	}
	s := &stream{conn: c, id: id, priority: p.and(a.Priority), window: c.initial - int64(sent), recvEnded: true,
		begun: true, ending: true, declared: -1, done: a.Release, pending: a.Body[sent:], sent: int64(sent)}
	if a.File != nil {
		s.file, s.unread = a.File, size
	}
	c.open(s)
	return true
}

// find asks Ready for the answer to the request that was read last. If Ready panics the handler
// gets the request.
func (c *conn) find(room int, window int64) (block []byte, a Answer, ok bool) {
	b := &c.block
	defer func() {
		if p := recover(); p != nil {
			ok = false
			c.server.panicked(&http.Request{Method: b.method, Host: b.authority, RequestURI: b.path,
				RemoteAddr: c.remote, Proto: "HTTP/2.0", ProtoMajor: 2}, p)
		}
	}()
	c.asked = Request{b.method, b.scheme, b.authority, b.path, b.fields, room, window}
	block, a, ok = c.server.Ready.Find(c.peer, &c.asked, c.rendered[:0])
	if ok && cap(block) <= smallSize {
		c.rendered = block
	}
	if b.method == http.MethodHead {
		a.Body, a.File = nil, nil
	}
	return block, a, ok
}

// open adds a stream whose response comes from Ready. c.mu is held.
func (c *conn) open(s *stream) {
	s.turn = c.nextTurn()
	s.cond.L = &c.mu
	if c.idle() && c.server.Idle != nil {
		c.server.Idle(c.nc, false)
	}
	c.streams[s.id] = s
	c.promised += s.left()
	s.wait()
}

// fill is the payload of a DATA frame that is still to be read from a file.
type fill struct {
	s      *stream
	at, n  int // offset and length in the buffer that is written
	failed bool
}

// fillFrames reads the payloads of c.fills into b, and removes the frames for which that fails.
func (c *conn) fillFrames(b []byte) []byte {
	for i := range c.fills {
		f := &c.fills[i]
		if f.s.broken {
			f.failed = true
		} else if _, err := io.ReadFull(f.s.file, b[f.at:f.at+f.n]); err != nil {
			f.failed, f.s.broken = true, true
			c.server.Log.Warn("the body of a response can't be read", "error", err)
		}
	}
	for i := len(c.fills) - 1; i >= 0; i-- {
		if f := c.fills[i]; f.failed {
			b = append(b[:f.at-frameHeader], b[f.at+f.n:]...)
		}
	}
	return b
}

// filled resets the streams whose files could not be read, and clears c.fills. c.mu is held.
func (c *conn) filled() {
	for i, f := range c.fills {
		c.fills[i] = fill{}
		if !f.failed {
			continue
		}
		c.sendWindow += int64(f.n)
		switch s := f.s; {
		case s.err == nil:
			c.resetStream(s, xhttp2.ErrCodeInternal, errBroken)
		case s.err == errClosed: // the removed frame was its last one
			s.err = errBroken
			c.appendReset(s.id, xhttp2.ErrCodeInternal)
		}
	}
	c.fills = c.fills[:0]
}
