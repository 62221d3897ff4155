package geodns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Server is an authoritative DNS server. Its fields are set before any method is called: first
// Reload, then Listen, then Serve.
type Server struct {
	Addr       string                // host:port, bound for UDP and TCP; "" is ":53"; port 0 is any that is free for both
	More       []string              // more addresses of the kind
	Log        *slog.Logger          // nil is slog.Default()
	Registerer prometheus.Registerer // nil is no metrics
	Identity   string                // what NSID (RFC 5001) and CHAOS id.server say, at most 128 octets; "" is neither
	// CookieSecrets are what server cookies are made with (RFC 9018): the first makes them, and
	// those of all are good. All servers that a client may take for one must have the same. None is
	// a random one, made with the first configuration.
	CookieSecrets [][16]byte
	// Registry tells what the fleet's registry says of its nodes, by name; it is asked every second
	// and must not wait. What it says of a node stays until it says something else. nil is no
	// registry.
	Registry func() map[string]Report

	QueryLog *QueryLog // nil is none

	// ListenTCP binds the TCP listener, or returns one that is bound already, a *net.TCPListener;
	// nil is net.ListenConfig.
	ListenTCP func(ctx context.Context, addr string) (net.Listener, error)

	current atomic.Pointer[snapshot]
	epoch   atomic.Uint64 // increased after each change of what is known of a node: what was chosen before may be no more
	workers sync.Pool     // of *worker, for those who answer now and then
	changed chan struct{} // made with the first configuration; tells Serve to look at the nodes again

	mu      sync.Mutex // guards the order of changes: of current, and of what is logged and counted of nodes
	metrics *metrics   // set with the first configuration
	cookies cookies    // set with the first configuration
	limiter *limiter   // set with the first configuration

	challenges map[name]*rrset // guarded by mu, as all above

	began time.Time // when it began to serve; guarded by mu

	tcpLimits tcpLimits // the zero value is the usual ones

	udp sockets
	tcp listeners
}

// Reload validates a configuration and, if it is good, answers from it from then on, whole. The
// first call configures the server, and must succeed before Serve. A call that fails changes
// nothing; its error tells all that was found wrong. Probes of nodes that have not changed go on,
// and every node that stays keeps its state. The Config's contents must not be changed afterwards.
func (s *Server) Reload(cfg Config) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.Identity) > maxIdentity {
		return fmt.Errorf("geodns: identity has %d octets, want at most %d", len(s.Identity), maxIdentity)
	}
	before := s.current.Load()
	snap, err := newSnapshot(cfg, before)
	if err != nil {
		return err
	}
	snap.zones = snap.challenged(s.challenges)
	if before == nil {
		if s.metrics, err = newMetrics(s.Registerer); err != nil {
			return err
		}
		s.cookies = newCookies(s.CookieSecrets)
		s.limiter = newLimiter()
		s.changed = make(chan struct{}, 1)
		if s.QueryLog != nil {
			s.QueryLog.lines = make(chan logged, maxLogged)
		}
	}
	for _, e := range snap.edges {
		e.inherit(before)
	}
	s.checkSerials(snap, before)
	s.metrics.zoneCounters(snap, before)
	s.current.Store(snap)
	s.metrics.nodes(snap, before)
	s.checkEdges(snap)
	select {
	case s.changed <- struct{}{}:
	default: // told already
	}
	if db := snap.locator.db; db != nil && (before == nil || before.locator.db != db) {
		before = nil
		debug.FreeOSMemory() // the database of before is as large as all else together
	}
	return nil
}

// checkSerials warns of serials that go backwards: secondaries and whoever compares copies would
// not take the zone (RFC 1982).
func (s *Server) checkSerials(now, before *snapshot) {
	if before == nil {
		return
	}
	for origin, z := range now.zones {
		if old := before.zones[origin]; old != nil && int32(z.serial()-old.serial()) < 0 {
			s.log().Warn("geodns: a zone's serial went backwards", "zone", z.Name(), "serial", z.serial(), "before", old.serial())
		}
	}
}

// Serve probes and answers until ctx ends, which is no error. It answers nothing before each node
// was probed once, or has had the time to answer. When it returns the sockets are closed and every
// goroutine that it started has ended.
func (s *Server) Serve(ctx context.Context) error {
	if s.udp == nil {
		return errors.New("geodns: Serve without Listen")
	}
	if s.current.Load() == nil {
		return errors.Join(errors.New("geodns: Serve without a configuration"), s.udp.Close(), s.tcp.Close())
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	probers := newProbers(s)
	defer probers.wait()
	defer cancel() // before the wait

	s.mu.Lock()
	s.began = time.Now()
	s.mu.Unlock()
	<-s.changed // what the first configuration has put there, or a later one
	probers.follow(ctx)
	probers.firstRound()
	s.askRegistry(0)

	var listeners sync.WaitGroup
	failed := make(chan error, 2)
	listeners.Go(func() { failed <- s.serveUDP() })
	listeners.Go(func() { failed <- s.serveTCP(ctx) })

	if s.QueryLog != nil {
		listeners.Go(func() { s.QueryLog.run(ctx) })
	}

	var err error
	tick := time.NewTicker(registryInterval)
	defer tick.Stop()
	for running := true; running; {
		select {
		case <-s.changed:
			probers.follow(ctx)
		case <-tick.C:
			s.askRegistry(registryInterval)
		case err = <-failed:
			running = false
		case <-ctx.Done():
			running = false
		}
	}
	cancel()
	err = errors.Join(err, s.udp.Close(), s.tcp.Close())
	listeners.Wait()
	return err
}

// registryInterval is how often the registry is asked.
const registryInterval = time.Second

// askRegistry takes what the registry says, some time after it was asked last.
func (s *Server) askRegistry(passed time.Duration) {
	if s.Registry == nil {
		return
	}
	reports := s.Registry()
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, state := range s.current.Load().states {
		if r, ok := reports[name]; ok && state.take(r, passed) {
			s.epoch.Add(1)
			s.metrics.node(state)
		}
	}
}

// Healthy tells of every node whether it is answered as a healthy one: it is not probed, or its
// probes succeed.
func (s *Server) Healthy() map[string]bool {
	all := make(map[string]bool)
	if snap := s.current.Load(); snap != nil {
		for name, state := range snap.states {
			all[name] = state.isHealthy()
		}
	}
	return all
}

// GeoIPFault tells why the geoip database in use is not that of the configuration, but the one of
// before or its copy; nil if it is.
func (s *Server) GeoIPFault() error {
	if snap := s.current.Load(); snap != nil {
		return snap.geoipFault
	}
	return nil
}

// LocalAddr is the address that is bound, after Listen: the first of several.
func (s *Server) LocalAddr() netip.AddrPort {
	if s.udp == nil {
		return netip.AddrPort{}
	}
	return s.udp.LocalAddr().(*net.UDPAddr).AddrPort()
}

func (s *Server) log() *slog.Logger {
	if s.Log != nil {
		return s.Log
	}
	return slog.Default()
}

// reported takes the result of a probe: it counts, and logs what has changed.
func (s *Server) reported(e *endpoint, changed bool, took time.Duration, err error) {
	if changed {
		s.epoch.Add(1)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	snap, state := s.current.Load(), e.node
	if snap.states[state.name] != state {
		return // the node has left meanwhile
	}
	s.metrics.probe.WithLabelValues(state.name).Observe(took.Seconds())
	result := "ok"
	switch {
	case errors.Is(err, errNoRoute):
		result = "no_route"
	case err != nil:
		result = "failed"
	}
	s.metrics.probes.WithLabelValues(state.name, result).Inc()
	if changed {
		s.metrics.node(state)
	}
	s.logAddress(e, changed, err)
	if result == "no_route" {
		err = nil // it says nothing of the node
	}
	phase := state.nowPhase()
	changed = phase != state.phase
	state.phase = phase
	ill := phase == unhealthy
	switch {
	case changed && !ill:
		if phase != healthy {
			return
		}
		state.wasUp, state.told = true, false
		s.log().Info("geodns: node is healthy", "node", state.name)
	case ill && !state.told && err != nil && (state.wasUp || !s.starting()):
		state.told = true
		s.log().Warn("geodns: node is unhealthy", "node", state.name, "err", err)
	case changed:
		s.log().Info("geodns: node is not healthy yet", "node", state.name, "err", err)
	case !ill || s.starting():
		return
	}
	s.checkEdges(snap)
}

// logAddress logs what has become of one of several addresses of a node. s.mu is held.
func (s *Server) logAddress(e *endpoint, changed bool, err error) {
	if len(e.node.endpoints) < 2 {
		return // what is logged of the node says it
	}
	switch phase := e.phase.Load(); {
	case phase == healthy && e.told:
		s.log().Info("geodns: an address of a node answers again", "node", e.node.name, "address", e.addr)
	case phase == unroutable && changed:
		s.log().Info("geodns: no route to an address of a node: its others tell its health", "node", e.node.name, "address", e.addr)
	case phase == unhealthy && !e.told && err != nil && e.node.isHealthy() && (e.wasUp || !s.starting()):
		e.told = true
		s.log().Warn("geodns: an address of a node does not answer, and is left out of answers", "node", e.node.name, "address", e.addr, "err", err)
	}
	if e.phase.Load() == healthy {
		e.wasUp, e.told = true, false
	}
}

// startTime is how long the nodes of a fleet may take to start along with this server. One that was
// not healthy before is warned of after that.
const startTime = 20 * time.Second

func (s *Server) starting() bool { return time.Since(s.began) < startTime }

// checkEdges logs which edge names have lost their last healthy node, or have one again. s.mu is
// held.
func (s *Server) checkEdges(snap *snapshot) {
	for _, e := range snap.edges {
		switch down := e.checkDown(); {
		case down && !e.allDown && (e.wasUp || !s.starting()):
			e.allDown = true
			s.log().Error("geodns: no node of an edge name is healthy, answering with unhealthy ones", "name", e.name.String())
		case !down && e.allDown:
			e.allDown = false
			s.log().Info("geodns: an edge name has a healthy node again", "name", e.name.String())
		}
	}
}
