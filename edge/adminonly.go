package edge

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/front"
	"github.com/kaiku-cdn/kaiku/edge/purge"
)

// Admin is the admin listener of a node that is no edge: it takes purges and drains for the fleet,
// and tells of it. Of the Server's fields it needs Name, Admin, Purges, Fleet, Registry and Log.
type Admin struct{ *Server }

// Listen binds the listener.
func (a Admin) Listen(ctx context.Context) (err error) {
	s := a.Server
	if s.Log == nil {
		s.Log = slog.Default()
	}
	if !s.tokens.Any() && !IsLoopback(s.Admin) {
		return fmt.Errorf("admin listener on %s: an address other than loopback needs a token (secrets.admin_token)",
			s.Admin)
	}
	s.makePurger()
	s.started = time.Now()
	s.panics = &front.Panics{Log: s.Log}
	if err := s.Registry.Register(s.panics.Collector()); err != nil {
		return err
	}
	s.admin, err = listenAdmin(ctx, s.Admin, "admin of the node")
	return err
}

// Serve answers until ctx ends.
func (a Admin) Serve(ctx context.Context) error { return a.serveAdmin(ctx) }

// listenAdmin binds the admin listener. Its address is set by some keys.
func listenAdmin(ctx context.Context, addr, keys string) (net.Listener, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("admin listener: %w", front.HintInUse(err, keys))
	}
	return l, nil
}

// serveAdmin answers on the admin listener until ctx ends.
func (s *Server) serveAdmin(ctx context.Context) error {
	h := front.NewHTTP(s.guard(s.adminHandler()), s.Log)
	failed := make(chan error, 1)
	go func() { failed <- h.Serve(s.admin) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	limit := cmp.Or(s.DrainTimeout, front.DrainTimeout)
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	if err := h.Shutdown(drain); err != nil {
		s.Log.Warn("requests of the admin listener are cut off", "after", limit.String(), "error", err)
		return h.Close()
	}
	return nil
}

// guard answers with h. If it panics, the answer is 500.
func (s *Server) guard(h http.Handler) http.Handler {
	return front.LimitBodies(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if p := recover(); p == http.ErrAbortHandler {
				panic(p)
			} else if p != nil {
				s.panics.Caught("the admin API", p, "method", r.Method, "path", r.URL.Path)
				purge.Fail(w, http.StatusInternalServerError, errPanic.Error())
			}
		}()
		h.ServeHTTP(w, r)
	}), s.bodyTimeout)
}

// needsStore answers with 404 on a node that has none.
func (s *Server) needsStore(serve http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if s.Store == nil {
			purge.Fail(w, http.StatusNotFound, "this node is no edge: ask one that is")
			return
		}
		serve(w, r)
	}
}
