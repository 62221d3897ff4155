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

// The hit lane answers plain requests over HTTP/1.1, with or without TLS, for which a response is
// ready to be sent. These are most of an edge's requests, and net/http takes longer for each of
// them than all the rest.
//
// The lane has a connection while it is new or idle, in a goroutine that holds no buffer. It hands
// the connection off to net/http, with all bytes read so far, when it can't answer a request.
// net/http answers that request. When net/http would wait for the next request, the lane answers in
// its place. After a while without a request, the lane reports to net/http that the client has
// gone; net/http then closes its side, and the lane has the connection again. This works only if
// net/http has read nothing but that one request, and the request had no body. Otherwise the
// connection stays with net/http until it ends. net/http also gets requests that have arrived only
// in part, because it has the time limits for them.
//
// lanerequest.go defines which requests the lane takes. Ready finds the responses.

const (
	// laneInput is how many bytes the lane reads at once, and so the length of the longest header
	// block that it takes. Over TLS it is half of that.
	laneInput  = 8 << 10
	laneOutput = 24 << 10 // a response of up to this many bytes is copied into one write
	// laneIdle is how long after its last request a connection is checked again, because the
	// client's end may have come with that request; see serveTCP.
	laneIdle = time.Second
)

// lane is the hit lane of one listener.
type lane struct {
	server    *Server
	tls       *tls.Config // nil for plain HTTP
	log       *slog.Logger
	off       bool // it answers nothing, and hands all connections off
	listener  net.Listener
	buffers   sync.Pool     // of *laneBuffers
	handedOff chan net.Conn // connections for net/http
	closed    chan struct{} // closed when net/http takes no more connections
	once      sync.Once     // for closed
	http2     *http2.Server // for connections over HTTP/2; nil means that net/http serves them
	draining  atomic.Bool

	mu    sync.Mutex
	conns map[*laneConn]bool // connections that the lane has now
	late  map[*laneConn]bool // closed by net/http; they end after the response of the lane
	ended chan struct{}      // closed when the lane drains and has no connection; nil before
}

// laneBuffers hold a request and its response while the lane answers.
type laneBuffers struct {
	in      [laneInput]byte
	out     [laneOutput]byte
	request Request
	hit     Hit
}

// laneConn is a connection that a lane has accepted.
type laneConn struct {
	*clientConn
	lane         *lane
	raw          syscall.RawConn // of the socket
	fd           int             // of plain HTTP, while it is read
	tls          *tls.Conn       // nil for plain HTTP
	from         Conn            // what Ready.Find knows of it
	hasRequested atomic.Bool     // it has made a request

	armed     time.Time  // when its deadline was last set
	quick     bool       // the deadline is laneIdle away
	in        []byte     // bytes that are read over TLS
	visited   *handedOff // set while the lane answers on a connection that net/http has
	address   string     // of the client, for the access log; "" until it is needed
	host      string     // of the last request, for the access log
	looked    bool       // the lane has checked for the client's end after a request
	handedOff bool       // net/http has it, or is about to get it; lane.mu guards it
	turn      int        // how often the lane has adopted it; lane.mu guards it
}

func (s *Server) newLane(l net.Listener, conf *tls.Config) *lane {
	return &lane{buffers: sync.Pool{New: func() any { return new(laneBuffers) }}, server: s, tls: conf, log: s.Log,
		off: s.Ready == nil, listener: l, handedOff: make(chan net.Conn), closed: make(chan struct{}),
		conns: map[*laneConn]bool{}, late: map[*laneConn]bool{}}
}

// Accept returns the next connection that is handed off to net/http.
func (l *lane) Accept() (net.Conn, error) {
	select {
	case c := <-l.handedOff:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close makes Accept fail.
func (l *lane) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr returns the address of the listener.
func (l *lane) Addr() net.Addr { return l.listener.Addr() }

// serve accepts connections until the listener is closed. If files or memory run out, it waits for
// a while, as net/http does.
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
		if l.adopt(c) {
			go c.begin()
		} else {
			_ = c.Close()
		}
	}
}

// isShortage reports whether an error may pass when other connections end.
func isShortage(err error) bool {
	for _, e := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM,
		syscall.ECONNABORTED} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// adopt adds a connection to those that the lane has. It reports false if the lane has ended.
func (l *lane) adopt(c *laneConn) bool {
	l.server.conns.markIdle(&c.client)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended != nil && len(l.conns) == 0 {
		return false
	}
	c.handedOff = false
	c.turn++
	l.conns[c] = true
	return true
}

// setLate sets whether net/http has closed a connection on which the lane still answers.
func (l *lane) setLate(c *laneConn, late bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if late {
		l.late[c] = true
	} else {
		delete(l.late, c)
	}
}

// leave removes a connection from those that the lane has.
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

// Shutdown shuts down the lane and the server behind it, as http.Server's does.
func (l *laneServer) Shutdown(ctx context.Context) error {
	// requests during the drain get Connection: close
	l.Server.SetKeepAlivesEnabled(false)
	l.lane.drain(ctx)
	var wg sync.WaitGroup
	if h := l.lane.http2; h != nil {
		wg.Go(func() { _ = h.Shutdown(ctx) })
	}
	err := l.Server.Shutdown(ctx)
	wg.Wait()
	select {
	case <-l.lane.ended:
	case <-ctx.Done():
	}
	return err
}

// Close closes both at once.
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

// laneServer is an http.Server behind a lane.
type laneServer struct {
	*http.Server
	lane *lane
}

// drain ends the connections of the lane: idle ones that have made a request at once, new ones
// after a while in which they may make one. net/http answers requests that come meanwhile.
func (l *lane) drain(ctx context.Context) {
	l.draining.Store(true)
	_ = l.listener.Close() // its error doesn't matter any more
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
		// for requests that came at the last moment; slow clients take longer
		late, cancel = context.WithTimeout(ctx, freshTimeout/4)
		defer cancel()
		select {
		case <-l.ended:
		case <-late.Done():
		}
	}
	zero(late, &l.server.conns.unread) // a server that shuts down drops what it reads later
}

// wake ends the waits of the connections that have made a request, or of all.
func (l *lane) wake(all bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		if !c.handedOff && (all || c.hasRequested.Load()) {
			_ = c.SetReadDeadline(past)
		}
	}
}
