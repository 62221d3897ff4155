package geodns

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	maxTCP           = 1024             // connections at a time; the kernel's backlog holds the next ones
	maxTCPClient     = maxTCP / 8       // of one client network; more are closed
	idleTimeout      = 10 * time.Second // for a query to come whole (RFC 7766 section 6.2.3: on the order of seconds)
	keepaliveTimeout = 30 * time.Second // the same, for clients that ask how long it is (RFC 7828)
	busyTimeout      = time.Second      // the same, when half of the connections are taken
	busyAge          = 30 * time.Second // for how long a connection may be used at all, when half of them are taken
)

// serveTCP answers connections until the listener is closed, and then ends those there are.
func (s *Server) serveTCP(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var conns sync.WaitGroup
	defer conns.Wait()
	defer cancel()
	slots := make(chan struct{}, maxTCP)
	busy := func() bool { return len(slots) > maxTCP/2 }
	clients := tcpClients{open: make(map[uint64]int)}
	for {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		conn, err := s.tcp.AcceptTCP()
		switch {
		case errors.Is(err, net.ErrClosed):
			return nil
		case err != nil && retryAccept(ctx, err):
			<-slots
			continue
		case err != nil:
			return fmt.Errorf("geodns: accept: %w", err)
		}
		from := conn.RemoteAddr().(*net.TCPAddr).AddrPort()
		network := networkOf(from.Addr().Unmap())
		if !clients.enter(network) {
			conn.Close()
			<-slots
			continue
		}
		conns.Go(func() {
			defer func() { clients.leave(network); <-slots }()
			s.serveConn(ctx, conn, from, busy)
		})
	}
}

// tcpClients counts the connections of each client network (RFC 7766 section 6.2.2: a server may limit them by client).
type tcpClients struct {
	mu   sync.Mutex // guards open
	open map[uint64]int
}

func (c *tcpClients) enter(network uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open[network] == maxTCPClient {
		return false
	}
	c.open[network]++
	return true
}

func (c *tcpClients) leave(network uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open[network]--; c.open[network] == 0 {
		delete(c.open, network)
	}
}

// retryAccept waits a little after an error that passes, such as too many open files or a connection that was gone before
// it was accepted.
func retryAccept(ctx context.Context, err error) bool {
	var passing interface{ Temporary() bool }
	if !errors.As(err, &passing) || !passing.Temporary() {
		return false
	}
	select {
	case <-time.After(10 * time.Millisecond):
	case <-ctx.Done():
	}
	return true
}

// session is what the queries of one connection have in common.
type session struct {
	busy      bool // there are many connections
	keepalive bool // the client has asked for how long the connection stays open
}

// timeout is for how long the connection stays open without a query: what clients are told, and what is done.
func (s *session) timeout() time.Duration {
	switch {
	case s.busy:
		return busyTimeout
	case s.keepalive:
		return keepaliveTimeout
	}
	return idleTimeout
}

// serveConn answers the queries of a connection one after the other, which bounds what is in flight; queries that came
// together are answered in one write (RFC 7766 section 6.2.1.1). An answer is computed without waiting for anything, so that
// none is held up by one before it, and there is nothing to gain from giving them in another order (section 7).
//
// A connection may be used for as long as the client likes, unless there are many: then those that have had their time make
// room for others, between two queries.
func (s *Server) serveConn(ctx context.Context, conn net.Conn, from netip.AddrPort, busy func() bool) {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	in, out := bufio.NewReader(conn), bufio.NewWriter(conn)
	opened := time.Now()
	sess := session{busy: busy()}
	var req, buf []byte
	for {
		// One deadline for a whole query: one that comes by the octet ends like one that doesn't come.
		_ = conn.SetDeadline(time.Now().Add(sess.timeout()))
		if ctx.Err() != nil {
			return // the deadline of stop may have been overwritten
		}
		var err error
		if req, err = readMessage(in, req); err != nil {
			return
		}
		if buf == nil {
			buf = make([]byte, dns.MaxMsgSize)
		}
		sess.busy = busy()
		began := time.Now()
		resp := s.respond(req, from, &sess, buf)
		s.metrics.seconds.Observe(time.Since(began).Seconds())
		if resp == nil {
			_ = out.Flush() // of those before
			return          // not a query: whoever it is, they don't speak DNS
		}
		var length [2]byte
		binary.BigEndian.PutUint16(length[:], uint16(len(resp)))
		_, _ = out.Write(length[:])
		_, _ = out.Write(resp)
		if hasMessage(in) {
			continue
		}
		if out.Flush() != nil || sess.busy && time.Since(opened) > busyAge {
			return
		}
	}
}

// hasMessage tells whether a whole message can be read without waiting.
func hasMessage(in *bufio.Reader) bool {
	if in.Buffered() < 2 {
		return false
	}
	length, err := in.Peek(2)
	return err == nil && in.Buffered() >= 2+int(binary.BigEndian.Uint16(length))
}

// readMessage reads a message with its length before it (RFC 1035 section 4.2.2), into buf if it is large enough.
func readMessage(in *bufio.Reader, buf []byte) ([]byte, error) {
	var length [2]byte
	if _, err := io.ReadFull(in, length[:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(length[:]))
	if cap(buf) < n {
		buf = make([]byte, n)
	}
	buf = buf[:n]
	_, err := io.ReadFull(in, buf)
	return buf, err
}
