package front

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"github.com/kaiku-cdn/kaiku/edge/ttlset"
)

// Server serves the listeners of an edge for clients and for other edges. Its fields are set before
// Listen and not changed after.
type Server struct {
	Name string // in the Cache-Status of the front's own errors
	HTTP string // address of the listener for clients
	// HTTPS is the address of the listener for clients over TLS: TCP for HTTP/1.1 and HTTP/2, UDP
	// for HTTP/3. "" means none.
	HTTPS   string
	Peer    string      // address of the listener for other edges of the fleet; "" means none
	PeerTLS *tls.Config // for Peer; it must require and verify client certificates

	// Handler answers the requests. AdmitPeer reports whether a request of another edge is
	// answered; if not, AdmitPeer has refused it.
	Handler   Handler
	AdmitPeer func(w http.ResponseWriter, r *http.Request) bool
	OwnHTTP2  bool  // use package http2 instead of net/http
	Ready     Ready // finds the responses of the hit lane; nil means no hit lane

	GetCertificate func(*tls.ClientHelloInfo) (*tls.Certificate, error) // for HTTPS
	// Challenges are ALPN protocols whose connections end with the handshake, such as those of ACME
	// challenges. GetCertificate answers them.
	Challenges []string
	// Secrets are shared by all edges of a fleet; there is at least one. The keys of session
	// tickets and of QUIC tokens are derived from them, so that a client may resume at any edge.
	// The first secret makes tickets, and tickets of all are accepted.
	Secrets [][32]byte
	// MaxConnections is how many connections clients may have. 0 means half of the files that the
	// process may have open, at most 65,536.
	MaxConnections int
	// MaxPerClient is how many connections one network may have: an IPv4 address or an IPv6 /64. 0
	// means 1,024. Loopback has no limit.
	MaxPerClient int
	MaxWaiting   int           // writes that may wait for their clients before slow ones are aborted; 0 means 1,024
	DrainTimeout time.Duration // for requests under way when Serve ends; 0 means 30 s
	BodyTimeout  time.Duration // that a client may keep the edge waiting for a body; 0 means a minute
	EndTimeout   time.Duration // for a body that the header block doesn't announce; 0 means 200 ms
	TunnelIdle   time.Duration // that a tunnel may be idle; 0 means 10 minutes
	SendTimeout  time.Duration // for bytes not yet sent when the handler returns; 0 means a minute
	Registry     prometheus.Registerer
	Metrics      *Metrics // made by Listen
	Panics       *Panics
	Log          *slog.Logger
	AccessLog    *AccessLog // nil means none

	// ListenTCP binds a listener for clients, plain or TLS, or returns one that is already bound;
	// nil means net.ListenConfig.
	ListenTCP func(ctx context.Context, addr string) (net.Listener, error)

	// refusals are the kinds of refusals that were logged in the last two minutes.
	refusals ttlset.Set

	sent       atomic.Uint64 // bytes of bodies
	active     atomic.Int64  // requests under way, and tunnels
	activeQUIC atomic.Int64  // requests under way over HTTP/3
	conns      *conns
	watchdog   writeWatchdog

	http, https, peer net.Listener // nil if there is none
	quic              *quicListener
	unproven          *rate.Limiter // QUIC connections that begin without a validated address
	altSvc            http.Header   // the field that announces HTTP/3 (RFC 7838)
}

// Handler answers requests.
type Handler interface {
	// Answer answers a request whose target is valid and whose body is known to exist or not. It
	// panics with http.ErrAbortHandler to cut a response off.
	Answer(x *Exchange)
}

// Listen binds the listeners.
func (s *Server) Listen(ctx context.Context) error {
	var err error
	if s.Metrics, err = newMetrics(s.Registry); err != nil {
		return fmt.Errorf("register metrics: %w", err)
	}
	if err := s.AccessLog.start(s.Registry); err != nil {
		return fmt.Errorf("register metrics: %w", err)
	}
	s.watchdog.slow, s.watchdog.limit = s.Metrics.slowWrites, s.MaxWaiting
	s.unproven = rate.NewLimiter(newQUIC, NewQUICBurst)
	s.conns = newConns(s.MaxConnections, s.MaxPerClient, s.Log)
	if err := s.Registry.Register(s.conns); err != nil {
		return fmt.Errorf("register metrics: %w", err)
	}
	if err := s.bind(ctx); err != nil {
		return errors.Join(err, s.Close())
	}
	return nil
}

// bind binds the addresses.
func (s *Server) bind(ctx context.Context) (err error) {
	bindTCP := s.ListenTCP
	if bindTCP == nil {
		bindTCP = listen
	}
	if s.http, err = bindTCP(ctx, s.HTTP); err != nil {
		return fmt.Errorf("edge listener: %w", HintInUse(err, "--listen, or edge.http"))
	}
	if s.Peer != "" {
		if s.peer, err = listen(ctx, s.Peer); err != nil {
			return fmt.Errorf("listener for peers: %w", HintInUse(err, "edge.peer"))
		}
	}
	if s.HTTPS == "" {
		return nil
	}
	if err := s.bindSecure(ctx, bindTCP); err != nil {
		return fmt.Errorf("edge listener for TLS: %w", HintInUse(err, "edge.https"))
	}
	s.altSvc = http.Header{"Alt-Svc": {fmt.Sprintf(`h3=":%d"; ma=86400`, s.https.Addr().(*net.TCPAddr).Port)}}
	return nil
}

// Serve serves until ctx ends, then finishes the requests under way for at most DrainTimeout. It
// returns the first error of a listener, and the errors of closing. Clients over TLS wait until
// secure is closed, which happens when there are certificates.
func (s *Server) Serve(ctx context.Context, secure <-chan struct{}) error {
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	var rest sync.WaitGroup
	defer rest.Wait()
	defer stop()
	rest.Go(func() { s.watchdog.serve(background) })
	rest.Go(func() { s.conns.serve(background) })
	if s.AccessLog != nil {
		rest.Go(func() { s.AccessLog.run(background) })
	}

	var servers []server
	failed := make(chan error, 6)
	// ahead starts a listener's hit lane in front of an http.Server.
	ahead := func(l net.Listener, conf *tls.Config) {
		h, lane := s.newClientHTTP(), s.newLane(s.conns.listener(l), conf)
		if s.OwnHTTP2 && conf != nil {
			lane.http2 = s.newHTTP2()
		}
		servers = append(servers, &laneServer{h, lane})
		go func() { failed <- lane.serve() }()
		go func() { failed <- h.Serve(lane) }()
	}
	ahead(s.http, nil)
	if s.https != nil {
		conf := s.clientTLS(append([]string{"h2", "http/1.1"}, s.Challenges...)...)
		conf.SetSessionTicketKeys(s.ticketKeys(time.Now())) // set before the first client
		rest.Go(func() { s.rotateTickets(background, conf, s.quic.tls) })
		<-secure // new connections wait until then
		ahead(s.https, conf)
		h3 := s.newHTTP3()
		servers = append(servers, &http3Server{Server: h3, active: &s.activeQUIC})
		if err := s.quic.listen(); err != nil {
			failed <- fmt.Errorf("edge listener for HTTP/3: %w", err)
		} else {
			go func() { failed <- h3.ServeListener(s.quic.listener) }()
		}
	}
	if s.peer != nil {
		h := s.newPeers(s.peer)
		servers = append(servers, h)
		go func() { failed <- h.serve() }()
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	return errors.Join(err, s.drain(context.WithoutCancel(ctx), servers))
}
