package http2

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"sync"
	"time"
)

// Limits are what a client may do. For each, 0 means what the comment says.
type Limits struct {
	MaxStreams int // requests at once on a connection; 100
	// of a header block, after decompression, as RFC 9113, 6.5.2 counts; 64 KiB. More is answered
	// with 431
	MaxHeaderBytes int
	StreamWindow   int32         // bytes of a request's body that nobody has read; 256 KiB
	ConnWindow     int32         // of all bodies of a connection; 1 MiB, and at least 64 KiB
	HeaderTimeout  time.Duration // for the preface, a header block, and the rest of a frame; 10 s
	DataTimeout    time.Duration // for the rest of a DATA frame; 1 minute
	IdleTimeout    time.Duration // of a connection without a request; 2 minutes
	PingAfter      time.Duration // of silence the client is asked whether it is there; 30 s
	PingTimeout    time.Duration // for the answer; 15 s
	WriteTimeout   time.Duration // for the client to take 64 KiB, over a connection and over a stream; 1 minute
	// requests that a client may take back early at once; 200. Beyond that the connection ends if
	// they are half of all
	Resets     int
	ResetsEach time.Duration // after which it may take one more back; 50 ms
	ResetBytes int64         // of a body that are sent before taking a request back is early no more; 64 KiB
	// that only cost, at once; 10,000. 10 more each second, 8 for each request, and one for each
	// 256 bytes of bodies
	Frames int
}

// withDefaults fills in what is 0.
func (l Limits) withDefaults() Limits {
	set(&l.MaxStreams, 100)
	set(&l.MaxHeaderBytes, 64<<10)
	set(&l.StreamWindow, 256<<10)
	set(&l.ConnWindow, 1<<20)
	l.ConnWindow = max(l.ConnWindow, initialWindow)
	set(&l.HeaderTimeout, 10*time.Second)
	set(&l.DataTimeout, time.Minute)
	set(&l.IdleTimeout, 2*time.Minute)
	set(&l.PingAfter, 30*time.Second)
	set(&l.PingTimeout, 15*time.Second)
	set(&l.WriteTimeout, time.Minute)
	set(&l.Resets, 200)
	set(&l.ResetsEach, 50*time.Millisecond)
	set(&l.ResetBytes, 64<<10)
	set(&l.Frames, 10_000)
	return l
}

func set[T comparable](v *T, to T) {
	var zero T
	if *v == zero {
		*v = to
	}
}

// Server serves connections. The fields are set before the first and not changed after.
type Server struct {
	Handler http.Handler
	Ready   Ready // answers requests before the handler is asked; nil means none
	Limits  Limits
	// ExtendedConnect lets requests of RFC 8441 come to the handler, with the protocol in the field
	// ":protocol", as net/http has it. Without it they are malformed.
	ExtendedConnect bool

	// ConnContext returns the context of a connection's requests; nil means the one given.
	ConnContext func(ctx context.Context, c net.Conn) context.Context
	// Idle is told when a connection begins or ceases to be without a request; nil means nobody is.
	// Requests that Ready answers don't count.
	Idle func(c net.Conn, idle bool)
	// Flooding is told of a connection that is ended because it only costs, and why; nil means
	// nobody is.
	Flooding func(c net.Conn, why string)
	// Panicked is told of a handler's panic, but for http.ErrAbortHandler, in its goroutine; nil
	// means that it is logged.
	Panicked func(r *http.Request, panicked any)
	Log      *slog.Logger // of bad clients, at debug level; nil means slog.Default

	once   sync.Once
	limits Limits
	http   *http.Server // for http.ServerContextKey: ReverseProxy panics only under a server

	mu       sync.Mutex
	conns    map[*conn]bool
	draining bool
	ended    chan struct{} // closed when there are no connections any more, once it drains
}

func (s *Server) init() {
	s.once.Do(func() {
		s.limits = s.Limits.withDefaults()
		s.http = &http.Server{Handler: s.Handler}
		s.conns, s.ended = map[*conn]bool{}, make(chan struct{})
		if s.Log == nil {
			s.Log = slog.Default()
		}
	})
}

// panicked tells of a panic.
func (s *Server) panicked(r *http.Request, p any) {
	if s.Panicked != nil {
		s.Panicked(r, p)
		return
	}
	s.Log.Error("panic in a handler", "panic", p, "client", r.RemoteAddr, "stack", string(debug.Stack()))
}

// ServeConn serves a connection to its end, and returns when its last handler has. If it is over
// TLS, "h2" was negotiated. Without TLS the client is expected to know (RFC 9113, 3.3).
func (s *Server) ServeConn(ctx context.Context, nc net.Conn) {
	s.init()
	var secure *tls.ConnectionState
	if t, ok := nc.(interface{ ConnectionState() tls.ConnectionState }); ok {
		state := t.ConnectionState()
		secure = &state
	}
	ctx = context.WithValue(ctx, http.ServerContextKey, s.http)
	ctx = context.WithValue(ctx, http.LocalAddrContextKey, nc.LocalAddr())
	if s.ConnContext != nil {
		ctx = s.ConnContext(ctx, nc)
	}
	c := newConn(ctx, s, nc, secure)
	if s.add(c) {
		c.serve()
		s.remove(c)
	} else {
		_ = nc.Close()
	}
}

func (s *Server) add(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return false
	}
	s.conns[c] = true
	return true
}

func (s *Server) remove(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	if s.draining && len(s.conns) == 0 {
		close(s.ended)
	}
}

// Shutdown has the connections end once what is under way is done, and waits for that, or for ctx.
// Clients are told first that no new requests are taken soon, and a round trip later which ones
// were (RFC 9113, 6.8). It may be called once.
func (s *Server) Shutdown(ctx context.Context) error {
	s.init()
	for _, c := range s.drain() {
		c.drain()
	}
	select {
	case <-s.ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// drain has no connection begin any more, and returns those that there are.
func (s *Server) drain() []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.draining {
		s.draining = true
		if len(s.conns) == 0 {
			close(s.ended)
		}
	}
	list := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		list = append(list, c)
	}
	return list
}

// Close ends all connections at once. Their handlers' contexts end; it does not wait for them.
func (s *Server) Close() error {
	s.init()
	for _, c := range s.drain() {
		c.abort(errServerClosed)
	}
	return nil
}
