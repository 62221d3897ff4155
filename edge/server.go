// Package edge is the HTTP node: it answers the hosts of its sites from the store and fetches what
// is missing.
//
// A request takes this way: site by Host, key, look-up. A fresh response is served from the store;
// a stale one is validated, before or, where allowed, after it is served. On a miss the request
// joins the flight of its key: one fetch from the origin that is stored as it comes, and that every
// waiting client follows at its own pace. Methods other than GET and HEAD, and responses that can't
// be stored, are passed through. What may be stored and used is decided in httpcache.
package edge

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kaiku-cdn/kaiku/edge/certs"
	"github.com/kaiku-cdn/kaiku/edge/purge"
	"github.com/kaiku-cdn/kaiku/edge/site"
	"github.com/kaiku-cdn/kaiku/storage"
)

// Server is an edge. The fields are set before Listen and not changed after.
type Server struct {
	Version string      // that the status tells; "" means none
	Name    string      // in Via and Cache-Status, a token; "" means kaiku
	HTTP    string      // address of the listener for clients; "" means :8080
	HTTPS   string      // address of that for clients over TLS: TCP for HTTP/1.1 and HTTP/2, UDP for HTTP/3; "" means none
	Admin   string      // address of the admin listener; "" means none. One other than loopback needs SetTokens before Listen
	Peer    string      // address of the listener for other edges of the fleet; "" means none
	PeerTLS *tls.Config // of that; it has to ask clients for a certificate and verify it
	// PurgeFrom are the networks whose clients may send PURGE and BAN to the listener for clients.
	// Without any, and without tokens, these are methods like others.
	PurgeFrom    []netip.Prefix
	Certificates *certs.Certificates // for HTTPS
	// Secrets are those that all edges of a fleet have. Keys of session tickets and of QUIC are
	// derived from them, so that what one edge gave is good at all: the first makes them, and
	// tickets of all are accepted. None means one of its own.
	Secrets        [][32]byte
	MaxConnections int           // of clients, in all; 0 means half of the files that the process may have open, 65,536 at most
	MaxPerClient   int           // of those, of one network: an IPv4 address or an IPv6 /64; 0 means 1,024. Loopback is not limited
	NoHitLane      bool          // requests take the ordinary path, which is slower
	DrainTimeout   time.Duration // for what is under way when the edge stops; 0 means 30 s
	Store          *storage.Store
	Purges         PurgeLog             // nil means that purges are this edge's own
	Fleet          Fleet                // nil means that there are no other nodes
	Faults         func() []string      // what status tells of files that the node can't use; nil is nothing
	Registry       *prometheus.Registry // "" means one of its own
	Log            *slog.Logger         // nil means slog.Default
	AccessLog      *AccessLog           // nil means none

	// ListenTCP binds a listener for clients, plain or TLS, or returns one that is bound already;
	// nil means net.ListenConfig.
	ListenTCP func(ctx context.Context, addr string) (net.Listener, error)

	panics  atomic.Uint64
	sites   site.Table
	tokens  purge.Tokens
	purger  *purge.Purger
	cache   *cache
	flights *flights
	metrics *metrics
	// refusals are the kinds of refused requests that were logged lately.
	refusals notes
	// failures are how fetches failed lately, and toldFailures the kinds of them that were logged.
	failures     failures
	toldFailures notes
	outages      outages

	started time.Time

	// loopID tells this edge from every other one in the field CDN-Loop.
	loopID string

	// 0 means the constants, of which bodyEnd is endTimeout and lastWrite sendTimeout.
	bodyTimeout, bodyEnd, tunnelIdle, lastWrite time.Duration

	sent       atomic.Uint64 // bytes of bodies
	active     atomic.Int64  // requests under way, and tunnels
	activeQUIC atomic.Int64  // those of HTTP/3
	conns      *conns
	senders    senders

	http, https, admin, peer net.Listener // nil for what there is none of
	quic                     *quicListener
	altSvc                   http.Header     // the field that tells of HTTP/3 (RFC 7838)
	base                     context.Context // of flights
	cancel                   context.CancelFunc
	work                     sync.WaitGroup // flights
}

// SetSites replaces what the edge serves. The origins are started already; those of before are the
// caller's to close.
func (s *Server) SetSites(list []*Site) { s.sites.Set(list) }

// Listen binds the listeners.
func (s *Server) Listen(ctx context.Context) error {
	if s.Name == "" {
		s.Name = "kaiku"
	}
	if s.Log == nil {
		s.Log = slog.Default()
	}
	if s.Registry == nil {
		s.Registry = prometheus.NewRegistry()
	}
	if s.HTTP == "" {
		s.HTTP = ":8080"
	}
	s.started = time.Now()
	if s.Admin != "" && !s.tokens.Any() && !IsLoopback(s.Admin) {
		return fmt.Errorf("admin listener on %s: an address other than loopback needs a token (secrets.admin_token)", s.Admin)
	}
	if s.HTTPS != "" && s.Certificates == nil {
		return fmt.Errorf("edge listener on %s: TLS needs certificates", s.HTTPS)
	}
	s.makePurger()
	var err error
	if s.metrics, err = newMetrics(s.Registry, s.Store, s.origins); err != nil {
		return fmt.Errorf("register metrics: %w", err)
	}
	if err := s.AccessLog.start(s.Registry); err != nil {
		return fmt.Errorf("register metrics: %w", err)
	}
	s.senders.slow = s.metrics.slowWrites
	s.cache = newCache(s.Store)
	s.flights = &flights{store: s.Store, byKey: map[flightKey]*flight{}, slices: map[sliceKey][]*flight{}}
	s.conns = newConns(s.MaxConnections, s.MaxPerClient, s.Log)
	if err := s.Registry.Register(s.panicCounter()); err != nil {
		return err
	}
	if err := s.Registry.Register(s.purger.NotUnderstood()); err != nil {
		return fmt.Errorf("register metrics: %w", err)
	}
	if err := s.Registry.Register(s.conns); err != nil {
		return fmt.Errorf("register metrics: %w", err)
	}
	if len(s.Secrets) == 0 {
		s.Secrets = make([][32]byte, 1)
		_, _ = rand.Read(s.Secrets[0][:]) // it never fails
	}
	if err := s.bind(ctx); err != nil {
		return errors.Join(err, s.unbind())
	}
	s.loopID = "id=" + rand.Text()
	s.base, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	return nil
}

// bind binds the addresses.
func (s *Server) bind(ctx context.Context) error {
	for _, l := range []struct {
		what, keys, addr string
		to               *net.Listener
	}{{"edge listener", "--listen, or edge.http", s.HTTP, &s.http}, {"admin listener", "--admin, or edge.admin", s.Admin, &s.admin},
		{"listener for peers", "edge.peer", s.Peer, &s.peer}} {
		if l.addr == "" {
			continue
		}
		bind := listen
		if l.to == &s.http && s.ListenTCP != nil {
			bind = s.ListenTCP
		}
		bound, err := bind(ctx, l.addr)
		if err != nil {
			return fmt.Errorf("%s: %w", l.what, hintInUse(err, l.keys))
		}
		*l.to = bound
	}
	if s.HTTPS == "" {
		return nil
	}
	if err := s.bindSecure(ctx); err != nil {
		return fmt.Errorf("edge listener for TLS: %w", hintInUse(err, "edge.https"))
	}
	if err := s.Registry.Register(s.Certificates); err != nil {
		return fmt.Errorf("register metrics: %w", err)
	}
	if err := s.Certificates.Start(s.Log, s.http.Addr().(*net.TCPAddr), s.https.Addr().(*net.TCPAddr)); err != nil {
		return err
	}
	s.altSvc = http.Header{"Alt-Svc": {fmt.Sprintf(`h3=":%d"; ma=86400`, s.https.Addr().(*net.TCPAddr).Port)}}
	return nil
}

// bindSecure binds the address for TLS, for TCP and UDP. A port that the system chooses for one may
// be taken for the other.
func (s *Server) bindSecure(ctx context.Context) error {
	bind := listen
	if s.ListenTCP != nil {
		bind = s.ListenTCP
	}
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

// unbind gives back what bind bound.
func (s *Server) unbind() error {
	var err error
	for _, l := range []net.Listener{s.http, s.https, s.admin, s.peer} {
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

// hintInUse adds to the error of an address that is taken which keys and flags change it.
func hintInUse(err error, keys string) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%w: choose another address (%s), or stop what has this one", err, keys)
	}
	return err
}

// Addr is the address of the listener for clients, after Listen.
func (s *Server) Addr() net.Addr { return s.http.Addr() }

// SecureAddr is the address of the listener for clients over TLS, after Listen.
func (s *Server) SecureAddr() net.Addr { return s.https.Addr() }

// PeerAddr is the address of the listener for other edges, after Listen.
func (s *Server) PeerAddr() net.Addr { return s.peer.Addr() }

// AdminAddr is the address of the admin listener, after Listen.
func (s *Server) AdminAddr() net.Addr { return s.admin.Addr() }

// Sent is how many bytes of bodies were sent to clients and peers.
func (s *Server) Sent() uint64 { return s.sent.Load() }

// server is what answers on a listener.
type server interface {
	Shutdown(ctx context.Context) error
	Close() error
}

// Serve answers until ctx ends, then finishes what is under way. It returns nil if that was all.
func (s *Server) Serve(ctx context.Context) error {
	defer s.work.Wait()
	defer s.cancel()
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	var rest sync.WaitGroup
	defer rest.Wait()
	defer stop()
	rest.Go(func() { s.senders.serve(background) })
	rest.Go(func() { s.conns.serve(background) })
	if s.AccessLog != nil {
		rest.Go(func() { s.AccessLog.run(background) })
	}

	var servers []server
	failed := make(chan error, 7)
	serve := func(l net.Listener, h *http.Server) {
		servers = append(servers, h)
		go func() { failed <- h.Serve(l) }()
	}
	// ahead has the hit lane of a listener go ahead of an http.Server.
	ahead := func(l net.Listener, conf *tls.Config) {
		h, lane := s.newClientHTTP(), s.newLane(s.conns.listener(l), conf)
		servers = append(servers, &laneServer{h, lane})
		go func() { failed <- lane.serve() }()
		go func() { failed <- h.Serve(lane) }()
	}
	ahead(s.http, nil)
	if s.https != nil {
		conf := s.clientTLS("h2", "http/1.1", certs.ALPN)
		conf.SetSessionTicketKeys(s.ticketKeys(time.Now())) // before the first client
		rest.Go(func() { s.rotateTickets(background, conf, s.quic.tls) })
		ready := make(chan struct{})
		rest.Go(func() { s.Certificates.Serve(background, s.Log, sync.OnceFunc(func() { close(ready) })) })
		<-ready // connections that come meanwhile wait
		ahead(s.https, conf)
		h3 := s.newHTTP3()
		servers = append(servers, &http3Server{Server: h3, active: &s.activeQUIC})
		if err := s.quic.listen(); err != nil {
			failed <- fmt.Errorf("edge listener for HTTP/3: %w", err)
		} else {
			go func() { failed <- h3.ServeListener(s.quic.listener) }()
		}
	}
	if s.admin != nil {
		serve(s.admin, s.newHTTP(s.guard(s.adminHandler())))
	}
	if s.peer != nil {
		h := s.newHTTP(http.HandlerFunc(s.servePeer))
		h.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: maxPeerStreams}
		serve(newPeerListener(s.peer, s.PeerTLS), h)
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	return errors.Join(err, s.drain(context.WithoutCancel(ctx), servers))
}

// drain has each server tell its clients that no more is taken (GOAWAY, Connection: close) and
// finish what is under way, all at the same time, and waits for tunnels to end. What is not done
// when the time is over is cut off, and counted.
func (s *Server) drain(ctx context.Context, servers []server) error {
	limit := s.DrainTimeout
	if limit == 0 {
		limit = drainTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	ended := make(chan error, len(servers))
	for _, h := range servers {
		go func() {
			err := h.Shutdown(ctx)
			if ctx.Err() != nil {
				err = nil // it is cut off below
			}
			ended <- err
		}()
	}
	var err error
	tick := time.NewTicker(freshTimeout)
	defer tick.Stop()
	fresh := s.conns.closeFresh(nil)
	for left := len(servers); left > 0; {
		select {
		case e := <-ended:
			err = errors.Join(err, e)
			left--
		case <-tick.C:
			fresh = s.conns.closeFresh(fresh)
		}
	}
	zero(ctx, &s.active)
	if n := s.active.Load(); n > 0 {
		s.metrics.cut.Add(float64(n))
		s.Log.Warn("requests and tunnels that were under way are cut off", "number", n, "after", limit.String())
	}
	for _, h := range servers {
		err = errors.Join(err, h.Close())
	}
	s.conns.closeTunnels()
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), cutTimeout)
	defer cancel()
	zero(last, &s.active)
	if s.quic != nil {
		err = errors.Join(err, s.quic.close())
	}
	return err
}

// freshTimeout is how long a connection that never asked for anything may still begin to when the
// edge ends.
const freshTimeout = time.Second

// cutTimeout is how long requests that were cut off may take to notice.
const cutTimeout = 5 * time.Second

// zero waits until n is 0, or ctx ends.
func zero(ctx context.Context, n *atomic.Int64) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for n.Load() > 0 {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// Secure reports whether clients can come over TLS, whatever host of the sites they ask for.
func (s *Server) Secure() bool { return s.HTTPS != "" && s.Certificates.Complete() }

// newClientHTTP makes the server of HTTP/1.1 and HTTP/2 for clients.
func (s *Server) newClientHTTP() *http.Server {
	h := s.newHTTP(s)
	h.ConnState = s.conns.state
	h.ConnContext = withClient
	h.HTTP2 = &http.HTTP2Config{
		MaxConcurrentStreams: maxStreams, MaxDecoderHeaderTableSize: 4 << 10, MaxEncoderHeaderTableSize: 4 << 10, MaxReadFrameSize: 16 << 10,
		MaxReceiveBufferPerConnection: http2ConnectionWindow, MaxReceiveBufferPerStream: http2RequestWindow,
		SendPingTimeout: pingAfter, PingTimeout: pingTimeout, WriteByteTimeout: sendTimeout,
	}
	return h
}

func (s *Server) newHTTP(h http.Handler) *http.Server {
	return &http.Server{
		Handler:                      h,
		ReadHeaderTimeout:            headerTimeout, // and for a TLS handshake
		IdleTimeout:                  idleTimeout,
		MaxHeaderBytes:               maxHeaderBytes,
		DisableGeneralOptionsHandler: true, // of net/http, which answers OPTIONS * by itself
		ErrorLog:                     slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
	}
}
