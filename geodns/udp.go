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

// sockets are the UDP sockets of a server. For each address there is one socket per core if the
// system distributes packets over them, else one socket.
type sockets []*net.UDPConn

// Close closes all sockets.
func (s sockets) Close() error {
	var errs []error
	for _, conn := range s {
		errs = append(errs, conn.Close())
	}
	return errors.Join(errs...)
}

// LocalAddr returns the address of the first socket.
func (s sockets) LocalAddr() net.Addr { return s[0].LocalAddr() }

// serveUDP answers packets until the sockets are closed.
func (s *Server) serveUDP() error {
	var readers sync.WaitGroup
	conns := s.udp.perReader()
	errs := make([]error, len(conns))
	for i, conn := range conns {
		readers.Go(func() {
			if errs[i] = s.readUDP(conn); errs[i] != nil {
				_ = s.udp.Close() // ends the other readers
			}
		})
	}
	readers.Wait()
	return errors.Join(errs...)
}

// transient reports whether a read error is about a single packet or will pass. Other errors end
// the reader, because every read would return them.
func transient(err error) bool {
	for _, errno := range []syscall.Errno{
		syscall.EINTR, syscall.EAGAIN, syscall.ENOBUFS, syscall.ENOMEM, // short of resources
		// ICMP errors about an earlier response.
		syscall.ECONNREFUSED, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.ENETDOWN,
	} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// reportDestination makes the kernel report the destination address of each packet, if the socket
// is bound to all addresses. The response must come from that address, because clients drop it
// otherwise.
func reportDestination(conn *net.UDPConn) error {
	if !conn.LocalAddr().(*net.UDPAddr).IP.IsUnspecified() {
		return nil
	}
	// One of the two calls fails if the socket has only the other family. A dual-stack socket
	// accepts both.
	err6 := ipv6.NewPacketConn(conn).SetControlMessage(ipv6.FlagDst|ipv6.FlagInterface, true)
	err4 := ipv4.NewPacketConn(conn).SetControlMessage(ipv4.FlagDst|ipv4.FlagInterface, true)
	if err6 != nil && err4 != nil {
		return fmt.Errorf("ask for destination addresses: %w", errors.Join(err4, err6))
	}
	return nil
}
