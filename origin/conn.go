package origin

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// errHandshake means that a TLS handshake did not finish within TLSTimeout.
var errHandshake = &timeoutError{"TLS handshake timeout"}

// open opens a counted connection to b. If conf is not nil, it does a TLS handshake and verifies
// the host of addr, which is the host and port of the request's URL.
func (p *Pool) open(ctx context.Context, b *backend, network, addr string, conf *tls.Config) (net.Conn, error) {
	began := time.Now()
	c, err := p.dialInTime(ctx, network, b)
	if err != nil {
		return nil, err
	}
	own := p.newConn(c)
	own.count(p, b)
	secured, err := p.secure(ctx, own, addr, conf)
	if err != nil {
		return nil, err
	}
	b.spares.recordSetup(time.Since(began))
	return secured, nil
}

// openForProbe is like open, but the connection is not counted and the pool's spare connections are
// not used.
func (p *Pool) openForProbe(ctx context.Context, b *backend, network, addr string, conf *tls.Config) (net.Conn, error) {
	c, err := p.dialInTime(ctx, network, b)
	if err != nil {
		return nil, err
	}
	return p.secure(ctx, p.newConn(c), addr, conf)
}

// secure does the TLS handshake of a new connection, unless conf is nil, and learns from it whether
// the server chose HTTP/2. It closes the connection if the handshake fails.
func (p *Pool) secure(ctx context.Context, own *conn, addr string, conf *tls.Config) (net.Conn, error) {
	c, err := p.handshake(ctx, own, addr, conf)
	if err != nil {
		return nil, err
	}
	if t, ok := c.(*tls.Conn); ok && t.ConnectionState().NegotiatedProtocol == "h2" {
		own.http2 = true
		own.stage.Store(connOpen) // the transport writes its preface before it begins to read
	}
	return c, nil
}

func (p *Pool) dialInTime(ctx context.Context, network string, b *backend) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, p.ConnectTimeout)
	defer cancel()
	c, err := p.dial(ctx, network, b)
	if err != nil {
		return nil, dialError(err)
	}
	return c, nil
}

// handshake does a TLS handshake for the host of addr. If conf is nil it returns c. It closes c if
// the handshake fails.
func (p *Pool) handshake(ctx context.Context, c net.Conn, addr string, conf *tls.Config) (net.Conn, error) {
	if conf == nil {
		return c, nil
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	conf = conf.Clone()
	conf.ServerName = host
	t := tls.Client(c, conf)
	inTime, cancel := context.WithTimeoutCause(ctx, p.TLSTimeout, errHandshake)
	defer cancel()
	if err = t.HandshakeContext(inTime); err == nil {
		return t, nil
	}
	_ = c.Close()
	if ctx.Err() == nil && inTime.Err() != nil {
		err = errHandshake
	}
	return nil, err
}

// dialError wraps err so that isDial recognizes it.
func dialError(err error) error {
	if isDial(err) {
		return err
	}
	return &net.OpError{Op: "dial", Net: "tcp", Err: err}
}

func (p *Pool) dial(ctx context.Context, network string, b *backend) (net.Conn, error) {
	switch {
	case p.Dial != nil:
		return p.Dial(ctx, network, b.addr)
	case b.resolver == nil:
		return (&net.Dialer{}).DialContext(ctx, network, b.addr)
	}
	_, port, err := net.SplitHostPort(b.addr)
	if err != nil {
		return nil, err
	}
	addrs, err := b.resolver.addresses(ctx)
	if err != nil {
		return nil, err
	}
	return dialAll(ctx, network, addrs, port)
}

// conn is a TCP connection to a server. Its writes time out after writeTimeout.
type conn struct {
	net.Conn
	raw          syscall.RawConn // of Conn; nil if that is no socket
	writeTimeout time.Duration
	uncount      func()
	readEnded    chan struct{} // closed once nothing more can be read
	stage        atomic.Int32  // of HTTP/2: connHandshake, connOpen or connRead
	endRead      func()        // closes readEnded

	// How long the connection may be idle, in ns, plus 1. 0 means that the server gave no limit.
	idleLimit atomic.Int64
	written   atomic.Int64 // bytes

	http2 bool // set before first use
	// Pool.mu guards the fields below.
	users     int  // requests on the connection
	wasShared bool // users was more than 1 since it was last 0
}

// The stages of a connection of HTTP/2. A connection of HTTP/1 stays at connHandshake.
const (
	connHandshake = iota // the TLS handshake is under way
	connOpen             // the handshake is done and the transport does not read yet
	connRead             // the transport reads
)

func (p *Pool) newConn(c net.Conn) *conn {
	unread := make(chan struct{})
	var raw syscall.RawConn
	if sc, ok := c.(syscall.Conn); ok {
		raw, _ = sc.SyscallConn() // without it, a closed connection is noticed when it is used
	}
	return &conn{
		Conn:         c,
		raw:          raw,
		writeTimeout: p.BetweenBytesTimeout,
		readEnded:    unread,
		endRead:      sync.OnceFunc(func() { close(unread) }),
		uncount:      func() {},
	}
}

// count counts the connection among those of b until it is closed.
func (c *conn) count(p *Pool, b *backend) {
	p.mu.Lock()
	b.connections++
	b.counts.Connections++
	p.mu.Unlock()
	c.uncount = sync.OnceFunc(func() {
		p.mu.Lock()
		b.connections--
		p.mu.Unlock()
	})
}

// Read implements io.Reader. The first Read after the handshake moves the connection to connRead.
func (c *conn) Read(b []byte) (int, error) {
	c.stage.CompareAndSwap(connOpen, connRead)
	n, err := c.Conn.Read(b)
	if err != nil {
		c.endRead()
	}
	return n, err
}

// Write implements io.Writer. It fails with a timeout if the server accepts no data for
// writeTimeout.
//
// A server that does not want the rest of a body may respond and close the connection. The
// transport of HTTP/2 would report the failed write instead of that response. On a connection of
// HTTP/2, Write therefore waits after EPIPE or ECONNRESET until everything that the server sent has
// been read, or for at most writeTimeout. It does not wait before the transport has begun to read.
func (c *conn) Write(b []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(c.writeTimeout)); err != nil {
		return 0, err
	}
	n, err := c.Conn.Write(b)
	c.written.Add(int64(n))
	if isClosedByPeer(err) && c.stage.Load() == connRead {
		t := time.NewTimer(c.writeTimeout)
		defer t.Stop()
		select {
		case <-c.readEnded:
		case <-t.C:
		}
	}
	return n, err
}

// CloseWrite shuts down the writing side of an upgraded connection.
func (c *conn) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return errors.ErrUnsupported
}

// Close implements io.Closer. It also stops counting the connection.
func (c *conn) Close() error {
	c.uncount()
	c.endRead()
	return c.Conn.Close()
}
