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

// listeners are the TCP listeners of a server, one per address.
type listeners []*net.TCPListener

// Close closes all listeners.
func (l listeners) Close() error {
	var errs []error
	for _, listener := range l {
		errs = append(errs, listener.Close())
	}
	return errors.Join(errs...)
}

// serveTCP accepts and answers connections until the listeners are closed. Then it ends the open
// connections and waits for them.
func (s *Server) serveTCP(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	limits := s.tcpLimits
	if limits == (tcpLimits{}) {
		limits = defaultTCPLimits()
	}
	conns := newTCPConns(limits)
	var accepting sync.WaitGroup
	errs := make([]error, len(s.tcp))
	for i, listener := range s.tcp {
		accepting.Go(func() {
			if errs[i] = s.accept(ctx, listener, conns, &running); errs[i] != nil {
				_ = s.tcp.Close() // ends the other accept loops
			}
		})
	}
	accepting.Wait()
	return errors.Join(errs...)
}

// accept accepts the connections of a listener and starts a goroutine for each, until the listener
// is closed.
func (s *Server) accept(
	ctx context.Context, listener *net.TCPListener, conns *tcpConns, running *sync.WaitGroup,
) error {
	for {
		accepted, err := listener.AcceptTCP()
		switch {
		case errors.Is(err, net.ErrClosed):
			return nil
		case err != nil && retryAccept(ctx, err):
			continue
		case err != nil:
			return fmt.Errorf("geodns: accept: %w", err)
		}
		from := accepted.RemoteAddr().(*net.TCPAddr).AddrPort()
		conn, shed := conns.enter(accepted, networkOf(from.Addr().Unmap()))
		if shed {
			s.metrics.shed.Inc()
		}
		running.Go(func() {
			defer conns.leave(conn)
			s.serveConn(ctx, conn, from, conns)
		})
	}
}

// retryAccept reports whether err is temporary, such as too many open files or a connection that
// was aborted before it was accepted. It then waits 10 ms.
func retryAccept(ctx context.Context, err error) bool {
	var temporary interface{ Temporary() bool }
	if !errors.As(err, &temporary) || !temporary.Temporary() {
		return false
	}
	select {
	case <-time.After(10 * time.Millisecond):
	case <-ctx.Done():
	}
	return true
}

// session is the state of one TCP connection.
type session struct {
	limits tcpLimits
	busy   bool // there are many connections
	// The client has asked how long the connection stays open.
	keepalive bool
}

// timeout returns how long the connection may stay open without a query. It is the time that
// clients are told and the time that is enforced.
func (s *session) timeout() time.Duration {
	switch {
	case s.busy:
		return s.limits.busy
	case s.keepalive:
		return s.limits.keepalive
	}
	return s.limits.idle
}

// serveConn answers the queries of a connection one after the other, which bounds the work in
// progress. It answers queries that arrived together in one write (RFC 7766 section 6.2.1.1).
// Answering a query never blocks, so no query holds up the next, and out-of-order responses
// (section 7) would gain nothing.
//
// A client may use a connection as long as it likes, unless there are many connections. Then
// serveConn closes a connection that has had its time, between two queries.
func (s *Server) serveConn(ctx context.Context, conn *tcpConn, from netip.AddrPort, conns *tcpConns) {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	in, out := bufio.NewReader(conn), bufio.NewWriter(conn)
	opened := time.Now()
	sess := session{limits: conns.limits, busy: conns.crowded()}
	var req, buf []byte
	for {
		// One deadline applies to a whole query. A query that arrives octet by octet doesn't extend
		// it.
		_ = conn.SetDeadline(time.Now().Add(sess.timeout()))
		if ctx.Err() != nil {
			return // SetDeadline may have overwritten the deadline set by stop
		}
		var err error
		if req, err = readMessage(in, req); err != nil {
			return
		}
		if buf == nil {
			buf = make([]byte, dns.MaxMsgSize)
		}
		sess.busy = conns.active(conn)
		began := time.Now()
		resp := s.respond(req, from, &sess, buf)
		s.metrics.seconds.Observe(time.Since(began).Seconds())
		if resp == nil {
			_ = out.Flush() // the responses to earlier queries
			return          // not a query, so the client doesn't speak DNS
		}
		var length [2]byte
		binary.BigEndian.PutUint16(length[:], uint16(len(resp)))
		_, _ = out.Write(length[:])
		_, _ = out.Write(resp)
		if hasMessage(in) {
			continue
		}
		if out.Flush() != nil || sess.busy && time.Since(opened) > conns.limits.age {
			return
		}
	}
}

// hasMessage reports whether a whole message can be read without blocking.
func hasMessage(in *bufio.Reader) bool {
	if in.Buffered() < 2 {
		return false
	}
	length, err := in.Peek(2)
	return err == nil && in.Buffered() >= 2+int(binary.BigEndian.Uint16(length))
}

// readMessage reads a message and the length in front of it (RFC 1035 section 4.2.2). It uses buf
// if buf is large enough.
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
