package front

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/quic-go/quic-go/qlogwriter"
	"golang.org/x/sys/unix"
)

const (
	udpBuffer = 7 << 20 // bytes of the socket's buffers: a burst at 1 Gbit/s of 50 ms
	// newQUIC is how many QUIC connections a second may begin, and at once, whose address is not
	// validated. More have to come back with a token (RFC 9000, 8.1.2).
	newQUIC      = 200
	NewQUICBurst = 500
	// unprovenConns is how many connections a client network has before its address has to be
	// validated, so that forged ones can't use up what it may have.
	unprovenConns = 32
)

// quicListener is the listener for HTTP/3.
type quicListener struct {
	socket    *net.UDPConn
	transport *quic.Transport
	listener  *quic.EarlyListener // nil before listen
	tls       *tls.Config
}

// listenQUIC binds the UDP port of a TCP listener.
func (s *Server) listenQUIC(ctx context.Context, of net.Addr) (*quicListener, error) {
	packets, err := (&net.ListenConfig{}).ListenPacket(ctx, "udp", of.String())
	if err != nil {
		return nil, err
	}
	socket, ok := packets.(*net.UDPConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("%T is no UDP socket", packets), packets.Close())
	}
	setUDPBuffers(socket, s.Log)
	// quic-go takes one key each. A token of another secret is as none, so that the client's
	// address is validated again at worst.
	reset, token := quic.StatelessResetKey(secretFor(s.Secrets[0], "quic stateless reset")),
		quic.TokenGeneratorKey(secretFor(s.Secrets[0], "quic tokens"))
	q := &quicListener{socket: socket, tls: s.clientTLS(http3.NextProtoH3)}
	q.tls.MinVersion = tls.VersionTLS13
	q.tls.SetSessionTicketKeys(s.ticketKeys(time.Now()))
	q.transport = &quic.Transport{
		Conn: socket, ConnectionIDLength: 8, StatelessResetKey: &reset, TokenGeneratorKey: &token,
		VerifySourceAddress: s.MustProve,
		ConnContext: func(ctx context.Context, info *quic.ClientInfo) (context.Context, error) {
			release, ok := s.conns.take(info.RemoteAddr)
			if !ok {
				return nil, errors.New("too many connections")
			}
			context.AfterFunc(ctx, release)
			return ctx, nil
		},
	}
	return q, nil
}

// MustProve reports whether one more QUIC connection from an address has to show that it comes from
// there, by a token (RFC 9000, 8.1.2).
func (s *Server) MustProve(a net.Addr) bool {
	return s.conns.count(a) >= unprovenConns || !s.unproven.Allow()
}

// listen begins to take connections. Packets that came since the port was bound wait in its buffer.
func (q *quicListener) listen() (err error) {
	q.listener, err = q.transport.ListenEarly(q.tls, &quic.Config{
		HandshakeIdleTimeout: HeaderTimeout / 2, // in all twice this
		MaxIdleTimeout:       IdleTimeout,
		MaxIncomingStreams:   MaxStreams, MaxIncomingUniStreams: 8, // HTTP/3 needs three
		InitialStreamReceiveWindow: 64 << 10, MaxStreamReceiveWindow: http3RequestWindow,
		InitialConnectionReceiveWindow: 128 << 10, MaxConnectionReceiveWindow: http3ConnectionWindow,
		Tracer:    func(context.Context, bool, quic.ConnectionID) qlogwriter.Trace { return new(fieldWatch) },
		Allow0RTT: false, // a request that can be sent again by others
	})
	return err
}

// setUDPBuffers asks for buffers that last a burst, beyond the system's limit where the process
// may, and says so if they are smaller.
func setUDPBuffers(c *net.UDPConn, log *slog.Logger) {
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	var got [2]int
	_ = raw.Control(func(fd uintptr) {
		for i, o := range [][3]int{{unix.SO_RCVBUF, unix.SO_RCVBUFFORCE}, {unix.SO_SNDBUF, unix.SO_SNDBUFFORCE}} {
			if syscall.SetsockoptInt(int(fd), unix.SOL_SOCKET, o[1], udpBuffer) != nil {
				_ = syscall.SetsockoptInt(int(fd), unix.SOL_SOCKET, o[0], udpBuffer)
			}
			n, _ := syscall.GetsockoptInt(int(fd), unix.SOL_SOCKET, o[0])
			got[i] = n / 2 // the kernel counts its own part
		}
	})
	if min(got[0], got[1]) < udpBuffer {
		log.Warn("the UDP buffers for HTTP/3 are smaller than they should be, so that bursts may be lost: set net.core.rmem_max and net.core.wmem_max (see docs/tls.md)",
			"receive", got[0], "send", got[1], "want", udpBuffer)
	}
}

// newHTTP3 makes the server of HTTP/3.
func (s *Server) newHTTP3() *http3.Server {
	return &http3.Server{
		Handler:        s,
		TLSConfig:      s.quic.tls,
		MaxHeaderBytes: MaxHeaderBytes,
		IdleTimeout:    IdleTimeout,
		Logger:         slog.New(debugOnly{s.Log.Handler()}),
		ConnContext: func(ctx context.Context, c *quic.Conn) context.Context {
			cut := func() error {
				return c.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeExcessiveLoad), "")
			}
			from := &client{cut: cut, share: s.conns.share(c.RemoteAddr())}
			from.fields, _ = c.QlogTrace().(*fieldWatch)
			s.conns.follow(from)
			context.AfterFunc(c.Context(), func() { s.conns.forget(from) })
			return context.WithValue(ctx, clientKey{}, from)
		},
	}
}

// http3Server ends as an http.Server does.
type http3Server struct {
	*http3.Server
	active *atomic.Int64 // requests under way

	giveUp context.CancelFunc // ends a Shutdown that is not over; nil without one
	ended  chan error
}

// goneAfter is how long clients have to go after GOAWAY when nothing is under way, and how long the
// last packets of responses have to arrive, as nobody tells that they did.
const goneAfter = 2 * time.Second

// Shutdown sends GOAWAY and waits for what is under way. Clients that keep their connection though
// they want nothing are not waited for. If ctx ends first, nothing is cut off before Close.
func (h *http3Server) Shutdown(ctx context.Context) error {
	quiet, giveUp := context.WithCancel(context.WithoutCancel(ctx))
	h.giveUp, h.ended = giveUp, make(chan error, 1)
	go func() { h.ended <- h.Server.Shutdown(quiet) }()
	tick := time.NewTicker(goneAfter / 20)
	defer tick.Stop()
	for last := time.Now(); time.Since(last) < goneAfter; {
		select {
		case err := <-h.ended:
			h.ended <- err
			return err
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			if h.active.Load() > 0 {
				last = time.Now()
			}
		}
	}
	return h.Close()
}

// Close ends the server at once.
func (h *http3Server) Close() error {
	err := h.Server.Close()
	if h.giveUp != nil {
		h.giveUp()
		h.giveUp = nil
		<-h.ended
	}
	return err
}

// close ends the listener, once the server has ended.
func (q *quicListener) close() error {
	var err error
	if q.listener != nil {
		err = q.listener.Close()
	}
	return errors.Join(err, q.transport.Close(), q.socket.Close())
}

// debugOnly takes what a library says as a matter of debugging: it is about clients, not about the
// edge.
type debugOnly struct{ slog.Handler }

// Enabled reports whether debugging is logged.
func (d debugOnly) Enabled(ctx context.Context, _ slog.Level) bool {
	return d.Handler.Enabled(ctx, slog.LevelDebug)
}

// WithAttrs adds attributes.
func (d debugOnly) WithAttrs(attrs []slog.Attr) slog.Handler {
	return debugOnly{d.Handler.WithAttrs(attrs)}
}

// WithGroup begins a group.
func (d debugOnly) WithGroup(name string) slog.Handler { return debugOnly{d.Handler.WithGroup(name)} }

// Handle logs for debugging.
func (d debugOnly) Handle(ctx context.Context, r slog.Record) error {
	r.Level = slog.LevelDebug
	return d.Handler.Handle(ctx, r)
}
