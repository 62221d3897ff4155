package http2

import (
	"net"
	"net/http"

	"golang.org/x/net/http2/hpack"
)

// Request is a request without a body, as it came.
type Request struct {
	Method, Scheme, Authority, Path string
	// Fields are its header fields, in order, with names in lower case. They are valid until Find
	// returns.
	Fields []hpack.HeaderField
	// Room is how many bytes of a body are taken at once. What is longer, and what it refers to,
	// waits for the client.
	Room int
}

// Answer is a response that is ready to be sent.
type Answer struct {
	// Body is what DATA frames are made of. It is not changed before the response is released.
	Body []byte
	// Done is told of the end: how many bytes of the body were sent, and whether the response was
	// sent whole. It is called once, in any goroutine, with no lock held. Nil means that nobody is.
	Done func(sent int64, whole bool)
}

// Ready looks a request up among responses that are ready to be sent. It is called in the goroutine
// that reads the connection, so it must not wait.
type Ready interface {
	// Find finds the answer to a request on a connection, and appends its header block to b, which
	// has to be one that needs no state of HPACK (AppendStatus, AppendField). ok is false if the
	// request is for the handler; b and the answer are not looked at then.
	Find(c any, r *Request, b []byte) (block []byte, a Answer, ok bool)
	// Open makes what Find is given for a connection, with the server name of TLS, "" without.
	Open(c Conn) any
}

// Conn is what a Ready learns of a connection.
type Conn struct {
	ServerName string // that the client gave; "" without
	Secure     bool   // it is over TLS
	RemoteAddr string
	NetConn    net.Conn
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
