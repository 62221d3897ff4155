package origin

import (
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// A server that was killed and restarted gets requests again after two good probes, within two
// intervals, and begins with slow start.
func TestReturn(t *testing.T) {
	other := newServer(t, "other")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	var probes, probesBefore atomic.Int64
	serve := func(l net.Listener) *http.Server {
		s := &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/health" {
				probes.Add(1)
				return
			}
			probesBefore.CompareAndSwap(0, probes.Load())
		})}
		go func() { _ = s.Serve(l) }()
		return s
	}
	first := serve(l)
	p := startPool(t, &Pool{Servers: []Server{serverAt(t, "http://"+addr), serverAt(t, other.URL)}, Retries: 1,
		SlowStart: time.Hour,
		Health: &Health{Path: "/health", Interval: 50 * time.Millisecond, Timeout: 30 * time.Second,
			UnhealthyAfter: 1, HealthyAfter: 2}})
	state := func() ServerStatus { return p.Status().Servers[0] }
	first.Close()
	testwait.Until(t, "the probes find it dead", func() bool { return state().State == "unhealthy" })
	probes.Store(0)
	probesBefore.Store(0)
	if l, err = net.Listen("tcp", addr); err != nil {
		t.Fatal(err)
	}
	defer serve(l).Close()
	testwait.Until(t, "it gets a request", func() bool {
		if _, err := fetchBody(t, p, request(t, "GET", "/", "")); err != nil {
			t.Fatal(err)
		}
		return probesBefore.Load() > 0
	})
	if n := probesBefore.Load(); n < 2 || n > 3 { // the third probe may arrive before the request
		t.Errorf("it got a request after %d good probes, want 2", n)
	}
	if s := state(); s.State != "slow-start" || s.Share > 0.11 {
		t.Errorf("it is back with %+v", s)
	}
}
