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

// Limits of a TTL. Entries of /etc/hosts have none, and a TTL of 0 must not cause a query for each
// request.
const (
	defaultTTL = 30 * time.Second
	minTTL     = time.Second
	maxTTL     = time.Hour
	retryTTL   = 5 * time.Second // after a failed lookup
)

// resolver keeps the addresses of a server's name. It re-resolves the name when the TTL expires. If
// a lookup fails, it keeps the previous addresses.
type resolver struct {
	host       string
	nameserver string
	log        *slog.Logger
	onChange   func()        // called when the addresses change
	ready      chan struct{} // closed after the first lookup

	mu    sync.Mutex
	addrs []netip.Addr
	err   error
	next  int // index into addrs, for round-robin
}

// refresh re-resolves the name until ctx ends.
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
			n.log.Info("the addresses of the origin's name have changed", "name", n.host, "addresses", addrs)
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

// addresses returns the addresses in the order in which to try them. Each call starts with the next
// address. It waits for the first lookup.
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

// interleave orders addrs so that address families alternate, IPv6 first (RFC 8305, section 4).
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

// lookup resolves the name with Go's resolver, which also reads /etc/hosts. It takes the TTL from
// the DNS messages as they pass.
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

// minTTLSeen is the smallest TTL in the DNS answers seen.
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

// observe records the TTLs of a DNS message. It ignores messages that it can't parse; the resolver
// reports those.
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

// udpConn is a UDP connection to a DNS server that observes TTLs.
type udpConn struct {
	*net.UDPConn // the resolver uses net.PacketConn to tell UDP from TCP
	seenTTL      *minTTLSeen
}

// Read reads one message.
func (d *udpConn) Read(b []byte) (int, error) {
	n, err := d.UDPConn.Read(b)
	if err == nil {
		d.seenTTL.observe(b[:n])
	}
	return n, err
}

// tcpConn is a TCP connection to a DNS server that observes TTLs. The resolver reads the two bytes
// of the length first, then the message.
type tcpConn struct {
	net.Conn
	seenTTL *minTTLSeen
	msg     []byte
}

// Read reads a part of a message. It observes the message once it is complete.
func (s *tcpConn) Read(b []byte) (int, error) {
	n, err := s.Conn.Read(b)
	s.msg = append(s.msg, b[:n]...)
	if len(s.msg) > 2 && len(s.msg) >= 2+(int(s.msg[0])<<8|int(s.msg[1])) {
		s.seenTTL.observe(s.msg[2:])
		s.msg = nil
	}
	return n, err
}

// attemptDelay is how long dialAll waits for an address before it also tries the next one (RFC
// 8305, section 5).
const attemptDelay = 250 * time.Millisecond

// dialAll connects to the first address that accepts (RFC 8305). It tries further addresses in
// parallel while the first ones don't answer.
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
				go func() { // the other attempts end with ctx
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
