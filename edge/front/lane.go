package front

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/front/http2"
)

// The hit lane answers plain requests for what is ready to be sent by itself, over HTTP/1.1, plain
// and over TLS: they are most of the work of an edge, and net/http takes longer for each than all
// the rest.
//
// A connection is the lane's while it is new or idle, in a goroutine that holds no buffer. A
// request that the lane can't answer goes to net/http with the connection, byte for byte: a handed
// connection. net/http reads that request and answers it. When it would wait for the next one, the
// lane answers in its place, and after a while without a request tells it that the client has gone:
// net/http lets go of the connection, and the lane has it again. That is so only if net/http has
// read nothing but that one request, which had no body; else the connection stays with net/http to
// its end. A request that is only there in part is for net/http too, which has the time limits for
// that.
//
// What a request may be is in lanerequest.go, what is asked for an answer is Ready.

const (
	laneInput  = 8 << 10  // bytes of requests that are read at once, and the longest header block for the lane
	laneOutput = 24 << 10 // bytes of an answer that are copied together, to be written at once
	// laneQuiet is how long after its last request a connection is looked at again, as a client's
	// end may have come with that; see serveTCP.
	laneQuiet = time.Second
)

// lane is the hit lane of one listener.
type lane struct {
	server   *Server
	tls      *tls.Config // nil for plain HTTP
	log      *slog.Logger
	off      bool // it answers nothing, and hands all over
	listener net.Listener
	buffers  sync.Pool     // of *laneBuffers
	handed   chan net.Conn // to net/http
	closed   chan struct{} // when that takes no more
	once     sync.Once     // of closing it
	http2    *http2.Server // of connections over HTTP/2; nil means that these are net/http's
	draining atomic.Bool

	mu    sync.Mutex
	conns map[*laneConn]bool // that are the lane's now
	late  map[*laneConn]bool // that net/http has closed, and that end when the answer of the lane is over
	ended chan struct{}      // closed when the lane drains and has none; nil before
}

// laneBuffers are what a request is answered with.
type laneBuffers struct {
	in  [laneInput]byte
	out [laneOutput]byte
	ask Request
	hit Hit
}

// laneConn is a connection of the lane.
type laneConn struct {
	*clientConn
	lane  *lane
	raw   syscall.RawConn // of the socket
	fd    int             // of plain HTTP, while it is read
	tls   *tls.Conn       // nil without
	from  Conn            // what the look-up knows of it
	asked atomic.Bool     // it has asked for something

	armed   time.Time // when its deadline was set last
	quick   bool      // to laneQuiet
	in      []byte    // what is read over TLS
	visited *handed   // net/http has the connection, and waits, so that the lane answers
	address string    // of the client, for the access log; "" until it is needed
	host    string    // of the last request, for the access log
	looked  bool      // its end was looked for after a request
	handed  bool      // to net/http, or about to be
	turn    int       // how often the lane took it; both are guarded by lane.mu
}

func (s *Server) newLane(l net.Listener, conf *tls.Config) *lane {
	return &lane{buffers: sync.Pool{New: func() any { return new(laneBuffers) }}, server: s, tls: conf, log: s.Log,
		off: s.Ready == nil, listener: l, handed: make(chan net.Conn), closed: make(chan struct{}),
		conns: map[*laneConn]bool{}, late: map[*laneConn]bool{}}
}

// Accept returns the next connection for net/http.
func (l *lane) Accept() (net.Conn, error) {
	select {
	case c := <-l.handed:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close ends Accept.
func (l *lane) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr is that of the listener.
func (l *lane) Addr() net.Addr { return l.listener.Addr() }

// serve takes connections until the listener is closed. Out of files or memory, it waits for a
// while, as net/http does.
func (l *lane) serve() error {
	var delay time.Duration
	for {
		conn, err := l.listener.Accept()
		if err != nil {
			if l.draining.Load() {
				return nil
			}
			var again net.Error
			if !errors.As(err, &again) || !again.Timeout() && !isShortage(err) {
				return err
			}
			delay = min(max(2*delay, 5*time.Millisecond), time.Second)
			l.log.Warn("a connection could not be accepted", "error", err, "again_in", delay.String())
			select {
			case <-time.After(delay):
			case <-l.closed:
				return nil
			}
			continue
		}
		delay = 0
		c := &laneConn{clientConn: conn.(*clientConn), lane: l}
		c.inLane = !l.off
		if c.raw, err = c.Conn.(syscall.Conn).SyscallConn(); err != nil {
			_ = c.Close()
			continue
		}
		if l.take(c) {
			go c.begin()
		} else {
			_ = c.Close()
		}
	}
}

// isShortage reports whether an error goes by when others give something back.
func isShortage(err error) bool {
	for _, e := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM,
		syscall.ECONNABORTED} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// take has a connection be the lane's. It reports false when the lane is over.
func (l *lane) take(c *laneConn) bool {
	l.server.conns.follow(&c.client)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended != nil && len(l.conns) == 0 {
		return false
	}
	c.handed = false
	c.turn++
	l.conns[c] = true
	return true
}

// setLate notes whether net/http has closed a connection that the lane still answers on.
func (l *lane) setLate(c *laneConn, late bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if late {
		l.late[c] = true
	} else {
		delete(l.late, c)
	}
}

// leave ends that.
func (l *lane) leave(c *laneConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.drop(c)
}

// drop is leave with l.mu held.
func (l *lane) drop(c *laneConn) {
	if !l.conns[c] {
		return
	}
	delete(l.conns, c)
	if l.ended != nil && len(l.conns) == 0 {
		close(l.ended)
	}
}

// Shutdown has the lane and the server behind it end, as http.Server's does.
func (l *laneServer) Shutdown(ctx context.Context) error {
	// so that what is asked while the lane drains is answered with Connection: close
	l.Server.SetKeepAlivesEnabled(false)
	l.lane.drain(ctx)
	var own sync.WaitGroup
	if h := l.lane.http2; h != nil {
		own.Go(func() { _ = h.Shutdown(ctx) })
	}
	err := l.Server.Shutdown(ctx)
	own.Wait()
	select {
	case <-l.lane.ended:
	case <-ctx.Done():
	}
	return err
}

// Close ends both at once.
func (l *laneServer) Close() error {
	err := l.Server.Close()
	if h := l.lane.http2; h != nil {
		_ = h.Close()
	}
	l.lane.mu.Lock()
	for _, conns := range []map[*laneConn]bool{l.lane.conns, l.lane.late} {
		for c := range conns {
			_ = c.clientConn.Close()
		}
	}
	l.lane.mu.Unlock()
	<-l.lane.ended
	return err
}

// laneServer is a server of net/http behind a lane.
type laneServer struct {
	*http.Server
	lane *lane
}

// drain has the connections of the lane end: those that have asked for something and wait at once,
// new ones when they have had a while to ask. What is asked meanwhile is for net/http.
func (l *lane) drain(ctx context.Context) {
	l.draining.Store(true)
	_ = l.listener.Close() // what it says is of no use any more
	l.mu.Lock()
	l.ended = make(chan struct{})
	if len(l.conns) == 0 {
		close(l.ended)
	}
	l.mu.Unlock()
	l.wake(false)
	late, cancel := context.WithTimeout(ctx, freshTimeout)
	defer cancel()
	select {
	case <-l.ended:
	case <-late.Done():
		l.wake(true)
		// for what came at the last moment; slow clients take longer
		late, cancel = context.WithTimeout(ctx, freshTimeout/4)
		defer cancel()
		select {
		case <-l.ended:
		case <-late.Done():
		}
	}
	zero(late, &l.server.conns.unread) // a server that shuts down drops what it reads after that
}

// wake ends the waits of connections that have asked for something, or of all.
func (l *lane) wake(all bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		if !c.handed && (all || c.asked.Load()) {
			_ = c.SetReadDeadline(past)
		}
	}
}
