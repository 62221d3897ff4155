// Package edge is the HTTP node: it serves the hosts of its sites from the store, and fetches what
// is missing.
//
// Server makes the rooms and connects them: package front has the connections of clients, package
// cache answers requests, package purge removes objects, and package admin has the API for
// operators. The package itself only takes a request from one to the next (handler.go), and has the
// metrics of the store and of the origins.
package edge

import (
	"cmp"
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
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kaiku-cdn/kaiku/edge/admin"
	"github.com/kaiku-cdn/kaiku/edge/cache"
	"github.com/kaiku-cdn/kaiku/edge/certs"
	"github.com/kaiku-cdn/kaiku/edge/front"
	"github.com/kaiku-cdn/kaiku/edge/purge"
	"github.com/kaiku-cdn/kaiku/edge/rules"
	"github.com/kaiku-cdn/kaiku/edge/site"
	"github.com/kaiku-cdn/kaiku/storage"
)

// Server is an edge. Its fields are set before Listen and not changed after.
type Server struct {
	Version string // in the status; "" means none
	Name    string // in Via and Cache-Status, a token; "" means kaiku
	HTTP    string // address of the listener for clients; "" means :8080
	// address of the listener for clients over TLS: TCP for HTTP/1.1 and HTTP/2, UDP for HTTP/3; ""
	// means none
	HTTPS string
	// address of the admin listener; "" means none. One other than loopback needs Tokens before
	// Listen
	Admin   string
	Peer    string      // address of the listener for other edges of the fleet; "" means none
	PeerTLS *tls.Config // for Peer; it must require and verify client certificates
	// PurgeFrom are the networks whose clients may send PURGE and BAN to the listener for clients.
	// Without any, and without tokens, the edge treats PURGE and BAN like other methods.
	PurgeFrom    []netip.Prefix
	Certificates *certs.Certificates // for HTTPS
	// Secrets are shared by all edges of a fleet. The keys of session tickets and of QUIC tokens
	// are derived from them, so that a client may resume at any edge. The first secret makes
	// tickets, and tickets of all are accepted. Without any, the edge makes one of its own.
	Secrets [][32]byte
	// how many connections of clients there may be; 0 means half of the files that the process may
	// have open, at most 65,536
	MaxConnections int
	// how many of them one network may have: an IPv4 address or an IPv6 /64; 0 means 1,024.
	// Loopback has no limit
	MaxPerClient int
	NoHitLane    bool          // requests take the ordinary path, which is slower
	OwnHTTP2     bool          // use package front/http2 instead of net/http
	DrainTimeout time.Duration // for requests under way when the edge stops; 0 means 30 s
	Store        *storage.Store
	Purges       purge.Log       // nil means that purges apply to this edge only
	Fleet        admin.FleetView // nil means that there are no other nodes
	Faults       func() []string // files that the node can't use, for the status; nil means none
	Reporter     *admin.Reporter // measures the node; nil means one of its own
	// ExplainDNS is for a node that is a name server too; see admin.Server.
	ExplainDNS func(name string, client netip.Addr) (any, error)
	Registry   *prometheus.Registry // nil means one of its own
	Log        *slog.Logger         // nil means slog.Default
	AccessLog  *front.AccessLog     // nil means none

	// ListenTCP binds a listener for clients, plain or TLS, or returns one that is already bound;
	// nil means net.ListenConfig.
	ListenTCP func(ctx context.Context, addr string) (net.Listener, error)

	// Sites are what the edge serves. The caller starts the origins before it sets a site, and
	// closes those of the previous sites.
	Sites site.Table
	// Tokens are those of the admin API. Without any, every client that reaches it may use it.
	Tokens purge.Tokens

	purger *purge.Purger
	front  *front.Server
	panics *front.Panics
	cache  *cache.Cache
	hits   *cache.Hits   // nil without a hit lane
	admin  *admin.Server // nil without an admin listener

	refusals *prometheus.CounterVec // by the checks of rules
	limits   rules.Table

	// 0 means the constants of package front.
	bodyTimeout, bodyEnd, tunnelIdle, lastWrite time.Duration
	maxWaiting                                  int
}

// Listen binds the listeners.
func (s *Server) Listen(ctx context.Context) error {
	s.setDefaults()
	if s.HTTPS != "" && s.Certificates == nil {
		return fmt.Errorf("edge listener on %s: TLS needs certificates", s.HTTPS)
	}
	s.panics = &front.Panics{Log: s.Log}
	s.makePurger()
	s.makeFront()
	s.cache = &cache.Cache{Name: s.Name, Store: s.Store, Sites: &s.Sites, Purger: s.purger, Panics: s.panics,
		Log: s.Log}
	s.makeHits()
	s.makeAdmin()
	s.refusals = newRefusals()
	for _, c := range []prometheus.Collector{storeCollector{s.Store}, originCollector{&s.Sites},
		compressCollector{s.cache}, s.panics.Collector(), s.purger.NotUnderstood(), s.refusals} {
		if err := s.Registry.Register(c); err != nil {
			return fmt.Errorf("register metrics: %w", err)
		}
	}
	if err := s.front.Listen(ctx); err != nil {
		return err
	}
	if s.hits != nil {
		s.hits.Metrics, s.hits.AltSvc = s.front.Metrics, s.front.AltSvc()
	}
	if err := s.bind(ctx); err != nil {
		return errors.Join(err, s.front.Close())
	}
	s.cache.Start(ctx)
	return nil
}

func (s *Server) setDefaults() {
	s.Name, s.HTTP = cmp.Or(s.Name, "kaiku"), cmp.Or(s.HTTP, ":8080")
	if s.Log == nil {
		s.Log = slog.Default()
	}
	if s.Registry == nil {
		s.Registry = prometheus.NewRegistry()
	}
	if len(s.Secrets) == 0 {
		s.Secrets = make([][32]byte, 1)
		_, _ = rand.Read(s.Secrets[0][:]) // it never fails
	}
	if s.Reporter == nil {
		s.Reporter = &admin.Reporter{}
	}
}

// makePurger makes the Purger of this node.
func (s *Server) makePurger() {
	s.purger = &purge.Purger{Node: s.Name, Sites: &s.Sites, Store: s.Store, Purges: s.Purges, Edges: s.Fleet,
		Tokens: &s.Tokens, From: s.PurgeFrom, Log: s.Log,
		Refused: func(r *http.Request, status int, why string) { s.front.LogRefusal(r, status, why) }}
}

// makeFront makes the listeners for clients and other edges.
func (s *Server) makeFront() {
	s.front = &front.Server{
		Name: s.Name, HTTP: s.HTTP, HTTPS: s.HTTPS, Peer: s.Peer, PeerTLS: s.PeerTLS, Secrets: s.Secrets,
		Handler: handler{s}, AdmitPeer: s.admitPeer, OwnHTTP2: s.OwnHTTP2,
		MaxConnections: s.MaxConnections, MaxPerClient: s.MaxPerClient, MaxWaiting: s.maxWaiting,
		DrainTimeout: s.DrainTimeout,
		BodyTimeout:  s.bodyTimeout, EndTimeout: s.bodyEnd, TunnelIdle: s.tunnelIdle, SendTimeout: s.lastWrite,
		Registry: s.Registry, Panics: s.panics, Log: s.Log, AccessLog: s.AccessLog, ListenTCP: s.ListenTCP,
	}
	if s.Certificates != nil {
		s.front.GetCertificate, s.front.Challenges = s.Certificates.Get, []string{certs.ALPN}
	}
}

// makeHits makes the hit lane answer from the cache.
func (s *Server) makeHits() {
	if !s.NoHitLane {
		s.hits = &cache.Hits{Cache: s.cache, Secure: s.HTTPS != ""}
		s.front.Ready = s.hits
	}
}

// makeAdmin makes the admin listener, if there is one.
func (s *Server) makeAdmin() {
	of := &admin.Edge{Store: s.Store, Front: s.front, Cache: s.cache}
	if s.HTTPS != "" {
		of.Certificates = s.Certificates
	}
	s.Reporter.Edge, s.Reporter.Sites = of, &s.Sites
	if s.Admin == "" {
		return
	}
	s.admin = &admin.Server{
		Version: s.Version, Address: s.Admin, Setting: "--admin, or edge.admin", Purger: s.purger,
		Edge: of, Fleet: s.Fleet, Faults: s.Faults, Reporter: s.Reporter, ExplainDNS: s.ExplainDNS,
		Registry: s.Registry, Panics: s.panics, Log: s.Log, DrainTimeout: s.DrainTimeout, BodyTimeout: s.bodyTimeout,
	}
}

// bind binds the admin listener, and starts to order certificates for the listeners for clients.
func (s *Server) bind(ctx context.Context) error {
	if s.HTTPS != "" {
		if err := s.Registry.Register(s.Certificates); err != nil {
			return fmt.Errorf("register metrics: %w", err)
		}
		if err := s.Certificates.Start(s.Log, s.Addr().(*net.TCPAddr), s.SecureAddr().(*net.TCPAddr)); err != nil {
			return err
		}
	}
	if s.admin == nil {
		return nil
	}
	return s.admin.Listen(ctx)
}

// Addr is the address of the listener for clients, after Listen.
func (s *Server) Addr() net.Addr { return s.front.Addr() }

// SecureAddr is the address of the listener for clients over TLS, after Listen.
func (s *Server) SecureAddr() net.Addr { return s.front.SecureAddr() }

// PeerAddr is the address of the listener for other edges, after Listen.
func (s *Server) PeerAddr() net.Addr { return s.front.PeerAddr() }

// AdminAddr is the address of the admin listener, after Listen.
func (s *Server) AdminAddr() net.Addr { return s.admin.Addr() }

// Sent is how many bytes of bodies were sent to clients and peers.
func (s *Server) Sent() uint64 { return s.front.Sent() }

// Serve serves until ctx ends, then finishes the requests under way. It returns nil if it finished
// all of them.
func (s *Server) Serve(ctx context.Context) error {
	defer s.cache.Stop()
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	var rest sync.WaitGroup
	defer rest.Wait()
	defer stop()
	rest.Go(func() { _ = s.Reporter.Serve(background) }) // it never fails
	secure := make(chan struct{})
	if s.HTTPS != "" {
		rest.Go(func() { s.Certificates.Serve(background, s.Log, sync.OnceFunc(func() { close(secure) })) })
	}

	ctx, end := context.WithCancel(ctx) // the first service that fails ends the others
	defer end()
	services := []func(context.Context) error{func(ctx context.Context) error { return s.front.Serve(ctx, secure) }}
	if s.admin != nil {
		services = append(services, s.admin.Serve)
	}
	ended := make(chan error, len(services))
	for _, serve := range services {
		go func() {
			err := serve(ctx)
			end()
			ended <- err
		}()
	}
	var err error
	for range services {
		err = errors.Join(err, <-ended)
	}
	return err
}

// Secure reports whether clients can use TLS for every host of the sites.
func (s *Server) Secure() bool { return s.HTTPS != "" && s.Certificates.Complete() }

// Apply applies purges of the log; see purge.Purger.
func (s *Server) Apply(entries []purge.Logged, after storage.Position) error {
	return s.purger.Apply(entries, after)
}

// Suspect makes every object stale, because purges may have been missed up to a position; see
// purge.Purger.
func (s *Server) Suspect(now storage.Position) error { return s.purger.Suspect(now) }
