package geodns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// listenUDP binds a socket a core, over which the kernel spreads packets by the addresses and ports
// that they come from and go to (SO_REUSEPORT), so that what answers one core's packets shares
// nothing with the others.
//
// The first is bound without that, or it would share a port with another server of the same user,
// which then would get part of the packets.
func listenUDP(ctx context.Context, addr string) (all sockets, err error) {
	defer func() {
		if err != nil {
			err, all = errors.Join(err, all.Close()), nil
		}
	}()
	var lc net.ListenConfig
	conn, err := lc.ListenPacket(ctx, "udp", addr)
	if err != nil {
		return nil, err
	}
	first := conn.(*net.UDPConn)
	all = append(all, first)
	raw, err := first.SyscallConn()
	if err == nil {
		err = reusePort("", "", raw)
	}
	if err != nil {
		return all, err
	}
	// The address as it was asked for, so that "localhost" or "" resolves alike, and the port as it
	// was given.
	host, _, _ := net.SplitHostPort(addr)
	_, port, _ := net.SplitHostPort(first.LocalAddr().String())
	lc.Control = reusePort
	for len(all) < runtime.GOMAXPROCS(0) {
		conn, err := lc.ListenPacket(ctx, "udp", net.JoinHostPort(host, port))
		if err != nil {
			return all, err
		}
		all = append(all, conn.(*net.UDPConn))
	}
	return all, nil
}

func reusePort(_, _ string, c syscall.RawConn) error {
	var err error
	return errors.Join(c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	}), err)
}

// perReader gives the socket of each goroutine that reads: each has its own.
func (s sockets) perReader() []*net.UDPConn { return s }

func (s *Server) readUDP(conn *net.UDPConn) error {
	b, err := newBatch(conn)
	if err != nil {
		return err
	}
	w := newWorker(s)
	for {
		n, err := b.receive()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			if passing(err) {
				continue
			}
			return fmt.Errorf("geodns: read udp: %w", err)
		}
		began := time.Now()
		w.clock = s.limiter.now()
		for i := range n {
			req, from := b.request(i)
			if from.Port() == 0 {
				continue // nowhere to answer to
			}
			if out := w.answer(req, from, false, b.space(i)); out != nil {
				b.respond(i, out)
			}
		}
		w.tally.flush()
		b.send()
		s.metrics.seconds.Observe(time.Since(began).Seconds() / float64(n))
	}
}
