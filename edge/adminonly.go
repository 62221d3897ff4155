package edge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

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
		return fmt.Errorf("admin listener on %s: an address other than loopback needs a token (secrets.admin_token)", s.Admin)
	}
	s.makePurger()
	s.started = time.Now()
	if err := s.Registry.Register(s.panicCounter()); err != nil {
		return err
	}
	if s.admin, err = listen(ctx, s.Admin); err != nil {
		return fmt.Errorf("admin listener: %w", hintInUse(err, "admin of the node"))
	}
	return nil
}

// Serve answers until ctx ends.
func (a Admin) Serve(ctx context.Context) error {
	h := a.newHTTP(a.guard(a.adminHandler()))
	failed := make(chan error, 1)
	go func() { failed <- h.Serve(a.admin) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	if err := h.Shutdown(drain); err != nil {
		return errors.Join(fmt.Errorf("requests of the admin listener were cut off after %v: %w", drainTimeout, err), h.Close())
	}
	return nil
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
