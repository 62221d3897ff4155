package admin

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kaiku-cdn/kaiku/edge/cache"
	"github.com/kaiku-cdn/kaiku/edge/certs"
	"github.com/kaiku-cdn/kaiku/edge/front"
	"github.com/kaiku-cdn/kaiku/edge/purge"
	"github.com/kaiku-cdn/kaiku/storage"
)

// Server is the admin listener of a node. Its fields are set before Listen and not changed after.
type Server struct {
	Version string // shown in the status; "" means none
	// Address is the host and port to listen on. If it is not loopback, Listen requires that there
	// is a token.
	Address string
	Setting string // key or flag that sets Address, for the error of an address in use
	// Purger makes the purges. The node's name, its sites and its tokens are those of the Purger.
	Purger   *purge.Purger
	Edge     *Edge           // nil on a node that is no edge
	Fleet    FleetView       // nil means that there are no other nodes
	Faults   func() []string // returns the faults of files that the node can't use; nil means none
	Reporter *Reporter       // measures this node; nil means one that knows nothing
	Registry *prometheus.Registry
	Panics   *front.Panics // nil means one of its own
	Log      *slog.Logger

	// ExplainDNS explains which edges a client gets for a name; nil on a node that is no name
	// server.
	ExplainDNS func(name string, client netip.Addr) (any, error)

	DrainTimeout time.Duration // for the requests under way when Serve ends; 0 means 30 s
	BodyTimeout  time.Duration // that a client may keep a body waiting; 0 means a minute

	listener net.Listener
	started  time.Time
	ending   chan struct{} // closed when Serve ends
	live     live
	own      History // of this node, if there are no others
}

// Edge is the part of an edge that its admin listener reports on.
type Edge struct {
	Store        *storage.Store
	Front        *front.Server
	Cache        *cache.Cache
	Certificates *certs.Certificates // nil means that the edge has no listener for TLS
}

// Listen binds the listener. It fails if Address is not loopback and there is no token.
func (s *Server) Listen(ctx context.Context) error {
	if !s.Purger.Tokens.Any() && !IsLoopback(s.Address) {
		return fmt.Errorf("admin listener on %s: outside loopback, it needs a token (secrets.admin_token)",
			s.Address)
	}
	if s.Reporter == nil {
		s.Reporter = &Reporter{}
	}
	if s.Panics == nil {
		s.Panics = &front.Panics{Log: s.Log}
		if err := s.Registry.Register(s.Panics.Collector()); err != nil {
			return fmt.Errorf("register metrics: %w", err)
		}
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.Address)
	if err != nil {
		return fmt.Errorf("admin listener: %w", front.HintInUse(err, s.Setting))
	}
	s.listener, s.started, s.ending = l, time.Now(), make(chan struct{})
	return nil
}

// Addr returns the address of the listener, after Listen.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Serve answers until ctx ends, then finishes the requests under way.
func (s *Server) Serve(ctx context.Context) error {
	h := front.NewHTTP(s.guard(s.handler()), s.Log)
	failed := make(chan error, 1)
	go func() { failed <- h.Serve(s.listener) }()
	tick := time.NewTicker(HistoryEvery)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case err := <-failed:
			return err
		case now := <-tick.C:
			if s.Fleet == nil {
				s.own.Add(now, []Reported{{Node: s.Purger.Node, Report: s.Reporter.Last()}})
			}
		case <-ctx.Done():
		}
	}
	close(s.ending)
	limit := cmp.Or(s.DrainTimeout, front.DrainTimeout)
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	if err := h.Shutdown(drain); err != nil {
		s.Log.Warn("requests of the admin listener were cut off", "after", limit.String(), "error", err)
		return h.Close()
	}
	return nil
}

// guard wraps h. It limits how slowly clients may send bodies, and answers 500 if h panics.
func (s *Server) guard(h http.Handler) http.Handler {
	return front.LimitBodies(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if p := recover(); p == http.ErrAbortHandler {
				panic(p)
			} else if p != nil {
				s.Panics.Caught("the admin API", p, "method", r.Method, "path", r.URL.Path)
				purge.Fail(w, http.StatusInternalServerError, "internal error: see the log of the node")
			}
		}()
		h.ServeHTTP(w, r)
	}), s.BodyTimeout)
}

// IsLoopback reports whether a listening address can only be reached from this machine.
func IsLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
