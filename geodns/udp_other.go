//go:build !linux

package geodns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// listenUDP binds one socket, because not every system distributes packets over several.
func listenUDP(ctx context.Context, addr string) (sockets, error) {
	var lc net.ListenConfig
	conn, err := lc.ListenPacket(ctx, "udp", addr)
	if err != nil {
		return nil, err
	}
	return sockets{conn.(*net.UDPConn)}, nil
}

// perReader returns the socket of each reader goroutine. All readers share a socket, and the kernel
// gives each packet to one of them.
func (s sockets) perReader() []*net.UDPConn {
	var conns []*net.UDPConn
	for range runtime.GOMAXPROCS(0) {
		conns = append(conns, s...)
	}
	return conns
}

func (s *Server) readUDP(conn *net.UDPConn) error {
	w := newWorker(s)
	req := make([]byte, 1<<16)
	buf := make([]byte, ednsUDPSize)
	oob := make([]byte, 128)
	for {
		n, oobLen, _, from, err := conn.ReadMsgUDPAddrPort(req, oob)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			if transient(err) {
				continue
			}
			return fmt.Errorf("geodns: read udp: %w", err)
		}
		if from.Port() == 0 {
			continue // there is no port to answer to
		}
		began := time.Now()
		if out := w.answer(req[:n], from, false, buf); out != nil {
			w.tally.flush()
			// An error here concerns the client's network. The client asks again.
			_, _, _ = conn.WriteMsgUDPAddrPort(out, replyFrom(oob[:oobLen]), from)
			s.metrics.seconds.Observe(time.Since(began).Seconds())
		}
	}
}

// replyFrom returns the control message that sends a response from the address that the query was
// sent to. The message names the interface only for a link-local address, because the route back
// may use another interface.
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
