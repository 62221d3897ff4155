package origin

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// newTransport makes the connections of one server; those of probes are not counted. They all go to
// its address, whatever host a request names: that one becomes Host and SNI.
func (p *Pool) newTransport(b *backend, forRequests bool) *http.Transport {
	conf := p.TLS.Clone()
	if conf == nil {
		conf = &tls.Config{}
	}
	conf.MinVersion = max(conf.MinVersion, tls.VersionTLS12)
	conf.NextProtos = []string{"h2", "http/1.1"}
	connect := p.connect
	if !forRequests {
		connect = p.openForProbe
	}
	return &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return connect(ctx, b, network, addr, nil)
		},
		DialTLSContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return connect(ctx, b, network, addr, conf)
		},
		ResponseHeaderTimeout: p.FirstByteTimeout,
		ForceAttemptHTTP2:     true,
		HTTP2:                 &http.HTTP2Config{SendPingTimeout: p.PingInterval, PingTimeout: p.PingInterval},
		DisableCompression:    true, // bodies are passed on as they are
		MaxConnsPerHost:       p.MaxConnections,
		MaxIdleConnsPerHost:   64,
		MaxIdleConns:          256,
		IdleConnTimeout:       90 * time.Second,
		// A header block larger than this is an error of the origin.
		MaxResponseHeaderBytes: 256 << 10,
	}
}

// errHandshake says that a server did not finish the handshake of TLS in time.
var errHandshake = &timeoutError{"TLS handshake timeout"}

// open makes a connection to a server, with TLS if conf is not nil, for a host and port that a
// request names.
func (p *Pool) open(ctx context.Context, b *backend, network, addr string, conf *tls.Config) (net.Conn, error) {
	began := time.Now()
	c, err := p.dialInTime(ctx, network, b)
	if err != nil {
		return nil, err
	}
	own := p.newConn(c, b)
	if c, err = p.handshake(ctx, own, addr, conf); err != nil {
		return nil, err
	}
	own.stage.Store(connOpen)
	b.spares.recordSetup(time.Since(began))
	if t, ok := c.(*tls.Conn); ok && t.ConnectionState().NegotiatedProtocol == "h2" {
		own.http2 = true
		return t, nil
	}
	return &http1Conn{Conn: c, raw: own}, nil
}

// openUncounted is open for a connection that is no part of what the server has to do.
func (p *Pool) openForProbe(ctx context.Context, b *backend, network, addr string, conf *tls.Config) (net.Conn, error) {
	c, err := p.dialInTime(ctx, network, b)
	if err != nil {
		return nil, err
	}
	return p.handshake(ctx, c, addr, conf)
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

// secure does the handshake of TLS, if conf is not nil.
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

// dialError makes the failure of a connection one that isDial tells from others.
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

// conn is a connection to a server. It counts as one until it is closed, and a write to it can't
// wait for ever.
type conn struct {
	net.Conn
	writeTimeout time.Duration
	uncount      func()
	readEnded    chan struct{} // closed when there is nothing more to read
	stage        atomic.Int32  // connHandshake, connOpen or connRead
	endRead      func()        // closes it

	idleLimit atomic.Int64 // for how long it may be idle, and a nanosecond; 0 if the server did not say
	retired   atomic.Bool  // it was idle for longer

	http2 bool // set before it is used
	// What follows is guarded by Pool.mu.
	users     int  // requests that it has
	wasShared bool // it had several since it had none
}

// The stages of a connection.
const (
	connHandshake = iota // of TLS; without TLS it is over at once
	connOpen             // nothing was read after the handshake
	connRead             // the transport reads from it
)

func (p *Pool) newConn(c net.Conn, b *backend) *conn {
	p.mu.Lock()
	b.connections++
	b.counts.Connections++
	p.mu.Unlock()
	unread := make(chan struct{})
	return &conn{Conn: c, writeTimeout: p.BetweenBytesTimeout, readEnded: unread, endRead: sync.OnceFunc(func() { close(unread) }), uncount: sync.OnceFunc(func() {
		p.mu.Lock()
		b.connections--
		p.mu.Unlock()
	})}
}

// Read reads on.
func (c *conn) Read(b []byte) (int, error) {
	c.stage.CompareAndSwap(connOpen, connRead)
	n, err := c.Conn.Read(b)
	if err != nil {
		c.endRead()
	}
	return n, err
}

// Write writes, or fails if the server takes nothing for too long. A server that does not want the
// rest of a body may answer and close the connection; the transport would take the failed write for
// the outcome. So a write that meets the end waits until all that the server sent is read. It does
// not wait if nobody reads yet, as in a handshake, or when the transport begins HTTP/2.
func (c *conn) Write(b []byte) (int, error) {
	if c.retired.Load() {
		return 0, errRetired
	}
	if err := c.SetWriteDeadline(time.Now().Add(c.writeTimeout)); err != nil {
		return 0, err
	}
	n, err := c.Conn.Write(b)
	if (errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)) && c.stage.Load() == connRead {
		t := time.NewTimer(c.writeTimeout)
		defer t.Stop()
		select {
		case <-c.readEnded:
		case <-t.C:
		}
	}
	return n, err
}

// CloseWrite ends the sending side of an upgraded connection.
func (c *conn) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return errors.ErrUnsupported
}

// Close closes the connection.
func (c *conn) Close() error {
	c.uncount()
	c.endRead()
	return c.Conn.Close()
}
