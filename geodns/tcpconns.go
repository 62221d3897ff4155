package geodns

import (
	"container/list"
	"net"
	"sync"
	"time"
)

// tcpLimits bounds the TCP connections of a server.
type tcpLimits struct {
	total   int // connections at a time
	network int // of one client network
	heavy   int // a network that has more than so many loses one of its own first

	idle      time.Duration // for a query to come whole (RFC 7766 section 6.2.3: on the order of seconds)
	keepalive time.Duration // the same, for clients that ask how long it is (RFC 7828)
	busy      time.Duration // the same, when half of the connections are taken
	age       time.Duration // for how long a connection may be used at all, when half of them are taken
}

func defaultTCPLimits() tcpLimits {
	return tcpLimits{total: 1024, network: 128, heavy: 32,
		idle: 10 * time.Second, keepalive: 30 * time.Second, busy: time.Second, age: 30 * time.Second}
}

// tcpConns are the connections that are open. There is always room for one more: the one that has
// been idle for longest makes it, since its last query or since it was opened. A flood of
// connections that ask nothing so costs no honest client its turn.
//
// A network that is at its limit makes the room itself. Where there are too many in all, that is
// the network with the most, if it has many: connections that look busy come from few networks. If
// none has many, the longest idle one of all goes.
type tcpConns struct {
	limits tcpLimits

	mu       sync.Mutex // guards all below
	clock    uint64     // increased with each query and each connection
	open     int
	networks map[uint64]*list.List // of *tcpConn, the longest idle in front
}

// tcpConn is a connection of a client network.
type tcpConn struct {
	net.Conn
	network uint64
	since   uint64        // the clock at its last query; guarded by tcpConns.mu, as is at
	at      *list.Element // nil when it no longer counts
}

func newTCPConns(limits tcpLimits) *tcpConns {
	return &tcpConns{limits: limits, networks: make(map[uint64]*list.List)}
}

// enter takes a connection in. It reports whether another was closed for it.
func (t *tcpConns) enter(conn net.Conn, network uint64) (c *tcpConn, shed bool) {
	c = &tcpConn{Conn: conn, network: network}
	t.mu.Lock()
	defer t.mu.Unlock()
	var victim *tcpConn
	switch own := t.networks[network]; {
	case own != nil && own.Len() >= t.limits.network:
		victim = longestIdle(own)
	case t.open >= t.limits.total:
		victim = t.victim()
	}
	if victim != nil {
		t.remove(victim)
		_ = victim.Close() // its goroutine ends
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

// victim is the connection that makes room.
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

// active notes that a query has come, and reports whether there are many connections.
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

// leave no longer counts a connection.
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
