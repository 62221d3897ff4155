package front

import (
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"slices"
	"sync"
)

const (
	// maxPeerConns is how many connections another edge may have. A further one closes the oldest,
	// which may be left over from an outage.
	maxPeerConns = 8
	// maxPeerStreams is how many requests may be under way on one connection.
	maxPeerStreams = 1000
	// maxPeerEarly is how many connections of one IPv4 address or IPv6 /64 may be in their
	// handshake; maxPeerWaiting is how many in all. Anyone can find the port.
	maxPeerEarly   = 64
	maxPeerWaiting = 1024
)

// peerListener accepts the TLS connections of other edges, and limits how many there are.
type peerListener struct {
	net.Listener
	conf *tls.Config
	// serveHTTP2, if not nil, serves the connections over HTTP/2, in place of the caller of Accept.
	serveHTTP2 func(*tls.Conn)
	ctx        context.Context // ends with Close
	end        context.CancelFunc
	ready      chan accepted
	work       sync.WaitGroup

	mu      sync.Mutex
	early   map[netip.Prefix]int // connections in their handshake, by network
	waiting int                  // the sum of early
	nodes   map[string][]net.Conn
}

// accepted is a result of Accept.
type accepted struct {
	conn *tls.Conn // nil with an error, and if the other side is no edge
	err  error
}

// newPeerListener makes a listener that accepts connections from now on. serveHTTP2 may be nil.
func newPeerListener(l net.Listener, conf *tls.Config, serveHTTP2 func(*tls.Conn)) *peerListener {
	p := &peerListener{Listener: l, conf: conf, serveHTTP2: serveHTTP2, ready: make(chan accepted),
		early: map[netip.Prefix]int{}, nodes: map[string][]net.Conn{}}
	p.ctx, p.end = context.WithCancel(context.Background())
	p.work.Go(p.serve)
	return p
}

// Accept returns the next connection that has completed its handshake.
func (p *peerListener) Accept() (net.Conn, error) {
	select {
	case a := <-p.ready:
		if a.err != nil {
			return nil, a.err
		}
		return a.conn, nil
	case <-p.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Close closes the listener, ends the handshakes, and waits for them.
func (p *peerListener) Close() error {
	p.end()
	err := p.Listener.Close()
	p.work.Wait()
	return err
}

func (p *peerListener) serve() {
	for p.ctx.Err() == nil {
		c, err := p.Listener.Accept()
		if err != nil {
			p.give(accepted{err: err})
			continue
		}
		network := peerNetwork(c.RemoteAddr())
		if !p.begin(network) {
			c.Close()
			continue
		}
		p.work.Go(func() {
			a := p.handshake(c)
			p.settled(network)
			switch {
			case a.conn == nil:
			case p.serveHTTP2 != nil && a.conn.ConnectionState().NegotiatedProtocol == "h2":
				go p.serveHTTP2(a.conn) // p.work ends with the handshakes
			case !p.give(a):
				a.conn.Close()
			}
		})
	}
}

// give passes a result to Accept. It reports false if the listener is closed.
func (p *peerListener) give(a accepted) bool {
	select {
	case p.ready <- a:
		return true
	case <-p.ctx.Done():
		return false
	}
}

// handshake does the TLS handshake. The result has no connection if the other side is no edge.
func (p *peerListener) handshake(c net.Conn) accepted {
	ctx, cancel := context.WithTimeout(p.ctx, HeaderTimeout)
	defer cancel()
	peer := &peerConn{Conn: c, listener: p}
	secure := tls.Server(peer, p.conf)
	if err := secure.HandshakeContext(ctx); err != nil {
		secure.Close()
		return accepted{}
	}
	if certs := secure.ConnectionState().PeerCertificates; len(certs) > 0 {
		peer.node = certs[0].Subject.CommonName
	}
	p.join(peer)
	return accepted{conn: secure}
}

// peerNetwork returns the network by which connections in their handshake are counted.
func peerNetwork(a net.Addr) netip.Prefix {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	ip := tcp.AddrPort().Addr().Unmap().WithZone("")
	network, _ := ip.Prefix(min(ip.BitLen(), 64))
	return network
}

func (p *peerListener) begin(network netip.Prefix) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiting >= maxPeerWaiting || p.early[network] >= maxPeerEarly {
		return false
	}
	p.early[network]++
	p.waiting++
	return true
}

// settled counts a handshake of a network as over.
func (p *peerListener) settled(network netip.Prefix) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiting--
	if p.early[network]--; p.early[network] == 0 {
		delete(p.early, network)
	}
}

// join adds a connection of an edge, and closes its oldest if there are too many.
func (p *peerListener) join(c *peerConn) {
	p.mu.Lock()
	list := append(p.nodes[c.node], c)
	p.nodes[c.node] = list
	p.mu.Unlock()
	if len(list) > maxPeerConns {
		list[0].Close()
	}
}

// peerConn is a connection of another edge.
type peerConn struct {
	net.Conn
	listener *peerListener
	node     string
}

// Close closes the connection.
func (c *peerConn) Close() error {
	p := c.listener
	p.mu.Lock()
	list := slices.DeleteFunc(slices.Clone(p.nodes[c.node]), func(other net.Conn) bool { return other == c })
	if p.nodes[c.node] = list; len(list) == 0 {
		delete(p.nodes, c.node)
	}
	p.mu.Unlock()
	return c.Conn.Close()
}
