package geodns

import (
	"container/list"
	"net"
	"sync"
	"time"
)

// tcpLimits bounds the TCP connections of a server.
type tcpLimits struct {
	total   int // open connections
	network int // open connections per client network
	// A network with more connections than this is the first to lose one.
	heavy int

	// Time for a whole query to arrive. RFC 7766 section 6.2.3 recommends a few seconds.
	idle      time.Duration
	keepalive time.Duration // like idle, for clients that ask for the time (RFC 7828)
	busy      time.Duration // like idle, while half of the connections are taken
	// Maximum age of a connection while half of the connections are taken.
	age time.Duration
}

func defaultTCPLimits() tcpLimits {
	return tcpLimits{total: 1024, network: 128, heavy: 32,
		idle: 10 * time.Second, keepalive: 30 * time.Second, busy: time.Second, age: 30 * time.Second}
}

// tcpConns are the open connections. There is always room for one more, because the longest idle
// connection is closed to make room. Idle time counts from a connection's last query, or from its
// opening. A flood of connections without queries therefore doesn't displace clients that send
// queries.
//
// A network at its limit makes room with a connection of its own. If there are too many connections
// in total, the network with the most makes room, if it has more than tcpLimits.heavy, because
// connections that only look busy come from few networks. Otherwise the longest idle connection of
// all is closed.
type tcpConns struct {
	limits tcpLimits

	mu       sync.Mutex // guards the fields below
	clock    uint64     // increases with each query and each connection
	open     int
	networks map[uint64]*list.List // lists of *tcpConn, the longest idle in front
}

// tcpConn is a connection and the client network that it comes from.
type tcpConn struct {
	net.Conn
	network uint64
	since   uint64        // clock at its last query; guarded by tcpConns.mu, like at
	at      *list.Element // nil once the connection is removed
}

func newTCPConns(limits tcpLimits) *tcpConns {
	return &tcpConns{limits: limits, networks: make(map[uint64]*list.List)}
}

// enter adds a connection. shed reports whether another one was closed to make room.
func (t *tcpConns) enter(conn net.Conn, network uint64) (c *tcpConn, shed bool) {
	c = &tcpConn{Conn: conn, network: network}
	t.mu.Lock()
	defer t.mu.Unlock()
	var victim *tcpConn
	switch conns := t.networks[network]; {
	case conns != nil && conns.Len() >= t.limits.network:
		victim = longestIdle(conns)
	case t.open >= t.limits.total:
		victim = t.victim()
	}
	if victim != nil {
		t.remove(victim)
		_ = victim.Close() // ends its goroutine
	}
	if t.networks[network] == nil {
		t.networks[network] = list.New()
	}
	t.clock++
	c.since = t.clock
	c.at = t.networks[network].PushBack(c)
	t.open++
	return c, victim != nil
}

// victim returns the connection to close when there are too many in total.
func (t *tcpConns) victim() *tcpConn {
	var idle, heavy *tcpConn
	most := t.limits.heavy
	for _, conns := range t.networks {
		c := longestIdle(conns)
		if idle == nil || c.since < idle.since {
			idle = c
		}
		if n := conns.Len(); n > most || heavy != nil && n == most && c.since < heavy.since {
			heavy, most = c, n
		}
	}
	if heavy != nil {
		return heavy
	}
	return idle
}

func longestIdle(conns *list.List) *tcpConn { return conns.Front().Value.(*tcpConn) }

// active records that a query has arrived on c. It reports whether there are many connections.
func (t *tcpConns) active(c *tcpConn) (crowded bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c.at != nil {
		t.clock++
		c.since = t.clock
		t.networks[c.network].MoveToBack(c.at)
	}
	return t.open > t.limits.total/2
}

// leave removes a connection.
func (t *tcpConns) leave(c *tcpConn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.remove(c)
}

func (t *tcpConns) remove(c *tcpConn) {
	if c.at == nil {
		return
	}
	conns := t.networks[c.network]
	conns.Remove(c.at)
	c.at = nil
	t.open--
	if conns.Len() == 0 {
		delete(t.networks, c.network)
	}
}

// crowded reports whether half of the connections are taken.
func (t *tcpConns) crowded() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.open > t.limits.total/2
}
