package front

import (
	"container/list"
	"context"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
)

// Bounds of what one connection may do without asking for anything.
const (
	// that it may send beside its requests: frames that only cost time (pings, settings, empty
	// ones)
	freeBytes   = 1 << 20
	requestFree = 1 << 10 // more for each request, and twice its header block
	// more for each request with a body, which covers one that nobody reads: that much a request's
	// window lets in
	bodyFree = 512 << 10
	// a byte more for so many that were sent to it: half of what acknowledging empty settings over
	// TLS 1.2 takes
	sentFree   = 8
	ResetsFree = 200      // requests that it may take back at once,
	resetRate  = 20       // and so many more each second: maps and previews that are scrolled
	resetBytes = 64 << 10 // a request counts as taken back at once if less of a body had been sent
)

// client is the far end of a connection, and what it did so far.
type client struct {
	requests, resets atomic.Int64
	resetting        atomic.Pointer[rate.Limiter] // how fast it takes requests back; nil if it has taken none back
	credit           atomic.Int64                 // bytes that it may have sent for what it asked
	cut              func() error                 // ends the connection
	reset            func()                       // has the end of the connection be a reset, of TCP
	fields           *fieldWatch                  // of HTTP/3; nil without
	share            *share                       // of its network; nil if that is not limited
	parked           atomic.Int64                 // bytes that the windows of its requests let in

	place    *list.Element // in the list of idle ones
	since    time.Time     // when it came there
	active   int           // requests under way, of HTTP/3
	handling atomic.Bool   // of HTTP/1.1: the request that was read last came to a handler
	inLane   bool          // it is of a listener with a hit lane, and its place is not changed for each request
	busy     atomic.Bool   // of those: it is being written to
	unread   atomic.Bool   // of those: net/http was handed a whole request, and has not come to it yet
	// its connection if that has never asked for anything, of HTTP/1.1; place, since, active and
	// fresh are guarded by conns.mu
	fresh *clientConn
}

// clientConn is a TCP connection of a client, below TLS.
type clientConn struct {
	net.Conn
	client
	conns      *conns
	release    func()
	read, sent atomic.Int64
	tunnel     atomic.Bool // it is no HTTP any more
}

// Read reads, and ends a connection that sends much and asks for little (RFC 9113, 10.5). What is
// acknowledged costs the client as much as the edge.
func (c *clientConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if read := c.read.Add(int64(n)); read > freeBytes && read > freeBytes+c.credit.Load()+c.sent.Load()/sentFree &&
		!c.tunnel.Load() {
		c.conns.flooding.Inc()
		c.conns.log.Debug("connection closed: it sends much and asks for little", "client", c.RemoteAddr(), "bytes",
			read, "requests", c.requests.Load())
		return 0, net.ErrClosed
	}
	return n, err
}

// Write writes.
func (c *clientConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.sent.Add(int64(n))
	return n, err
}

// Close closes the connection and gives its place back.
func (c *clientConn) Close() error {
	c.conns.forget(&c.client)
	c.conns.mu.Lock()
	delete(c.conns.tunnels, c)
	c.conns.mu.Unlock()
	c.release()
	return c.Conn.Close()
}

// clientKey is the key of a request's *client in its context.
type clientKey struct{}

func withClient(ctx context.Context, conn net.Conn) context.Context {
	if own := asClientConn(conn); own != nil {
		return context.WithValue(ctx, clientKey{}, &own.client)
	}
	return ctx
}

// ask counts a request, and returns the size of its header block in bytes. The client is nil if its
// connection is not limited.
func (c *client) ask(r *http.Request) int {
	size := len(r.Method) + len(r.Host) + len(r.RequestURI)
	for name, lines := range r.Header {
		for _, v := range lines {
			size += len(name) + len(v) + 4
		}
	}
	if c == nil {
		return size
	}
	c.requests.Add(1)
	credit := requestFree + 2*size
	if r.Body != http.NoBody && r.ContentLength != 0 {
		credit += bodyFree
	}
	c.credit.Add(int64(credit))
	return size
}

// answered looks at how a request ended: a client that takes most of its requests back at once only
// costs (CVE-2023-44487), and its connection is ended.
func (c *client) answered(r *http.Request, w *Exchange, flooding prometheus.Counter) {
	if c == nil || r.ProtoMajor < 2 || r.Context().Err() == nil || w.bytes >= resetBytes {
		return
	}
	resetting := c.resetting.Load()
	if resetting == nil {
		c.resetting.CompareAndSwap(nil, rate.NewLimiter(resetRate, ResetsFree))
		resetting = c.resetting.Load()
	}
	if n := c.resets.Add(1); !resetting.Allow() && 2*n > c.requests.Load() {
		flooding.Inc()
		_ = c.cut()
	}
}
