package front

import (
	"context"
	"errors"
	"sync/atomic"
	"time"
)

// server is what answers on a listener.
type server interface {
	Shutdown(ctx context.Context) error
	Close() error
}

// drain has each server tell its clients that no more is taken (GOAWAY, Connection: close) and
// finish what is under way, all at the same time, and waits for tunnels to end. What is not done
// when the time is over is cut off, and counted.
func (s *Server) drain(ctx context.Context, servers []server) error {
	limit := s.DrainTimeout
	if limit == 0 {
		limit = DrainTimeout
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
		s.Metrics.cut.Add(float64(n))
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
