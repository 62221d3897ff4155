package origin

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Some servers close each connection after its response, so that each request waits for a new one:
// one round trip, and one or two more with TLS. For such a server the pool opens connections in
// advance: as many as were needed in about twice the time that opening one takes, or as many as the
// last burst needed. A burst, such as the objects of a page, then finds connections that are open
// or nearly open.

const (
	// maxSpares is the maximum number of spare connections to a server, open or being opened.
	maxSpares = 64
	// worthSpares is how long opening a connection must take for spares to be worth it. They would
	// hurt a server that handles one connection at a time.
	worthSpares = 5 * time.Millisecond
	// minSpareWindow is the minimum time for which a need for a connection counts.
	minSpareWindow = 100 * time.Millisecond
	// burstMemory is how long the size of a burst predicts the next one.
	burstMemory = time.Minute
	// minSpareLife is the minimum time for which an unused spare connection is kept.
	minSpareLife = time.Second
)

// spareConn is a connection that is open in advance or being opened.
type spareConn struct {
	addr   string
	opened chan struct{} // closed when conn is set, or nil because opening failed
	conn   net.Conn
	expiry *time.Timer
}

// spares are the spare connections to one server.
type spares struct {
	mu               sync.Mutex
	connectionCloses bool // the last response ended its connection
	closed           bool
	list             []*spareConn         // oldest first
	needed           [maxSpares]time.Time // ring buffer of the times when connections were needed
	next             int                  // index into needed
	last             time.Time            // time of the latest need
	peak             int                  // the highest number of recent needs in the current burst
	previousPeak     int                  // the same for earlier bursts; halved with each burst
	// Time to open a connection, as an exponentially weighted moving average.
	setupTime time.Duration
}

// window returns for how long a need counts: twice the time to open a connection, at least
// minSpareWindow. The caller holds mu.
func (s *spares) window() time.Duration {
	return max(2*s.setupTime, minSpareWindow)
}

// recentNeeds returns the number of needs within the window. The caller holds mu.
func (s *spares) recentNeeds(now time.Time) (n int) {
	for _, at := range s.needed {
		if now.Sub(at) < s.window() {
			n++
		}
	}
	return n
}

// target returns the number of spares to have: the recent needs, or the size of the previous burst
// if that is more. The caller holds mu.
func (s *spares) target(now time.Time) int {
	n := s.recentNeeds(now)
	if !s.connectionCloses || s.closed || s.setupTime < worthSpares || n == 0 {
		return 0
	}
	return max(n, s.previousPeak)
}

// learnClose records whether a response ends its connection. If it does not, all spares are closed.
func (s *spares) learnClose(resp *http.Response) {
	connectionCloses := resp.Close && resp.ProtoMajor == 1
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.connectionCloses = connectionCloses; !connectionCloses && len(s.list) > 0 {
		s.discard(nil)
	}
}

// recordSetup records how long opening a connection took.
func (s *spares) recordSetup(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.setupTime == 0 {
		s.setupTime = d
	}
	s.setupTime += (d - s.setupTime) / 8
}

// discard closes one spare, or all if only is nil. The caller holds mu.
func (s *spares) discard(only *spareConn) {
	s.list = slices.DeleteFunc(s.list, func(o *spareConn) bool {
		if only != nil && o != only {
			return false
		}
		o.end()
		return true
	})
}

// end closes the connection in the background: at once, or when it is open.
func (o *spareConn) end() {
	o.expiry.Stop()
	go func() { // ends when opening succeeds or times out
		<-o.opened
		if o.conn != nil {
			_ = o.conn.Close()
		}
	}()
}

// close closes all spares and prevents new ones.
func (s *spares) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.discard(nil)
}

// take removes and returns the oldest spare to addr, or nil.
func (s *spares) take(addr string) *spareConn {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.list, func(o *spareConn) bool { return o.addr == addr })
	if i < 0 {
		return nil
	}
	o := s.list[i]
	s.list = slices.Delete(s.list, i, i+1)
	o.expiry.Stop()
	return o
}

// need records that a connection is needed.
func (s *spares) need(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch idle := now.Sub(s.last); {
	case idle > burstMemory:
		s.peak, s.previousPeak = 0, 0
	case idle > s.window():
		s.peak, s.previousPeak = 0, max(s.peak, s.previousPeak/2)
	}
	s.needed[s.next], s.last = now, now
	s.next = (s.next + 1) % len(s.needed)
	s.peak = max(s.peak, s.recentNeeds(now))
}

// trim closes the oldest spares beyond limit.
func (s *spares) trim(limit int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.list) > max(limit, 0) {
		s.discard(s.list[0])
	}
}

// add returns a new spare for the caller to open, or nil if there are enough. The spare closes
// itself if nobody takes it.
func (s *spares) add(addr string, limit int) *spareConn {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.list) >= min(s.target(time.Now()), limit) {
		return nil
	}
	o := &spareConn{addr: addr, opened: make(chan struct{})}
	o.expiry = time.AfterFunc(s.setupTime+max(minSpareLife, 2*s.window()), func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.discard(o)
	})
	s.list = append(s.list, o)
	return o
}

// connect returns a connection for a request: a spare if there is one, else a new one. It also
// refills the spares.
func (p *Pool) connect(ctx context.Context, b *backend, network, addr string, conf *tls.Config) (net.Conn, error) {
	b.spares.need(time.Now())
	conn := p.openSpare(ctx, b, addr)
	p.addSpares(b, network, addr, conf)
	if conn != nil {
		return conn, nil
	}
	return p.open(ctx, b, network, addr, conf)
}

// openSpare returns a spare connection to addr, waiting for one that is being opened. It returns
// nil if there is none.
func (p *Pool) openSpare(ctx context.Context, b *backend, addr string) net.Conn {
	for o := p.takeSpare(b, addr); o != nil; o = p.takeSpare(b, addr) {
		select {
		case <-o.opened:
			if o.conn != nil && isOpen(o.conn) {
				return o.conn
			}
		case <-ctx.Done():
		}
		o.end()
	}
	return nil
}

// takeSpare returns a spare to addr. It returns nil if there is none, so that the request has to
// open a connection of its own. Spares to other addresses make room for that.
func (p *Pool) takeSpare(b *backend, addr string) *spareConn {
	p.mu.Lock() // addSpares can't add a spare between take and trim
	defer p.mu.Unlock()
	o := b.spares.take(addr)
	if o == nil {
		b.spares.trim(p.spareLimit(b))
	}
	return o
}

// spareLimit returns how many spares there may be besides the requests in flight. The caller holds
// p.mu.
func (p *Pool) spareLimit(b *backend) int {
	switch {
	case p.closed || !b.up():
		return 0
	case p.MaxConnections > 0:
		return min(p.MaxConnections-b.inFlight-b.tunnels, maxSpares)
	}
	return maxSpares
}

// addSpares opens connections in advance. Each request in flight counts as a connection, whether it
// has one or will take a spare, so that there are never more than MaxConnections.
func (p *Pool) addSpares(b *backend, network, addr string, conf *tls.Config) {
	p.mu.Lock()
	defer p.mu.Unlock()
	limit := p.spareLimit(b)
	for o := b.spares.add(addr, limit); o != nil; o = b.spares.add(addr, limit) {
		go func() { // ends when opening succeeds or times out
			defer close(o.opened)
			// A request that needs the connection opens another one and reports the error.
			o.conn, _ = p.open(context.Background(), b, network, addr, conf)
		}()
	}
}

// isOpen reports whether the server still keeps an unused connection open.
func isOpen(c net.Conn) bool {
	own := connOf(c)
	// POLLRDHUP is reported even if unread data, such as TLS session tickets, comes first
	return own == nil || hasNoEvents(own, unix.POLLRDHUP)
}
