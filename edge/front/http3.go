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
	udpBuffer = 7 << 20 // bytes of each buffer of the socket: a burst of 50 ms at 1 Gbit/s
	// newQUIC is how many QUIC connections a second may begin without a validated address.
	// NewQUICBurst is how many may begin at once. Further clients have to come back with a token
	// (RFC 9000, 8.1.2).
	newQUIC      = 200
	NewQUICBurst = 500
	// unprovenConns is how many connections a client network has before its address has to be
	// validated. So forged packets can't use up the network's connections.
	unprovenConns = 32
)

// quicListener is the listener for HTTP/3.
type quicListener struct {
	socket    *net.UDPConn
	transport *quic.Transport
	listener  *quic.EarlyListener // nil before listen
	tls       *tls.Config
}

// listenQUIC binds the UDP port with the number of a TCP listener's port.
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
	// quic-go takes one key of each kind. It ignores a token of another secret, and validates the
	// address of that client again.
	reset, token := quic.StatelessResetKey(secretFor(s.Secrets[0], "quic stateless reset")),
		quic.TokenGeneratorKey(secretFor(s.Secrets[0], "quic tokens"))
	q := &quicListener{socket: socket, tls: s.clientTLS(http3.NextProtoH3)}
	q.tls.MinVersion = tls.VersionTLS13
	q.tls.SetSessionTicketKeys(s.ticketKeys(time.Now()))
	q.transport = &quic.Transport{
		Conn: socket, ConnectionIDLength: 8, StatelessResetKey: &reset, TokenGeneratorKey: &token,
		VerifySourceAddress: s.MustProve,
		ConnContext: func(ctx context.Context, info *quic.ClientInfo) (context.Context, error) {
			release, ok := s.conns.admit(info.RemoteAddr)
			if !ok {
				return nil, errors.New("too many connections")
			}
			context.AfterFunc(ctx, release)
			return ctx, nil
		},
	}
	return q, nil
}

// MustProve reports whether the next QUIC connection from an address needs a token that proves the
// address (RFC 9000, 8.1.2).
func (s *Server) MustProve(a net.Addr) bool {
	return s.conns.count(a) >= unprovenConns || !s.unproven.Allow()
}

// listen begins to accept connections. The socket buffers the packets that came since it was bound.
func (q *quicListener) listen() (err error) {
	q.listener, err = q.transport.ListenEarly(q.tls, &quic.Config{
		HandshakeIdleTimeout: HeaderTimeout / 2, // twice this in all
		MaxIdleTimeout:       IdleTimeout,
		MaxIncomingStreams:   MaxStreams, MaxIncomingUniStreams: 8, // HTTP/3 needs 3
		InitialStreamReceiveWindow: 64 << 10, MaxStreamReceiveWindow: http3RequestWindow,
		InitialConnectionReceiveWindow: 128 << 10, MaxConnectionReceiveWindow: http3ConnectionWindow,
		Tracer:    func(context.Context, bool, quic.ConnectionID) qlogwriter.Trace { return new(fieldWatch) },
		Allow0RTT: false, // others could replay the request
	})
	return err
}

// setUDPBuffers asks for buffers that hold a burst, beyond the system's limit if the process may.
// It logs a warning if they are smaller.
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
			got[i] = n / 2 // the kernel reports twice the size
		}
	})
	if min(got[0], got[1]) < udpBuffer {
		log.Warn("the UDP buffers for HTTP/3 are too small, so bursts of packets may be lost: set net.core.rmem_max and net.core.wmem_max (see docs/tls.md)",
			"receive", got[0], "send", got[1], "want", udpBuffer)
	}
}

// newHTTP3 makes the HTTP/3 server.
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
			s.conns.markIdle(from)
			context.AfterFunc(c.Context(), func() { s.conns.forget(from) })
			return context.WithValue(ctx, clientKey{}, from)
		},
	}
}

// http3Server is an HTTP/3 server that shuts down like an http.Server.
type http3Server struct {
	*http3.Server
	active *atomic.Int64 // requests under way

	giveUp context.CancelFunc // ends the Shutdown that is under way; nil if there is none
	ended  chan error
}

// goneAfter is how long clients may take to close after GOAWAY when no request is under way. It is
// also how long the last packets of responses have to arrive, because nothing reports that.
const goneAfter = 2 * time.Second

// Shutdown sends GOAWAY and waits for the requests under way. It doesn't wait for idle clients that
// keep their connection. If ctx ends first, Close has to cut off the rest.
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

// close closes the listener, after the server has ended.
func (q *quicListener) close() error {
	var err error
	if q.listener != nil {
		err = q.listener.Close()
	}
	return errors.Join(err, q.transport.Close(), q.socket.Close())
}

// debugOnly logs what a library logs at the debug level, because it is about clients and not about
// the edge.
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
