// Package edge is the HTTP node: it answers the hosts of its sites from the store and fetches what is missing.
//
// A request takes this way: site by Host, key, look-up. A fresh response is served from the store; a stale one is validated, before or, where
// allowed, after it is served. On a miss the request joins the flight of its key: one fetch from the origin that is stored as it comes, and
// that every waiting client follows at its own pace. Methods other than GET and HEAD, and responses that can't be stored, are passed through. What may be stored and
// used is decided in httpcache.
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

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kaiku-cdn/kaiku/storage"
)

// Server is an edge. The fields are set before Listen and not changed after.
type Server struct {
	Name    string      // in Via and Cache-Status, a token; "" means kaiku
	HTTP    string      // address of the listener for clients; "" means :8080
	Admin   string      // address of the admin listener; "" means none
	Peer    string      // address of the listener for other edges of the fleet; "" means none
	PeerTLS *tls.Config // of that; it has to ask clients for a certificate and verify it
	Token   string      // bearer token of the admin listener that may do all; this or one of Tokens is needed unless that is on loopback
	Tokens  []Token     // more of them
	// PurgeFrom are the networks whose clients may send PURGE and BAN to the listener for clients. Without any, and without tokens, these are methods like others.
	PurgeFrom []netip.Prefix
	Store     *storage.Store
	Purges    PurgeLog             // nil means that purges are this edge's own
	Fleet     Fleet                // nil means that there are no other nodes
	Registry  *prometheus.Registry // "" means one of its own
	Log       *slog.Logger         // nil means slog.Default

	// ListenTCP binds the listener for clients, or returns one that is bound already; nil means net.ListenConfig.
	ListenTCP func(ctx context.Context, addr string) (net.Listener, error)

	sites   atomic.Pointer[sites]
	cache   *cache
	flights *flights
	metrics *metrics
	// refusals are the kinds of refused requests that were logged lately.
	refusals notes

	// loopID tells this edge from every other one in the field CDN-Loop.
	loopID string

	sent              atomic.Uint64 // bytes of bodies
	http, admin, peer net.Listener
	base              context.Context // of flights
	cancel            context.CancelFunc
	work              sync.WaitGroup // flights
}

// SetSites replaces what the edge serves. The origins are started already; those of before are the caller's to close.
func (s *Server) SetSites(list []*Site) { s.sites.Store(newSites(list)) }

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
	if s.Admin != "" && !s.hasTokens() && !isLoopback(s.Admin) {
		return fmt.Errorf("admin listener on %s: an address other than loopback needs a token (secrets.admin_token)", s.Admin)
	}
	if s.sites.Load() == nil {
		s.SetSites(nil)
	}
	var err error
	if s.metrics, err = newMetrics(s.Registry, s.Store, s.origins); err != nil {
		return fmt.Errorf("register metrics: %w", err)
	}
	s.cache = newCache(s.Store)
	s.flights = &flights{store: s.Store, byKey: map[string]*flight{}}
	bind := s.ListenTCP
	if bind == nil {
		bind = listen
	}
	clients, err := bind(ctx, s.HTTP)
	if err != nil {
		return fmt.Errorf("edge listener: %w", err)
	}
	s.http = limitClients(clients, s.Log)
	if s.Admin != "" {
		if s.admin, err = listen(ctx, s.Admin); err != nil {
			return errors.Join(fmt.Errorf("admin listener: %w", err), s.http.Close())
		}
	}
	if s.Peer != "" {
		if s.peer, err = listen(ctx, s.Peer); err != nil {
			err = errors.Join(fmt.Errorf("listener for peers: %w", err), s.http.Close())
			if s.admin != nil {
				err = errors.Join(err, s.admin.Close())
			}
			return err
		}
	}
	s.loopID = "id=" + rand.Text()
	s.base, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	return nil
}

func listen(ctx context.Context, addr string) (net.Listener, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("%w: choose another address, or stop what has this one", err)
	}
	return l, nil
}

// Addr is the address of the listener for clients, after Listen.
func (s *Server) Addr() net.Addr { return s.http.Addr() }

// PeerAddr is the address of the listener for other edges, after Listen.
func (s *Server) PeerAddr() net.Addr { return s.peer.Addr() }

// AdminAddr is the address of the admin listener, after Listen.
func (s *Server) AdminAddr() net.Addr { return s.admin.Addr() }

// Sent is how many bytes of bodies were sent to clients and peers.
func (s *Server) Sent() uint64 { return s.sent.Load() }

// Serve answers until ctx ends, then finishes what is under way. It returns nil if that was all.
func (s *Server) Serve(ctx context.Context) error {
	defer s.work.Wait()
	defer s.cancel()
	servers := []*http.Server{s.newHTTP(s)}
	listeners := []net.Listener{s.http}
	if s.admin != nil {
		servers = append(servers, s.newHTTP(s.adminHandler()))
		listeners = append(listeners, s.admin)
	}
	if s.peer != nil {
		h := s.newHTTP(http.HandlerFunc(s.servePeer))
		h.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: 1000}
		servers = append(servers, h)
		listeners = append(listeners, tls.NewListener(s.peer, s.PeerTLS))
	}
	failed := make(chan error, len(servers))
	for i, h := range servers {
		go func() { failed <- h.Serve(listeners[i]) }()
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	for _, h := range servers {
		if e := h.Shutdown(drain); e != nil {
			err = errors.Join(err, fmt.Errorf("requests were cut off after %v: %w", drainTimeout, e), h.Close())
		}
	}
	return err
}

func (s *Server) newHTTP(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
	}
}
