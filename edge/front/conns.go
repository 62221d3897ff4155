package front

import (
	"container/list"
	"context"
	"crypto/tls"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// conns counts the connections of clients, in all and by network, and makes room for new ones.
type conns struct {
	max       int // connections in all
	perClient int // connections of one network
	log       *slog.Logger

	refused  prometheus.Counter
	displace prometheus.Counter
	flooding prometheus.Counter

	mu     sync.Mutex
	total  int
	of     map[netip.Prefix]*share
	idle   list.List // of *client; the one that has been idle longest comes first
	logged time.Time // when a refusal was last logged

	tunnels map[*clientConn]bool

	unread atomic.Int64 // how many clients are unread

	underWay underWay
}

func newConns(limit, perClient int, log *slog.Logger) *conns {
	if limit == 0 {
		limit = defaultConns()
	}
	if perClient == 0 {
		perClient = maxConns
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "kaiku_edge_connections_" + name + "_total",
			Help: help})
	}
	return &conns{underWay: newUnderWay(), max: limit, perClient: perClient, log: log, of: map[netip.Prefix]*share{},
		tunnels:  map[*clientConn]bool{},
		refused:  counter("refused", "Connections refused because there were too many, in all or of one client network."),
		displace: counter("displaced", "Idle connections closed to make room for new ones."),
		flooding: counter("flooding", "Connections closed because they only cost: floods of frames, and of requests that are taken back.")}
}

// defaultConns returns half of the files that the process may have open, at most 65,536.
func defaultConns() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 1024
	}
	return int(min(limit.Cur/2, 1<<16))
}

// Describe sends nothing: the collector is unchecked.
func (c *conns) Describe(chan<- *prometheus.Desc) {}

// Collect sends the counts of connections.
func (c *conns) Collect(out chan<- prometheus.Metric) {
	c.mu.Lock()
	total, idle := c.total, c.idle.Len()
	c.mu.Unlock()
	for _, m := range []struct {
		name, help string
		v          int
	}{{"", "Connections of clients.", total}, {"_idle", "Those of them that ask for nothing.", idle},
		{"_max", "How many there may be.", c.max}} {
		out <- prometheus.MustNewConstMetric(prometheus.NewDesc("kaiku_edge_connections"+m.name, m.help, nil, nil),
			prometheus.GaugeValue, float64(m.v))
	}
	for _, counter := range []prometheus.Counter{c.refused, c.displace, c.flooding, c.underWay.refused} {
		out <- counter
	}
}

// clientNetwork returns the network by which a client's connections are counted: an IPv4 address or
// an IPv6 /64. ok is false for loopback, which has no limit.
func clientNetwork(a net.Addr) (netip.Prefix, bool) {
	var ip netip.Addr
	switch a := a.(type) {
	case *net.TCPAddr:
		ip = a.AddrPort().Addr()
	case *net.UDPAddr:
		ip = a.AddrPort().Addr()
	}
	return NetworkOf(ip)
}

// NetworkOf is clientNetwork of an address.
func NetworkOf(ip netip.Addr) (netip.Prefix, bool) {
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

// admit counts a new connection, and closes an idle one if there is no other room. It returns the
// function that takes the count back. It returns false if no further connection is allowed.
func (c *conns) admit(a net.Addr) (release func(), ok bool) {
	network, limited := clientNetwork(a)
	oldest, ok, tell := c.reserve(network, limited)
	if tell {
		c.log.Warn("connections are refused", "client", network, "its_limit", c.perClient, "limit_of_all", c.max)
	}
	if !ok {
		c.refused.Inc()
		return nil, false
	}
	if oldest != nil {
		c.displace.Inc()
		_ = oldest.cut()
	}
	return sync.OnceFunc(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.total--
		if limited {
			n := c.of[network]
			if n.conns--; n.conns == 0 {
				delete(c.of, network)
			}
		}
	}), true
}

// reserve reserves a place for a connection: a free one, or that of the connection that has been
// idle longest. tell reports whether a refusal is to be logged.
func (c *conns) reserve(network netip.Prefix, limited bool) (oldest *client, ok, tell bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if c.total >= c.max {
		oldest = c.oldest(now)
	}
	if limited && c.of[network] != nil && c.of[network].conns >= c.perClient || c.total >= c.max && oldest == nil {
		tell = now.Sub(c.logged) > time.Minute
		if tell {
			c.logged = now
		}
		return nil, false, tell
	}
	if oldest != nil {
		c.setIdle(oldest, false)
	}
	c.total++
	if limited {
		if c.of[network] == nil {
			c.of[network] = &share{}
		}
		c.of[network].conns++
	}
	return oldest, true, false
}

// oldest returns the client that has been idle longest; nil if none is idle. c.mu is held.
func (c *conns) oldest(now time.Time) *client {
	for e := c.idle.Front(); e != nil; e = e.Next() {
		from := e.Value.(*client)
		if from.inLane && now.Sub(from.since) < laneIdle {
			return nil // it may have made a request just now, and so may all that follow
		}
		if !from.busy.Load() {
			return from
		}
	}
	return nil
}

// arrived records that net/http has called a handler for the request that it got, or never will.
func (c *conns) arrived(from *client) {
	if from != nil && from.unread.CompareAndSwap(true, false) {
		c.unread.Add(-1)
	}
}

// count returns how many connections the network of a client has.
func (c *conns) count(a net.Addr) int {
	if n := c.share(a); n != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		return n.conns
	}
	return 0
}

// share returns the share of the network of a connected client, or nil if that has no limit.
func (c *conns) share(a net.Addr) *share {
	prefix, _ := clientNetwork(a)
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.of[prefix]
}

// listener limits the connections that a listener accepts.
func (c *conns) listener(l net.Listener) net.Listener { return &limitedListener{l, c} }

type limitedListener struct {
	net.Listener
	conns *conns
}

// Accept returns the next connection that is admitted.
func (l *limitedListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		release, ok := l.conns.admit(conn.RemoteAddr())
		if !ok {
			conn.Close()
			continue
		}
		out := &clientConn{Conn: conn, conns: l.conns, release: release}
		out.reset = func() {
			if tcp, ok := conn.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0)
			}
		}
		out.cut, out.share, out.own = out.Close, l.conns.share(conn.RemoteAddr()), out
		return out, nil
	}
}

// setIdle sets whether a client has no request under way. c.mu is held.
func (c *conns) setIdle(from *client, idle bool) {
	if from.place != nil {
		c.idle.Remove(from.place)
		from.place = nil
	}
	if idle {
		from.place, from.since = c.idle.PushBack(from), time.Now()
	}
}

// state is the ConnState callback of an http.Server.
func (c *conns) state(conn net.Conn, state http.ConnState) {
	switch h := conn.(type) {
	case *handedOff:
		h.idle.Store(state == http.StateIdle)
	case *handedOffTLS:
		h.idle.Store(state == http.StateIdle)
	}
	cc := asClientConn(conn)
	if cc == nil || state == http.StateClosed {
		return
	}
	if state == http.StateIdle {
		cc.handling.Store(false)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.setIdle(&cc.client, state == http.StateNew || state == http.StateIdle)
	cc.fresh = nil
	if state == http.StateNew {
		cc.fresh = cc
	}
	if state == http.StateHijacked {
		cc.tunnel.Store(true)
		c.tunnels[cc] = true
	}
}

// closeFresh closes the connections that never made a request and have sent nothing since the call
// that returned before. Browsers open connections in advance, and http.Server waits 5 s for each
// when it shuts down. closeFresh returns how many bytes each of them has sent, for the next call.
func (c *conns) closeFresh(before map[*clientConn]int64) map[*clientConn]int64 {
	now := map[*clientConn]int64{}
	var unused []*clientConn
	c.mu.Lock()
	for e := c.idle.Front(); e != nil; e = e.Next() {
		if cc := e.Value.(*client).fresh; cc != nil {
			now[cc] = cc.read.Load()
			if n, ok := before[cc]; ok && n == now[cc] {
				unused = append(unused, cc)
			}
		}
	}
	c.mu.Unlock()
	for _, cc := range unused {
		_ = cc.Close()
	}
	return now
}

// closeTunnels closes the tunnels, which no http.Server tracks any more.
func (c *conns) closeTunnels() {
	c.mu.Lock()
	list := slices.Collect(maps.Keys(c.tunnels))
	c.mu.Unlock()
	for _, t := range list {
		_ = t.Close()
	}
}

// markIdle, begin, finish and forget do for a connection of HTTP/3 or of the hit lane what
// ConnState does for others.
func (c *conns) markIdle(from *client) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.setIdle(from, true)
}

func (c *conns) begin(from *client) {
	if from != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		from.active++
		c.setIdle(from, false)
	}
}

func (c *conns) finish(from *client) {
	if from != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		if from.active--; from.active == 0 {
			c.setIdle(from, true)
		}
	}
}

func (c *conns) forget(from *client) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.setIdle(from, false)
}

// expire closes connections that have been idle for too long. Those of HTTP/1.1 and HTTP/2 end a
// little earlier by themselves. quic-go waits for the rest of a header block as long as its client
// sends pings.
func (c *conns) expire(now time.Time) {
	var old []*client
	c.mu.Lock()
	for e := c.idle.Front(); e != nil; e = c.idle.Front() {
		from := e.Value.(*client)
		if now.Sub(from.since) < IdleTimeout+HeaderTimeout {
			break
		}
		c.setIdle(from, from.busy.Load())
		if from.place == nil {
			old = append(old, from)
		}
	}
	c.mu.Unlock()
	for _, from := range old {
		_ = from.cut()
	}
}

// serve calls expire until ctx ends.
func (c *conns) serve(ctx context.Context) {
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			c.expire(now)
		case <-ctx.Done():
			return
		}
	}
}

func asClientConn(conn net.Conn) *clientConn {
	switch h := conn.(type) {
	case *tls.Conn:
		conn = h.NetConn()
	case *gatheringTLS:
		return h.own
	case *handedOff:
		return h.laneConn.clientConn
	case *handedOffTLS:
		return h.laneConn.clientConn
	}
	cc, _ := conn.(*clientConn)
	return cc
}
