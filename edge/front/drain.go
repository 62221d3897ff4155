package front

import (
	"context"
	"errors"
	"sync/atomic"
	"time"
)

// server is the server of one listener.
type server interface {
	Shutdown(ctx context.Context) error
	Close() error
}

// drain shuts all servers down at the same time. Each tells its clients to make no more requests
// (GOAWAY, Connection: close) and finishes those under way. drain also waits for tunnels to end.
// When the time is over, it cuts off and counts the rest.
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
				err = nil // the rest is cut off below
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
		s.Log.Warn("active requests and tunnels were cut off", "number", n, "after", limit.String())
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

// freshTimeout is how long a connection without a request may still begin one when the edge stops.
const freshTimeout = time.Second

// cutTimeout is how long requests that were cut off may take to end.
const cutTimeout = 5 * time.Second

// zero waits until n is 0 or ctx ends.
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
