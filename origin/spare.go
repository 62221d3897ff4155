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
// a round trip, and with TLS one or two more. For such a server connections are opened in advance,
// as many as were needed in about the time that it takes to open two, or as the last burst needed.
// What comes in bursts, as the objects of a page, then finds connections that are open, or nearly.

const (
	// maxSpares is how many connections to a server may be open in advance, or on their way.
	maxSpares = 64
	// worthSpares is how long opening a connection has to take. Below, there is little to win, and
	// a server that serves one connection at a time would wait for one that nobody uses.
	worthSpares = 5 * time.Millisecond
	// minSpareWindow is how long ago a connection was needed that counts, at least.
	minSpareWindow = 100 * time.Millisecond
	// burstMemory is for how long a burst tells what the next one will need.
	burstMemory = time.Minute
	// minSpareLife is for how long at least one may be open before it is given up.
	minSpareLife = time.Second
)

// spareConn is a connection that is open in advance, or on its way.
type spareConn struct {
	addr   string
	opened chan struct{} // closed when conn is there, or nil as it can't be had
	conn   net.Conn
	expiry *time.Timer
}

// spares are those of a server.
type spares struct {
	mu               sync.Mutex
	connectionCloses bool // the last response said that its connection ends
	closed           bool
	list             []*spareConn         // the oldest first
	needed           [maxSpares]time.Time // when connections were, a ring
	next             int                  // of needed
	last             time.Time            // when the last one was
	peak             int                  // the most that counted at a time in the burst that is under way
	previousPeak     int                  // and in those before, half as much for each since
	setupTime        time.Duration        // what opening one takes, a moving mean
}

// window is for how long a need of a connection counts: twice what opening one takes. The caller
// holds mu.
func (s *spares) window() time.Duration {
	return max(2*s.setupTime, minSpareWindow)
}

// counts is how many needs count. The caller holds mu.
func (s *spares) recentNeeds(now time.Time) (n int) {
	for _, at := range s.needed {
		if now.Sub(at) < s.window() {
			n++
		}
	}
	return n
}

// want is how many are to be there: as many as were needed lately, or as the burst before needed,
// as a page that has begun will have objects. The caller holds mu.
func (s *spares) target(now time.Time) int {
	n := s.recentNeeds(now)
	if !s.connectionCloses || s.closed || s.setupTime < worthSpares || n == 0 {
		return 0
	}
	return max(n, s.previousPeak)
}

// learn takes whether the connection of a response ends with it.
func (s *spares) learnClose(resp *http.Response) {
	connectionCloses := resp.Close && resp.ProtoMajor == 1
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.connectionCloses = connectionCloses; !connectionCloses && len(s.list) > 0 {
		s.discard(nil)
	}
}

// took takes how long it took to open a connection.
func (s *spares) recordSetup(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.setupTime == 0 {
		s.setupTime = d
	}
	s.setupTime += (d - s.setupTime) / 8
}

// drop gives up one spare, or all if it is nil. The caller holds mu.
func (s *spares) discard(only *spareConn) {
	s.list = slices.DeleteFunc(s.list, func(o *spareConn) bool {
		if only != nil && o != only {
			return false
		}
		o.end()
		return true
	})
}

// end closes a spare, once it is there.
func (o *spareConn) end() {
	o.expiry.Stop()
	select {
	case <-o.opened:
		if o.conn != nil {
			_ = o.conn.Close()
		}
	default:
		go func() { // ends when the connection is there or can't be had, within the time limits for that
			<-o.opened
			if o.conn != nil {
				_ = o.conn.Close()
			}
		}()
	}
}

// close ends all spares, and has no more of them.
func (s *spares) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.discard(nil)
}

// take takes the oldest spare to an address; nil if there is none.
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

// need notes that a connection is needed.
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

// trim ends the oldest spares beyond limit.
func (s *spares) trim(limit int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.list) > max(limit, 0) {
		s.discard(s.list[0])
	}
}

// add makes place for a spare, or returns nil if there are enough. It is given up if nobody needs
// it.
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

// connect gives a request a connection to a server: a spare one, if there is any. Each that is
// needed lets others be opened in advance.
func (p *Pool) connect(ctx context.Context, b *backend, network, addr string, conf *tls.Config) (net.Conn, error) {
	s := &b.spares
	s.need(time.Now())
	conn := s.takeOpen(ctx, addr)
	p.addSpares(b, network, addr, conf)
	if conn != nil {
		return conn, nil
	}
	return p.open(ctx, b, network, addr, conf)
}

// taken takes a connection that is open in advance, or waits for one that is on its way; nil if
// there is none.
func (s *spares) takeOpen(ctx context.Context, addr string) net.Conn {
	for o := s.take(addr); o != nil; o = s.take(addr) {
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

// addSpares opens connections in advance.
func (p *Pool) addSpares(b *backend, network, addr string, conf *tls.Config) {
	p.mu.Lock()
	limit := 0
	if !p.closed && b.up() {
		limit = maxSpares
		if p.MaxConnections > 0 {
			limit = p.MaxConnections - b.inFlight
		}
	}
	p.mu.Unlock()
	b.spares.trim(limit)
	for o := b.spares.add(addr, limit); o != nil; o = b.spares.add(addr, limit) {
		go func() { // ends within the time limits of a connection
			defer close(o.opened)
			o.conn, _ = p.open(context.Background(), b, network, addr, conf) // whoever needs it opens another one, and tells
		}()
	}
}

// isOpen reports whether a server has not closed a connection that nothing was sent on yet.
func isOpen(c net.Conn) bool {
	own := connOf(c)
	return own == nil || hasNoEvents(own, unix.POLLRDHUP) // which shows behind data too, as tickets of TLS are
}
