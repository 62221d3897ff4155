package geodns

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// sockets are the UDP sockets of a server: of each address and port one a core, where the system
// spreads packets over them, else one.
type sockets []*net.UDPConn

// Close closes all of them.
func (s sockets) Close() error {
	var errs []error
	for _, conn := range s {
		errs = append(errs, conn.Close())
	}
	return errors.Join(errs...)
}

// LocalAddr is the address that the first is bound to.
func (s sockets) LocalAddr() net.Addr { return s[0].LocalAddr() }

// serveUDP answers packets until the sockets are closed.
func (s *Server) serveUDP() error {
	var readers sync.WaitGroup
	conns := s.udp.perReader()
	errs := make([]error, len(conns))
	for i, conn := range conns {
		readers.Go(func() {
			if errs[i] = s.readUDP(conn); errs[i] != nil {
				_ = s.udp.Close() // the others end too
			}
		})
	}
	readers.Wait()
	return errors.Join(errs...)
}

// passing tells errors that are about one packet, or a moment, from those that every read will end
// with.
func passing(err error) bool {
	for _, errno := range []syscall.Errno{
		syscall.EINTR, syscall.EAGAIN, syscall.ENOBUFS, syscall.ENOMEM, // of the kernel
		syscall.ECONNREFUSED, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.ENETDOWN, // ICMP about an earlier response
	} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// wantDestination makes a socket that is bound to every address tell which one a packet came to.
// The response must come from that one: a client drops it otherwise.
func wantDestination(conn *net.UDPConn) error {
	if !conn.LocalAddr().(*net.UDPAddr).IP.IsUnspecified() {
		return nil
	}
	// Which of the two works depends on the family; a socket for both takes both.
	err6 := ipv6.NewPacketConn(conn).SetControlMessage(ipv6.FlagDst|ipv6.FlagInterface, true)
	err4 := ipv4.NewPacketConn(conn).SetControlMessage(ipv4.FlagDst|ipv4.FlagInterface, true)
	if err6 != nil && err4 != nil {
		return fmt.Errorf("ask for destination addresses: %w", errors.Join(err4, err6))
	}
	return nil
}
