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

// upgradeKey is set in the context of a request to switch to WebSocket. The transport gives such a
// request a connection that it gives no others, and the server must not choose HTTP/2 for it, which
// has no upgrades (RFC 9113, 8.6).
type upgradeKey struct{}

// newTransport returns a transport whose connections all go to the address of b. The host of a
// request's URL only becomes Host and SNI. Connections for requests are counted; those for probes
// (forRequests is false) are not.
func (p *Pool) newTransport(b *backend, forRequests bool) *http.Transport {
	conf := p.TLS.Clone()
	if conf == nil {
		conf = &tls.Config{}
	}
	conf.MinVersion = max(conf.MinVersion, tls.VersionTLS12)
	conf.NextProtos = []string{"h2", "http/1.1"}
	forUpgrades := conf.Clone()
	forUpgrades.NextProtos = []string{"http/1.1"}
	connect := p.connect
	if !forRequests {
		connect = p.openForProbe
	}
	return &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return connect(ctx, b, network, addr, nil)
		},
		DialTLSContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			if ctx.Value(upgradeKey{}) != nil {
				return p.open(ctx, b, network, addr, forUpgrades)
			}
			return connect(ctx, b, network, addr, conf)
		},
		ResponseHeaderTimeout: p.FirstByteTimeout,
		ForceAttemptHTTP2:     true,
		HTTP2:                 &http.HTTP2Config{SendPingTimeout: p.PingInterval, PingTimeout: p.PingInterval},
		DisableCompression:    true, // bodies are passed on unchanged
		MaxConnsPerHost:       p.MaxConnections,
		MaxIdleConnsPerHost:   64,
		ReadBufferSize:        16 << 10, // a small response comes in one read
		MaxIdleConns:          256,
		IdleConnTimeout:       90 * time.Second,
		// A larger response header is an error of the origin.
		MaxResponseHeaderBytes: 256 << 10,
	}
}

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
	own := p.newConn(c, b)
	if c, err = p.handshake(ctx, own, addr, conf); err != nil {
		return nil, err
	}
	b.spares.recordSetup(time.Since(began))
	if t, ok := c.(*tls.Conn); ok && t.ConnectionState().NegotiatedProtocol == "h2" {
		own.http2 = true
		own.stage.Store(connOpen) // the transport writes its preface before it begins to read
		return t, nil
	}
	own.stage.Store(connRead) // a goroutine of the transport begins to read at once
	return &http1Conn{Conn: c, raw: own}, nil
}

// openForProbe is like open, but the connection is not counted and the pool's spare connections are
// not used.
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

// conn is a counted TCP connection to a server. Its writes time out after writeTimeout.
type conn struct {
	net.Conn
	writeTimeout time.Duration
	uncount      func()
	readEnded    chan struct{} // closed once nothing more can be read
	stage        atomic.Int32  // connHandshake, connOpen or connRead
	endRead      func()        // closes readEnded

	idleLimit atomic.Int64 // how long the connection may be idle, in ns, plus 1; 0 if the server gave no limit
	retired   atomic.Bool  // no further request may be written

	http2 bool // set before first use
	// Pool.mu guards the fields below.
	users     int  // requests on the connection
	wasShared bool // users was more than 1 since it was last 0
}

// The stages of a connection.
const (
	connHandshake = iota // the TLS handshake is under way
	connOpen             // HTTP/2: the handshake is done and the transport does not read yet
	connRead             // the transport reads, or is about to
)

func (p *Pool) newConn(c net.Conn, b *backend) *conn {
	p.mu.Lock()
	b.connections++
	b.counts.Connections++
	p.mu.Unlock()
	unread := make(chan struct{})
	return &conn{
		Conn:         c,
		writeTimeout: p.BetweenBytesTimeout,
		readEnded:    unread,
		endRead:      sync.OnceFunc(func() { close(unread) }),
		uncount: sync.OnceFunc(func() {
			p.mu.Lock()
			b.connections--
			p.mu.Unlock()
		}),
	}
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
// transport would report the failed write instead of that response. So after EPIPE or ECONNRESET,
// Write waits until everything that the server sent has been read. It does not wait while nobody
// reads, as during the TLS handshake or before the first bytes of HTTP/2.
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
