package geodns

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	maxTCP      = 1024             // connections at a time; the kernel's backlog holds the next ones
	idleTimeout = 10 * time.Second // for a query to come whole (RFC 7766 section 6.2.3: on the order of seconds)
	busyTimeout = time.Second      // the same, when half of the connections are taken
)

// serveTCP answers connections until the listener is closed, and then ends those there are.
func (s *Server) serveTCP(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var conns sync.WaitGroup
	defer conns.Wait()
	defer cancel()
	slots := make(chan struct{}, maxTCP)
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
		conns.Go(func() {
			defer func() { <-slots }()
			s.serveConn(ctx, conn, func() time.Duration {
				if len(slots) > maxTCP/2 {
					return busyTimeout
				}
				return idleTimeout
			})
		})
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

// serveConn answers the queries of a connection one after the other, which bounds what is in flight; queries that came
// together are answered in one write (RFC 7766 section 6.2.1.1).
func (s *Server) serveConn(ctx context.Context, conn *net.TCPConn, timeout func() time.Duration) {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	from := conn.RemoteAddr().(*net.TCPAddr).AddrPort()
	in, out := bufio.NewReader(conn), bufio.NewWriter(conn)
	var req, buf []byte
	for {
		// One deadline for a whole query: one that comes by the octet ends like one that doesn't come.
		_ = conn.SetDeadline(time.Now().Add(timeout()))
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
		resp := s.answer(req, from, true, buf)
		if resp == nil {
			return // not a query: whoever it is, they don't speak DNS
		}
		var length [2]byte
		binary.BigEndian.PutUint16(length[:], uint16(len(resp)))
		_, _ = out.Write(length[:])
		_, _ = out.Write(resp)
		if !hasMessage(in) && out.Flush() != nil {
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
