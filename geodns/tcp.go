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

// listeners are the TCP listeners of a server, one an address.
type listeners []*net.TCPListener

// Close closes all of them.
func (l listeners) Close() error {
	var errs []error
	for _, listener := range l {
		errs = append(errs, listener.Close())
	}
	return errors.Join(errs...)
}

// serveTCP answers connections until the listeners are closed, and then ends those there are.
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
				_ = s.tcp.Close() // the others end too
			}
		})
	}
	accepting.Wait()
	return errors.Join(errs...)
}

// accept has the connections of a listener answered until it is closed.
func (s *Server) accept(ctx context.Context, listener *net.TCPListener, conns *tcpConns, running *sync.WaitGroup) error {
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

// retryAccept waits a little after an error that passes, such as too many open files or a
// connection that was gone before it was accepted.
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
	limits    tcpLimits
	busy      bool // there are many connections
	keepalive bool // the client has asked for how long the connection stays open
}

// timeout is for how long the connection stays open without a query: what clients are told, and
// what is done.
func (s *session) timeout() time.Duration {
	switch {
	case s.busy:
		return s.limits.busy
	case s.keepalive:
		return s.limits.keepalive
	}
	return s.limits.idle
}

// serveConn answers the queries of a connection one after the other, which bounds what is in
// flight; queries that came together are answered in one write (RFC 7766 section 6.2.1.1). An
// answer is computed without waiting for anything, so that none is held up by one before it, and
// there is nothing to gain from giving them in another order (section 7).
//
// A connection may be used for as long as the client likes, unless there are many: then those that
// have had their time make room for others, between two queries.
func (s *Server) serveConn(ctx context.Context, conn *tcpConn, from netip.AddrPort, conns *tcpConns) {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	in, out := bufio.NewReader(conn), bufio.NewWriter(conn)
	opened := time.Now()
	sess := session{limits: conns.limits, busy: conns.crowded()}
	var req, buf []byte
	for {
		// One deadline for a whole query: one that comes by the octet ends like one that doesn't
		// come.
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
		sess.busy = conns.active(conn)
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
		if out.Flush() != nil || sess.busy && time.Since(opened) > conns.limits.age {
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

// readMessage reads a message with its length before it (RFC 1035 section 4.2.2), into buf if it is
// large enough.
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
