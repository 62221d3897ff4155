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

// Limits of what a connection may do without making requests.
const (
	// freeBytes is how many bytes a client may send besides its requests. They cover frames that
	// transfer nothing, such as pings, settings and empty DATA frames.
	freeBytes   = 1 << 20
	requestFree = 1 << 10 // further bytes for each request, besides twice its header block
	// bodyFree is how many further bytes a client may send for each request with a body. They cover
	// a body that nobody reads, of which a request's window admits that much.
	bodyFree = 512 << 10
	// A client may send one further byte for each sentFree bytes sent to it. That is half of what
	// it takes to acknowledge empty settings over TLS 1.2.
	sentFree   = 8
	ResetsFree = 200      // requests that a client may reset in a burst
	resetRate  = 20       // further ones each second, as scrolling through maps and previews makes
	resetBytes = 64 << 10 // a request counts as reset if fewer bytes of its response body were sent
)

// client is the remote end of a connection, and a record of what it has done so far.
type client struct {
	requests, resets atomic.Int64
	resetting        atomic.Pointer[rate.Limiter] // how fast it resets requests; nil if it has reset none
	credit           atomic.Int64                 // bytes that it may have sent for its requests
	cut              func() error                 // closes the connection
	reset            func()                       // makes the close a TCP reset
	fields           *fieldWatch                  // of HTTP/3; otherwise nil
	memo             memo                         // of the hit lane of HTTP/3
	share            *share                       // of its network; nil if that is not limited
	parked           atomic.Int64                 // bytes that the windows of its requests admit

	place    *list.Element // in conns.idle; nil if the client is not idle
	since    time.Time     // when it was put there
	active   int           // requests under way (HTTP/3)
	handling atomic.Bool   // the last request that was read has come to a handler (HTTP/1.1)
	inLane   bool          // its listener has a hit lane, so not every request changes its place
	busy     atomic.Bool   // a write to it is under way (hit lane)
	unread   atomic.Bool   // net/http has a complete request, but no handler has it yet (hit lane)
	// The connection itself if it never made a request, for HTTP/1.1. conns.mu guards place, since,
	// active and fresh.
	fresh *clientConn
	own   *clientConn // the connection; nil for HTTP/3
}

// clientConn is a TCP connection of a client, below TLS.
type clientConn struct {
	net.Conn
	client
	conns      *conns
	release    func()
	read, sent atomic.Int64
	tunnel     atomic.Bool // it has become a tunnel
	gather     *gather     // collects bytes in Write; nil in the lane and for net/http's HTTP/2
}

// Read reads from the client. It fails once the client has sent much more than its requests account
// for (RFC 9113, 10.5). The limit grows with the bytes that the client has to acknowledge.
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

// Write writes to the client and counts the bytes. While gather collects, Write adds them to it.
func (c *clientConn) Write(p []byte) (int, error) {
	if c.gather != nil && c.gather.take(p) {
		c.sent.Add(int64(len(p)))
		return len(p), nil
	}
	n, err := c.Conn.Write(p)
	c.sent.Add(int64(n))
	return n, err
}

// Close closes the connection and frees its place.
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
	if cc := asClientConn(conn); cc != nil {
		return context.WithValue(ctx, clientKey{}, &cc.client)
	}
	return ctx
}

// countRequest counts a request. It returns the size of the header block in bytes. c is nil if its
// connection isn't limited.
func (c *client) countRequest(r *http.Request) int {
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

// answered is called when a request has ended. It closes the connection of a client that resets
// most of its requests soon after it sent them, because that is an attack (CVE-2023-44487).
func (c *client) answered(r *http.Request, w *Exchange, flooding prometheus.Counter) {
	if c == nil || r.ProtoMajor < 2 || w.whole || r.Context().Err() == nil || w.bytes >= resetBytes {
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
