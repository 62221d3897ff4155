package geodns

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"syscall"
)

// Listen binds all addresses for UDP and TCP, or none of them. If a port is in use or not
// permitted, the error says what to do about it.
func (s *Server) Listen(ctx context.Context) error {
	for i, addr := range append([]string{cmp.Or(s.Addr, ":53")}, s.More...) {
		if err := s.listen(ctx, addr); err != nil {
			if i > 0 {
				err = errors.Join(err, s.udp.Close(), s.tcp.Close())
				s.udp, s.tcp = nil, nil
			}
			return err
		}
	}
	return nil
}

func (s *Server) listen(ctx context.Context, addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("geodns: listen on %q: want host:port: %w", addr, err)
	}
	// With port 0, the port that the system chose for UDP may be in use for TCP. Listen then tries
	// again with another port.
	for tries := 1; ; tries++ {
		err = s.bind(ctx, addr)
		if err == nil || port != "0" || tries == 20 || !errors.Is(err, syscall.EADDRINUSE) {
			break
		}
	}
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("geodns: %w: another program uses the address; `ss -lnptu 'sport = :%s'` names it; stop that program, "+
			"or listen on another address (systemd-resolved has port 53 of 127.0.0.53 only: the public address is free)", err, port)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("geodns: %w: ports below 1024 need root or CAP_NET_BIND_SERVICE", err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("geodns: %w: this machine does not have the address %s", err, host)
	case err != nil:
		return fmt.Errorf("geodns: %w", err)
	}
	return nil
}

// bind binds UDP, and TCP to the port that UDP got.
func (s *Server) bind(ctx context.Context, addr string) error {
	udp, err := listenUDP(ctx, addr)
	if err != nil {
		return err
	}
	// The host is as configured, so that "localhost" or "" resolves the same way for TCP. The port
	// is the one that UDP got.
	host, _, _ := net.SplitHostPort(addr)
	_, port, _ := net.SplitHostPort(udp.LocalAddr().String())
	bindTCP := s.ListenTCP
	if bindTCP == nil {
		bindTCP = func(ctx context.Context, addr string) (net.Listener, error) {
			return (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
		}
	}
	listener, err := bindTCP(ctx, net.JoinHostPort(host, port))
	if err != nil {
		return errors.Join(err, udp.Close())
	}
	for _, conn := range udp {
		if err := reportDestination(conn); err != nil {
			return errors.Join(fmt.Errorf("udp %s: %w", addr, err), udp.Close(), listener.Close())
		}
	}
	s.udp, s.tcp = append(s.udp, udp...), append(s.tcp, listener.(*net.TCPListener))
	return nil
}
