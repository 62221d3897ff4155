package front

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"syscall"
	"time"
)

// bindSecure binds the address for TLS, over TCP and UDP. If the system chooses the port for one,
// that port may be in use for the other; bindSecure then tries again.
func (s *Server) bindSecure(ctx context.Context, bind func(context.Context, string) (net.Listener, error)) error {
	for try := 0; ; try++ {
		l, err := bind(ctx, s.HTTPS)
		if err != nil {
			return err
		}
		q, err := s.listenQUIC(ctx, l.Addr())
		if err == nil {
			s.https, s.quic = l, q
			return nil
		}
		err = errors.Join(fmt.Errorf("UDP, for HTTP/3: %w", err), l.Close())
		if _, port, _ := net.SplitHostPort(s.HTTPS); port != "0" || try == 10 {
			return err
		}
	}
}

// Close closes what Listen bound. Call it only if Serve isn't called.
func (s *Server) Close() error {
	var err error
	for _, l := range []net.Listener{s.http, s.https, s.peer} {
		if l != nil {
			err = errors.Join(err, l.Close())
		}
	}
	if s.quic != nil {
		err = errors.Join(err, s.quic.close())
	}
	return err
}

func listen(ctx context.Context, addr string) (net.Listener, error) {
	return (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
}

// HintInUse adds a hint to the error of an address that is in use. The hint has keys, the keys and
// flags that set the address. HintInUse returns other errors as they are.
func HintInUse(err error, keys string) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%w: choose another address (%s), or stop what has this one", err, keys)
	}
	return err
}

// Addr returns the address of the listener for clients, after Listen.
func (s *Server) Addr() net.Addr { return s.http.Addr() }

// SecureAddr returns the address of the listener for clients over TLS, after Listen. It returns nil
// if there is none.
func (s *Server) SecureAddr() net.Addr {
	if s.https == nil {
		return nil
	}
	return s.https.Addr()
}

// PeerAddr returns the address of the listener for other edges, after Listen.
func (s *Server) PeerAddr() net.Addr { return s.peer.Addr() }

// AltSvc returns the field that announces HTTP/3 to clients over TLS, after Listen. It returns nil
// if there is no listener for TLS.
func (s *Server) AltSvc() http.Header { return s.altSvc }

// Sent returns how many bytes of bodies were sent to clients and peers.
func (s *Server) Sent() uint64 { return s.sent.Load() }

// Active returns how many requests and tunnels are under way.
func (s *Server) Active() int64 { return s.active.Load() }

// Waiting returns how many writes wait for their clients, aborted ones included.
func (s *Server) Waiting() int { return s.watchdog.len() }

// Idle returns how many connections have no request under way.
func (s *Server) Idle() int {
	s.conns.mu.Lock()
	defer s.conns.mu.Unlock()
	return s.conns.idle.Len()
}

// Load returns the sum of the requests under way, in which a large one counts as several.
func (s *Server) Load() int64 { return s.conns.underWay.load.Load() }

// Parked returns how many bytes of bodies clients may send before the edge reads them.
func (s *Server) Parked() int64 { return s.conns.underWay.parked.Load() }

// Expire aborts the writes, and closes the connections, that have waited too long by the time now.
// Serve does so at intervals.
func (s *Server) Expire(now time.Time) {
	s.watchdog.expire(now)
	s.conns.expire(now)
}
