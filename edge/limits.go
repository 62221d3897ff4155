package edge

import (
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

const (
	headerTimeout  = 10 * time.Second // for a request's header block
	idleTimeout    = 2 * time.Minute  // of a connection between requests
	bodyTimeout    = time.Minute      // for the next bytes of a request's body
	sendTimeout    = time.Minute      // for a client to take 256 KiB at most
	maxHeaderBytes = 64 << 10         // of a request; more is answered with 431
	maxFields      = 200              // header lines of a request; more are answered with 431
	maxURL         = 8 << 10          // bytes of a request target; a longer one is answered with 414
	maxConns       = 1024             // of one client network: an IPv4 address or an IPv6 /64; loopback is not limited
	drainTimeout   = 30 * time.Second // for what is under way when the edge stops
)

// clientLimit is a listener that bounds the connections of one client.
type clientLimit struct {
	net.Listener
	log *slog.Logger

	mu     sync.Mutex
	conns  map[netip.Prefix]int
	logged time.Time // when a refusal was logged last
}

func limitClients(l net.Listener, log *slog.Logger) *clientLimit {
	return &clientLimit{Listener: l, log: log, conns: map[netip.Prefix]int{}}
}

// Accept returns the next connection of a client that has not too many.
func (l *clientLimit) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		client, ok := clientNetwork(c.RemoteAddr())
		if !ok {
			return c, nil
		}
		if l.take(client) {
			return &limitedConn{Conn: c, limit: l, client: client}, nil
		}
		c.Close()
	}
}

// clientNetwork is what connections are counted by; ok is false for one that is not limited.
func clientNetwork(a net.Addr) (netip.Prefix, bool) {
	tcp, ok := a.(*net.TCPAddr)
	if !ok || tcp.IP.IsLoopback() {
		return netip.Prefix{}, false
	}
	ip := tcp.AddrPort().Addr().Unmap()
	bits := 32
	if ip.Is6() {
		bits = 64
	}
	p, err := ip.Prefix(bits)
	return p, err == nil
}

func (l *clientLimit) take(client netip.Prefix) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conns[client] < maxConns {
		l.conns[client]++
		return true
	}
	if now := time.Now(); now.Sub(l.logged) > time.Minute {
		l.logged = now
		l.log.Warn("connections of a client are refused: it has too many", "client", client, "limit", maxConns)
	}
	return false
}

func (l *clientLimit) release(client netip.Prefix) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conns[client]--; l.conns[client] == 0 {
		delete(l.conns, client)
	}
}

type limitedConn struct {
	net.Conn
	limit  *clientLimit
	client netip.Prefix
	once   sync.Once
}

// Close closes the connection and gives its place back.
func (c *limitedConn) Close() error {
	c.once.Do(func() { c.limit.release(c.client) })
	return c.Conn.Close()
}

// timedBody is a request's body whose client has to go on sending.
type timedBody struct {
	io.ReadCloser
	control *http.ResponseController
}

// Read waits at most bodyTimeout. At the end the deadline is taken back, because the server goes on reading the connection.
func (b *timedBody) Read(p []byte) (int, error) {
	// A connection without deadlines has none to overrun.
	_ = b.control.SetReadDeadline(time.Now().Add(bodyTimeout))
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		_ = b.control.SetReadDeadline(time.Time{})
	}
	return n, err
}

// Close ends the body.
func (b *timedBody) Close() error {
	_ = b.control.SetReadDeadline(time.Time{})
	return b.ReadCloser.Close()
}
