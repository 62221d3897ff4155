package edge

import (
	"container/list"
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Bounds of what one connection may do without asking for anything.
const (
	freeBytes   = 1 << 20  // that it may send beside its requests: frames that only cost time (pings, settings, empty ones)
	requestFree = 1 << 20  // more for each request, which covers a body that nobody reads
	resetsFree  = 100      // requests that it may take back at once
	resetBytes  = 64 << 10 // a request counts as taken back at once if less of a body had been sent
)

// conns counts the connections of clients, in all and by network, and makes room for new ones.
type conns struct {
	max int // in all
	log *slog.Logger

	refused  prometheus.Counter
	displace prometheus.Counter
	flooding prometheus.Counter

	mu     sync.Mutex
	total  int
	of     map[netip.Prefix]int
	idle   list.List // of *clientConn; who has waited longest comes first
	logged time.Time // when something was logged last
}

func newConns(limit int, log *slog.Logger) *conns {
	if limit == 0 {
		limit = defaultConns()
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "kaiku_edge_connections_" + name + "_total", Help: help})
	}
	return &conns{max: limit, log: log, of: map[netip.Prefix]int{},
		refused:  counter("refused", "Connections refused because there were too many, in all or of one client network."),
		displace: counter("displaced", "Idle connections closed to make room for new ones."),
		flooding: counter("flooding", "Connections closed because they only cost: floods of frames, and of requests that are taken back.")}
}

// defaultConns is half of the files that the process may have open, 65,536 at most.
func defaultConns() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 1024
	}
	return int(min(limit.Cur/2, 1<<16))
}

// Describe sends nothing: the collector is unchecked.
func (c *conns) Describe(chan<- *prometheus.Desc) {}

// Collect tells how many connections there are.
func (c *conns) Collect(out chan<- prometheus.Metric) {
	c.mu.Lock()
	total, idle := c.total, c.idle.Len()
	c.mu.Unlock()
	for _, m := range []struct {
		name, help string
		v          int
	}{{"", "Connections of clients.", total}, {"_idle", "Those of them that ask for nothing, QUIC aside.", idle}, {"_max", "How many there may be.", c.max}} {
		out <- prometheus.MustNewConstMetric(prometheus.NewDesc("kaiku_edge_connections"+m.name, m.help, nil, nil), prometheus.GaugeValue, float64(m.v))
	}
	for _, counter := range []prometheus.Counter{c.refused, c.displace, c.flooding} {
		out <- counter
	}
}

// clientNetwork is what connections are counted by: an IPv4 address or an IPv6 /64; ok is false for loopback, which is not limited.
func clientNetwork(a net.Addr) (netip.Prefix, bool) {
	var ip netip.Addr
	switch a := a.(type) {
	case *net.TCPAddr:
		ip = a.AddrPort().Addr()
	case *net.UDPAddr:
		ip = a.AddrPort().Addr()
	}
	ip = ip.Unmap()
	if !ip.IsValid() || ip.IsLoopback() {
		return netip.Prefix{}, false
	}
	bits := 32
	if ip.Is6() {
		bits = 64
	}
	p, err := ip.Prefix(bits)
	return p, err == nil
}

// take counts a new connection, if there may be one more, and returns what takes it back. An idle one is closed if there is no other room.
func (c *conns) take(a net.Addr) (release func(), ok bool) {
	network, limited := clientNetwork(a)
	c.mu.Lock()
	var oldest *clientConn
	full := c.total >= c.max
	if e := c.idle.Front(); full && e != nil {
		oldest = e.Value.(*clientConn)
		c.idle.Remove(e)
		oldest.place = nil
	}
	if limited && c.of[network] >= maxConns || full && oldest == nil {
		if oldest != nil { // it may stay
			oldest.place = c.idle.PushFront(oldest)
		}
		if now := time.Now(); now.Sub(c.logged) > time.Minute {
			c.logged = now
			c.log.Warn("connections are refused", "client", network, "its_connections", c.of[network], "limit", maxConns, "all", c.total, "limit_of_all", c.max)
		}
		c.mu.Unlock()
		c.refused.Inc()
		return nil, false
	}
	c.total++
	if limited {
		c.of[network]++
	}
	c.mu.Unlock()
	if oldest != nil {
		c.displace.Inc()
		oldest.Close()
	}
	return sync.OnceFunc(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.total--
		if limited {
			if c.of[network]--; c.of[network] == 0 {
				delete(c.of, network)
			}
		}
	}), true
}

// count is how many connections the network of a client has.
func (c *conns) count(a net.Addr) int {
	network, _ := clientNetwork(a)
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.of[network]
}

// listener limits the connections that a listener accepts.
func (c *conns) listener(l net.Listener) net.Listener { return &limitedListener{l, c} }

type limitedListener struct {
	net.Listener
	conns *conns
}

// Accept returns the next connection that there is room for.
func (l *limitedListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		release, ok := l.conns.take(conn.RemoteAddr())
		if !ok {
			conn.Close()
			continue
		}
		out := &clientConn{Conn: conn, conns: l.conns, release: release}
		out.cut = out.Close
		return out, nil
	}
}

// client is the far end of a connection, and what it did so far.
type client struct {
	requests, resets atomic.Int64
	credit           atomic.Int64 // bytes that it may have sent for what it asked
	cut              func() error
}

// clientConn is a TCP connection of a client, below TLS.
type clientConn struct {
	net.Conn
	client
	conns      *conns
	release    func()
	read, sent atomic.Int64
	tunnel     atomic.Bool   // it is no HTTP any more
	place      *list.Element // in the list of idle ones; guarded by conns.mu
}

// Read reads, and ends a connection that sends much and asks for little (RFC 9113, 10.5). What is acknowledged costs the client as much as the edge.
func (c *clientConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if read := c.read.Add(int64(n)); read > freeBytes && read > freeBytes+c.credit.Load()+c.sent.Load()/4 && !c.tunnel.Load() {
		c.conns.flooding.Inc()
		c.conns.log.Debug("connection closed: it sends much and asks for little", "client", c.RemoteAddr(), "bytes", read, "requests", c.requests.Load())
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
	c.conns.move(c, false)
	c.release()
	return c.Conn.Close()
}

// move notes whether a connection is idle.
func (c *conns) move(conn *clientConn, idle bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if conn.place != nil {
		c.idle.Remove(conn.place)
		conn.place = nil
	}
	if idle {
		conn.place = c.idle.PushBack(conn)
	}
}

// state is an http.Server's ConnState.
func (c *conns) state(conn net.Conn, state http.ConnState) {
	if own := asClientConn(conn); own != nil && state != http.StateClosed {
		c.move(own, state == http.StateNew || state == http.StateIdle)
		own.tunnel.Store(state == http.StateHijacked)
	}
}

func asClientConn(conn net.Conn) *clientConn {
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	own, _ := conn.(*clientConn)
	return own
}

// clientKey is the key of a request's *client in its context.
type clientKey struct{}

func withClient(ctx context.Context, conn net.Conn) context.Context {
	if own := asClientConn(conn); own != nil {
		return context.WithValue(ctx, clientKey{}, &own.client)
	}
	return ctx
}

// ask counts a request. The client is nil if its connection is not limited.
func (c *client) ask() {
	if c != nil {
		c.requests.Add(1)
		c.credit.Add(requestFree)
	}
}

// answered looks at how a request ended: a client that takes most of its requests back at once only costs (CVE-2023-44487), and its connection is ended.
func (c *client) answered(r *http.Request, bytes int64, flooding prometheus.Counter) {
	if c == nil || r.ProtoMajor < 2 || r.Context().Err() == nil || bytes >= resetBytes {
		return
	}
	if n := c.resets.Add(1); n > resetsFree && 2*n > c.requests.Load() {
		flooding.Inc()
		_ = c.cut()
	}
}
