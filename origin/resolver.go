package origin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// What an answer's TTL is taken as: /etc/hosts has none, and a TTL of 0 must not make a storm.
const (
	defaultTTL = 30 * time.Second
	minTTL     = time.Second
	maxTTL     = time.Hour
	retryTTL   = 5 * time.Second // after a failure
)

// names are the addresses of a server's name, which are asked for again when the TTL of the answer
// is over. What was known stays in use as long as nobody answers.
type resolver struct {
	host       string
	nameserver string
	log        *slog.Logger
	onChange   func()        // called when the addresses change
	ready      chan struct{} // closed once there was an answer or a failure

	mu    sync.Mutex
	addrs []netip.Addr
	err   error
	next  int // of addrs, which are used in turn
}

// refresh keeps the addresses until ctx ends.
func (n *resolver) refresh(ctx context.Context) {
	for first := true; ; first = false {
		addrs, ttl, err := n.lookup(ctx)
		if ctx.Err() != nil && !first {
			return
		}
		slices.SortFunc(addrs, netip.Addr.Compare)
		n.mu.Lock()
		changed := err == nil && n.addrs != nil && !slices.Equal(addrs, n.addrs)
		if n.err = err; err == nil {
			n.addrs = addrs
		} else {
			ttl = retryTTL
		}
		n.mu.Unlock()
		if changed {
			n.log.Info("origin's name has other addresses", "name", n.host, "addresses", addrs)
			n.onChange()
		}
		if first {
			close(n.ready)
		}
		t := time.NewTimer(ttl)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return
		}
	}
}

// addresses returns the addresses of the name in the order in which to try them: another one first
// each time.
func (n *resolver) addresses(ctx context.Context) ([]netip.Addr, error) {
	select {
	case <-n.ready:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.addrs) == 0 {
		return nil, n.err
	}
	n.next = (n.next + 1) % len(n.addrs)
	return interleave(slices.Concat(n.addrs[n.next:], n.addrs[:n.next])), nil
}

// interleave orders addresses so that the families take turns, IPv6 first (RFC 8305, 4).
func interleave(addrs []netip.Addr) []netip.Addr {
	var six, four, out []netip.Addr
	for _, a := range addrs {
		if a.Is4() || a.Is4In6() {
			four = append(four, a)
		} else {
			six = append(six, a)
		}
	}
	for i := range max(len(six), len(four)) {
		out = append(out, six[min(i, len(six)):min(i+1, len(six))]...)
		out = append(out, four[min(i, len(four)):min(i+1, len(four))]...)
	}
	return out
}

// lookup asks the system's resolver, /etc/hosts included, and reads the TTL off the messages on
// their way.
func (n *resolver) lookup(ctx context.Context) (addrs []netip.Addr, ttl time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	seenTTL := &minTTLSeen{}
	r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
		if n.nameserver != "" {
			addr = n.nameserver
		}
		c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		if _, ok := c.(net.PacketConn); ok {
			return &udpConn{c.(*net.UDPConn), seenTTL}, nil
		}
		return &tcpConn{Conn: c, seenTTL: seenTTL}, nil
	}}
	addrs, err = r.LookupNetIP(ctx, "ip", n.host)
	if err != nil {
		return nil, 0, fmt.Errorf("look up the origin's name: %w", err)
	}
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	return addrs, seenTTL.ttl(), nil
}

// ttls is the smallest TTL of the answers that came.
type minTTLSeen struct {
	mu  sync.Mutex
	any bool
	min time.Duration
}

func (t *minTTLSeen) ttl() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.any {
		return defaultTTL
	}
	return min(max(t.min, minTTL), maxTTL)
}

// see reads a message. What can't be parsed is the resolver's to complain of.
func (t *minTTLSeen) observe(msg []byte) {
	var p dnsmessage.Parser
	if _, err := p.Start(msg); err != nil {
		return
	}
	if err := p.SkipAllQuestions(); err != nil {
		return
	}
	for {
		h, err := p.AnswerHeader()
		if err != nil || p.SkipAnswer() != nil {
			return
		}
		ttl := time.Duration(h.TTL) * time.Second
		t.mu.Lock()
		if !t.any || ttl < t.min {
			t.any, t.min = true, ttl
		}
		t.mu.Unlock()
	}
}

// datagrams is a UDP connection to a name server.
type udpConn struct {
	*net.UDPConn // the resolver tells UDP from TCP by net.PacketConn
	seenTTL      *minTTLSeen
}

// Read reads a message.
func (d *udpConn) Read(b []byte) (int, error) {
	n, err := d.UDPConn.Read(b)
	if err == nil {
		d.seenTTL.observe(b[:n])
	}
	return n, err
}

// stream is a TCP connection to a name server. The resolver reads a message's two bytes of length,
// and then the message.
type tcpConn struct {
	net.Conn
	seenTTL *minTTLSeen
	msg     []byte
}

// Read reads a part of a message.
func (s *tcpConn) Read(b []byte) (int, error) {
	n, err := s.Conn.Read(b)
	s.msg = append(s.msg, b[:n]...)
	if len(s.msg) > 2 && len(s.msg) >= 2+(int(s.msg[0])<<8|int(s.msg[1])) {
		s.seenTTL.observe(s.msg[2:])
		s.msg = nil
	}
	return n, err
}

// attemptDelay is how long an address has before the next one is tried beside it (RFC 8305, 5).
const attemptDelay = 250 * time.Millisecond

// dialAll connects to the first of several addresses that takes the connection (RFC 8305).
func dialAll(ctx context.Context, network string, addrs []netip.Addr, port string) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type dialResult struct {
		conn net.Conn
		err  error
	}
	results := make(chan dialResult, len(addrs))
	var errs []error
	pending := 0
	for {
		var next <-chan time.Time
		if len(addrs) > 0 {
			addr := net.JoinHostPort(addrs[0].String(), port)
			addrs = addrs[1:]
			pending++
			go func() {
				c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
				results <- dialResult{c, err}
			}()
		}
		if len(addrs) > 0 {
			t := time.NewTimer(attemptDelay)
			defer t.Stop()
			next = t.C
		}
		select {
		case <-next:
		case d := <-results:
			pending--
			if d.err == nil {
				go func() { // the others end with the context
					for range pending {
						if d := <-results; d.conn != nil {
							d.conn.Close()
						}
					}
				}()
				return d.conn, nil
			}
			errs = append(errs, d.err)
			if pending == 0 && len(addrs) == 0 {
				return nil, errors.Join(errs...)
			}
		}
	}
}
