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

// listenUDP binds one socket per core. The kernel distributes packets over them by their source and
// destination (SO_REUSEPORT), so that the goroutines of different sockets share nothing.
//
// The first socket is bound without SO_REUSEPORT. Otherwise binding would succeed while another
// server of the same user has the port, and that server would get a share of the packets.
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
	// The host is as configured, so that "localhost" or "" resolves the same way again. The port is
	// the one that the first socket got.
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

// perReader returns the socket of each reader goroutine. Each reader has its own.
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
			if transient(err) {
				continue
			}
			return fmt.Errorf("geodns: read udp: %w", err)
		}
		began := time.Now()
		w.clock, w.wall = s.limiter.now(), began.Unix()
		for i := range n {
			req, from := b.request(i)
			if from.Port() == 0 {
				continue // there is no port to answer to
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
