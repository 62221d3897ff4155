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

// Limits bounds what a client may do. A field that is 0 gets the default its comment gives.
type Limits struct {
	// MaxStreams is the number of concurrent requests on a connection. The default is 100.
	MaxStreams int
	// MaxHeaderBytes is the size of a decompressed header block, counted as in RFC 9113, 6.5.2. The
	// default is 64 KiB. A request with a larger header block is answered with 431.
	MaxHeaderBytes int
	// StreamWindow is the flow-control window of a stream: the bytes of a request body that the
	// client may send ahead of the handler. The default is 256 KiB.
	StreamWindow int32
	// ConnWindow is the flow-control window of a connection, for all its request bodies together.
	// The default is 1 MiB, the minimum 65,535 bytes.
	ConnWindow int32
	// HeaderTimeout bounds the wait for the preface, for a header block, and for the rest of a
	// frame that is not DATA. The default is 10 s.
	HeaderTimeout time.Duration
	// DataTimeout bounds the wait for the rest of a DATA frame. The default is 1 minute.
	DataTimeout time.Duration
	// IdleTimeout is how long a connection stays open without a request. The default is 2 minutes.
	IdleTimeout time.Duration
	// PingAfter is how long the client may be silent before the server sends PING. The default is
	// 30 s.
	PingAfter time.Duration
	// PingTimeout bounds the wait for the answer to that PING. The default is 15 s.
	PingTimeout time.Duration
	// WriteTimeout is how long the client may take to receive 64 KiB, on a connection and on a
	// stream. The default is 1 minute.
	WriteTimeout time.Duration
	// Resets is how many requests a client may cancel early in a burst. The default is 200. Beyond
	// that, the connection ends if more than half of its requests were canceled early.
	Resets int
	// ResetsEach is the interval after which the client may cancel one more request early. The
	// default is 50 ms.
	ResetsEach time.Duration
	// ResetBytes is how many bytes of a response body must have been sent for a cancellation not to
	// count as early. The default is 64 KiB.
	ResetBytes int64
	// Frames is how many frames that transfer nothing, such as PING or an empty DATA frame, a
	// client may send in a burst. The default is 10,000. A client may send 10 more for each second
	// of the connection, 8 more for each request, and one more for each 256 bytes of bodies.
	Frames int
}

// withDefaults replaces zero fields with their defaults.
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

// Server serves HTTP/2 connections. Its exported fields are set before the first connection and not
// changed afterwards.
type Server struct {
	Handler http.Handler
	Ready   Ready // answers requests ahead of Handler; nil means Handler gets them all
	Limits  Limits
	// ExtendedConnect admits extended CONNECT requests (RFC 8441). Handler finds their protocol in
	// the header field ":protocol", as with net/http. If it is false such requests are malformed.
	ExtendedConnect bool

	// ConnContext, if not nil, derives the context of a connection's requests from the one that
	// ServeConn was given.
	ConnContext func(ctx context.Context, c net.Conn) context.Context
	// Idle, if not nil, is called when a connection becomes idle or ceases to be. A connection is
	// idle if no request is under way. A request whose answer from Ready is sent at once doesn't
	// count.
	Idle func(c net.Conn, idle bool)
	// Flooding, if not nil, is called when the server ends a connection because its client exceeds
	// Limits.Resets, Limits.Frames or the bounds of a header block.
	Flooding func(c net.Conn, why string)
	// Panicked, if not nil, is called when a handler panics with a value other than
	// http.ErrAbortHandler, or when Ready panics, in the goroutine that panicked. If it is nil the
	// server logs the panic.
	Panicked func(r *http.Request, panicked any)
	Log      *slog.Logger // client errors are logged at debug level; nil means slog.Default

	once   sync.Once
	limits Limits
	http   *http.Server // for http.ServerContextKey

	mu       sync.Mutex
	conns    map[*conn]bool
	draining bool
	ended    chan struct{} // closed when the server drains and the last connection has ended
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

// panicked passes a panic to Panicked, or logs it.
func (s *Server) panicked(r *http.Request, p any) {
	if s.Panicked != nil {
		s.Panicked(r, p)
		return
	}
	s.Log.Error("panic in a handler", "panic", p, "client", r.RemoteAddr, "stack", string(debug.Stack()))
}

// ServeConn serves a connection until it ends, and returns when its last handler has returned. A
// connection over TLS must have negotiated "h2". Without TLS the client must have prior knowledge
// (RFC 9113, 3.3).
func (s *Server) ServeConn(ctx context.Context, nc net.Conn) {
	s.init()
	c := s.open(ctx, nc)
	if !s.add(c) {
		_ = nc.Close()
		return
	}
	defer s.remove(c)
	c.serve()
}

// open makes a conn.
func (s *Server) open(ctx context.Context, nc net.Conn) *conn {
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
	return newConn(ctx, s, nc, secure)
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

// Shutdown drains all connections: each ends when its requests under way are done. It returns nil
// when all have ended, or the error of ctx. Each client first gets a GOAWAY that announces the end,
// and a round trip later one that names the last request that is served (RFC 9113, 6.8). Shutdown
// may be called once.
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

// drain refuses new connections, and returns the present ones.
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

// Close ends all connections at once and cancels the contexts of their handlers. It does not wait
// for the handlers.
func (s *Server) Close() error {
	s.init()
	for _, c := range s.drain() {
		c.abort(errServerClosed)
	}
	return nil
}
