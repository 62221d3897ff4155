package origin

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"slices"
	"sync"
	"time"
)

// A transport sends requests to one server. Requests over HTTP/1.1 run in the goroutine of their
// caller (http1.go). A server that chooses HTTP/2 in the TLS handshake gets net/http's transport.

const (
	maxIdle       = 64               // idle connections per server
	idleTimeout   = 90 * time.Second // of a connection whose server announces none
	sweepInterval = time.Second      // how often idle connections are looked at
	maxHTTP2Names = 1024             // names of a server that are known to speak HTTP/2
	maxHeader     = 256 << 10        // bytes of a response's header; more is an error of the origin
	maxInterim    = 100              // interim responses to a request
	maxUploadRead = 32 << 10         // bytes of a request's body that are read at once
	// uploadGrace is how long the end of a response waits for the end of the request's body, so
	// that the connection can be kept.
	uploadGrace = 50 * time.Millisecond
)

// errNotHTTP2 means that a server which used to choose HTTP/2 has chosen HTTP/1.1.
var errNotHTTP2 = errors.New("the server no longer speaks HTTP/2")

// connectFunc opens a connection to b for the host and port of a request's URL. If conf is not nil,
// it does a TLS handshake.
type connectFunc func(ctx context.Context, b *backend, network, addr string, conf *tls.Config) (net.Conn, error)

// transport sends requests to a server of a pool. The host of a request's URL becomes the SNI and
// the name to verify; the address is the server's.
type transport struct {
	pool    *Pool
	backend *backend
	connect connectFunc
	addr    string // the dialAddress of the backend's URL
	once    bool   // each connection has one request
	http2   *http.Transport
	tls     *tls.Config
	// upgradeTLS is for requests to switch to another protocol. It doesn't offer HTTP/2, which has
	// no upgrades (RFC 9113, 8.6).
	upgradeTLS *tls.Config

	mu       sync.Mutex
	idle     []*http1Conn    // the one used last at the end
	closed   bool            // connections that become idle close
	sweeper  *time.Timer     // nil until the first connection is idle
	sweeping bool            // the sweeper is set
	isHTTP2  map[string]bool // by dialAddress; has those for which the server chose HTTP/2
}

// newTransport returns a transport to b. Connections for requests are counted and kept for further
// ones; those for probes (forRequests is false) are not.
func (p *Pool) newTransport(b *backend, forRequests bool) *transport {
	conf := p.TLS.Clone()
	if conf == nil {
		conf = &tls.Config{}
	}
	conf.MinVersion = max(conf.MinVersion, tls.VersionTLS12)
	conf.NextProtos = []string{"h2", "http/1.1"}
	t := &transport{pool: p, backend: b, connect: p.connect, tls: conf, upgradeTLS: conf.Clone(),
		addr: dialAddress(b.URL), isHTTP2: map[string]bool{}}
	t.upgradeTLS.NextProtos = []string{"http/1.1"}
	if !forRequests {
		t.connect, t.once = p.openForProbe, true
	}
	t.http2 = &http.Transport{
		DialTLSContext:         t.dialHTTP2,
		ResponseHeaderTimeout:  p.FirstByteTimeout,
		ForceAttemptHTTP2:      true,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: p.PingInterval, PingTimeout: p.PingInterval},
		DisableCompression:     true, // bodies are passed on unchanged
		DisableKeepAlives:      t.once,
		MaxConnsPerHost:        p.MaxConnections,
		MaxIdleConnsPerHost:    maxIdle,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxHeader,
	}
	return t
}

// roundTrip sends r, which it must not change, and returns the response. The caller reads the body
// to its end or closes it. The request's body is closed, maybe later.
func (t *transport) roundTrip(r *http.Request, to progress) (*http.Response, error) {
	if err := checkRequest(r); err != nil {
		closeBody(r)
		return nil, &RequestError{err}
	}
	addr := t.addr
	if own := t.backend.URL; r.URL.Host != own.Host || r.URL.Scheme != own.Scheme {
		addr = dialAddress(r.URL)
	}
	if r.URL.Scheme == "https" && !upgrades(r) && t.speaksHTTP2(addr) {
		resp, err := t.overHTTP2(r, to, nil)
		if !errors.Is(err, errNotHTTP2) {
			return resp, err
		}
		if r, err = again(r); err != nil {
			return nil, err
		}
	}
	for {
		c := t.takeIdle(addr)
		reused := c != nil
		if !reused {
			fresh, err := t.open(r, addr)
			if err != nil {
				closeBody(r)
				return nil, err
			}
			if connOf(fresh).http2 {
				t.learnHTTP2(addr, true)
				return t.overHTTP2(r, to, fresh)
			}
			c = newHTTP1Conn(t, fresh, addr)
		}
		to.connected(c.own, reused)
		resp, err := c.exchange(r, to)
		switch {
		case err == nil:
			return resp, nil
		case reused && r.Context().Err() == nil && errors.Is(err, errNothingWritten):
			to.unsent()
		case reused && r.Context().Err() == nil && errors.As(err, new(*silentError)) && retryable(r):
		default:
			closeBody(r)
			return nil, err
		}
	}
}

// again returns r with its body ready to be read from the beginning.
func again(r *http.Request) (*http.Request, error) {
	if !hasBody(r) {
		return r, nil
	}
	body, err := r.GetBody()
	if err != nil {
		return nil, err
	}
	r = r.WithContext(r.Context())
	r.Body = body
	return r, nil
}

// open opens a connection to addr for r.
func (t *transport) open(r *http.Request, addr string) (net.Conn, error) {
	switch {
	case r.URL.Scheme == "http":
		return t.connect(r.Context(), t.backend, "tcp", addr, nil)
	case upgrades(r):
		return t.pool.open(r.Context(), t.backend, "tcp", addr, t.upgradeTLS) // spares may speak HTTP/2
	}
	return t.connect(r.Context(), t.backend, "tcp", addr, t.tls)
}

// upgrades reports whether a request asks to switch to another protocol.
func upgrades(r *http.Request) bool { return r.Header.Get("Upgrade") != "" }

// dialAddress returns the host and port of a URL, by which connections are told apart.
func dialAddress(u *url.URL) string {
	port := "443"
	if u.Scheme == "http" {
		port = "80"
	}
	return net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), port))
}

// speaksHTTP2 reports whether the server chose HTTP/2 for an address.
func (t *transport) speaksHTTP2(addr string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.isHTTP2[addr]
}

// learnHTTP2 records whether the server chose HTTP/2 for an address.
func (t *transport) learnHTTP2(addr string, chosen bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !chosen {
		delete(t.isHTTP2, addr)
		return
	}
	if len(t.isHTTP2) >= maxHTTP2Names {
		clear(t.isHTTP2)
	}
	t.isHTTP2[addr] = true
}

// freshConn is the connection that the transport of HTTP/2 takes instead of opening one.
type freshConn struct {
	mu   sync.Mutex
	conn net.Conn // nil once it is taken
}

type freshConnKey struct{}

func (f *freshConn) take() net.Conn {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.conn
	f.conn = nil
	return c
}

// overHTTP2 sends r by net/http's transport. fresh is a new connection for it, or nil.
func (t *transport) overHTTP2(r *http.Request, to progress, fresh net.Conn) (*http.Response, error) {
	ctx := r.Context()
	if fresh != nil {
		f := &freshConn{conn: fresh}
		ctx = context.WithValue(ctx, freshConnKey{}, f)
		defer func() {
			if c := f.take(); c != nil { // another connection had room
				_ = c.Close()
			}
		}()
	}
	trace := &httptrace.ClientTrace{
		GotConn: func(c httptrace.GotConnInfo) { to.connected(connOf(c.Conn), c.Reused) },
		Got1xxResponse: func(status int, h textproto.MIMEHeader) error {
			return to.interim(status, http.Header(h))
		},
	}
	return t.http2.RoundTrip(r.WithContext(httptrace.WithClientTrace(ctx, trace)))
}

// dialHTTP2 opens a connection for net/http's transport. If the server chooses HTTP/1.1, the
// connection becomes an idle one and dialHTTP2 fails with errNotHTTP2.
func (t *transport) dialHTTP2(ctx context.Context, network, addr string) (net.Conn, error) {
	if f, ok := ctx.Value(freshConnKey{}).(*freshConn); ok {
		if c := f.take(); c != nil {
			return c, nil
		}
	}
	c, err := t.connect(ctx, t.backend, network, addr, t.tls)
	if err != nil || connOf(c).http2 {
		return c, err
	}
	t.learnHTTP2(addr, false)
	t.putIdle(newHTTP1Conn(t, c, addr))
	return nil, errNotHTTP2
}

// takeIdle returns an idle connection for addr on which a request may be written, or nil. It closes
// those that it finds unfit.
func (t *transport) takeIdle(addr string) *http1Conn {
	for {
		t.mu.Lock()
		i := len(t.idle) - 1
		for i >= 0 && t.idle[i].addr != addr {
			i--
		}
		if i < 0 {
			t.mu.Unlock()
			return nil
		}
		c := t.idle[i]
		t.idle = slices.Delete(t.idle, i, i+1)
		t.mu.Unlock()
		if c.isFit(time.Now()) {
			return c
		}
		c.close()
	}
}

// putIdle keeps a connection for further requests, or closes it.
func (t *transport) putIdle(c *http1Conn) {
	c.idleSince = time.Now()
	var excess *http1Conn
	t.mu.Lock()
	switch {
	case t.closed:
		excess = c
	case len(t.idle) >= maxIdle:
		excess = t.idle[0]
		t.idle = append(slices.Delete(t.idle, 0, 1), c)
	default:
		t.idle = append(t.idle, c)
	}
	if !t.closed && !t.sweeping {
		t.sweeping = true
		if t.sweeper == nil {
			t.sweeper = time.AfterFunc(sweepInterval, t.sweep)
		} else {
			t.sweeper.Reset(sweepInterval)
		}
	}
	t.mu.Unlock()
	if excess != nil {
		excess.close()
	}
}

// sweep closes the idle connections that the server has closed and those that were idle for too
// long. It runs again as long as there are idle connections.
func (t *transport) sweep() {
	now := time.Now()
	var unfit []*http1Conn
	t.mu.Lock()
	t.idle = slices.DeleteFunc(t.idle, func(c *http1Conn) bool {
		if c.mayBeFit(now) {
			return false
		}
		unfit = append(unfit, c)
		return true
	})
	if t.sweeping = len(t.idle) > 0; t.sweeping {
		t.sweeper.Reset(sweepInterval)
	}
	t.mu.Unlock()
	for _, c := range unfit {
		c.close()
	}
}

// closeIdle closes the idle connections.
func (t *transport) closeIdle() {
	t.mu.Lock()
	idle := t.idle
	t.idle = nil
	t.mu.Unlock()
	for _, c := range idle {
		c.close()
	}
	t.http2.CloseIdleConnections()
}

// close closes the idle connections, and the others as soon as they are idle.
func (t *transport) close() {
	t.mu.Lock()
	t.closed = true
	if t.sweeper != nil {
		t.sweeper.Stop()
	}
	t.mu.Unlock()
	t.closeIdle()
}
