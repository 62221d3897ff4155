package geodns

import (
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// serveUDP answers packets until the socket is closed. A few goroutines read one socket: the kernel hands each packet to one
// of them.
func (s *Server) serveUDP() error {
	var readers sync.WaitGroup
	errs := make([]error, runtime.GOMAXPROCS(0))
	for i := range errs {
		readers.Go(func() {
			if errs[i] = s.readUDP(); errs[i] != nil {
				s.udp.Close() // the others end too
			}
		})
	}
	readers.Wait()
	return errors.Join(errs...)
}

func (s *Server) readUDP() error {
	req := make([]byte, 1<<16)
	buf := make([]byte, ednsUDPSize)
	oob := make([]byte, 128)
	for {
		n, oobLen, _, from, err := s.udp.ReadMsgUDPAddrPort(req, oob)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			if passing(err) {
				continue
			}
			return fmt.Errorf("geodns: read udp: %w", err)
		}
		if from.Port() == 0 {
			continue // nowhere to answer to
		}
		if out := s.answer(req[:n], from, false, buf); out != nil {
			// An error here is the client's network: it asks again.
			_, _, _ = s.udp.WriteMsgUDPAddrPort(out, replyFrom(oob[:oobLen]), from)
		}
	}
}

// passing tells errors that are about one packet, or a moment, from those that every read will end with.
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

// wantDestination makes a socket that is bound to every address tell which one a packet came to. The response must come from
// that one: a client drops it otherwise.
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

// replyFrom makes the control message that sends a response from where the query went. The interface is named only where
// the address needs it: routing may answer through another.
func replyFrom(oob []byte) []byte {
	if len(oob) == 0 {
		return nil
	}
	var dst net.IP
	var cm6 ipv6.ControlMessage
	if cm6.Parse(oob) == nil && cm6.Dst != nil {
		dst = cm6.Dst
	}
	var cm4 ipv4.ControlMessage
	if dst == nil && cm4.Parse(oob) == nil {
		dst = cm4.Dst
	}
	switch {
	case dst == nil:
		return nil
	case dst.To4() != nil:
		return (&ipv4.ControlMessage{Src: dst}).Marshal()
	case dst.IsLinkLocalUnicast():
		return (&ipv6.ControlMessage{Src: dst, IfIndex: cm6.IfIndex}).Marshal()
	}
	return (&ipv6.ControlMessage{Src: dst}).Marshal()
}
