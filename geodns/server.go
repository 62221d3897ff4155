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

// Server is an authoritative DNS server. Set its fields before calling any method. Call Reload
// first, then Listen, then Serve.
type Server struct {
	// Addr is the host:port to bind for UDP and TCP. "" means ":53". Port 0 means any port that is
	// free for both.
	Addr       string
	More       []string              // further addresses like Addr
	Log        *slog.Logger          // nil means slog.Default()
	Registerer prometheus.Registerer // nil means no metrics
	// Identity is the answer to NSID (RFC 5001) and to CHAOS id.server, at most 128 octets. ""
	// means no answer.
	Identity string
	// CookieSecrets are the secrets of server cookies (RFC 9018). The first secret makes new
	// cookies. Cookies of all secrets are accepted. Servers that a client may take for one another
	// must have the same secrets. If there are none, the first configuration makes a random one.
	CookieSecrets [][16]byte
	// Registry returns what the fleet's registry says about nodes, by name. It is called every
	// second and must not block. A report stays in effect until there is another one about the
	// node. nil means that there is no registry.
	Registry func() map[string]Report

	QueryLog *QueryLog // nil means no query log

	// ListenTCP binds the TCP listener, or returns one that is already bound. The listener must be
	// a *net.TCPListener. nil means to use net.ListenConfig.
	ListenTCP func(ctx context.Context, addr string) (net.Listener, error)

	current atomic.Pointer[snapshot]
	// The epoch increases after each change of a node's state, which invalidates remembered
	// choices.
	epoch atomic.Uint64
	// Workers for callers that answer only now and then, as *worker.
	workers sync.Pool
	// Makes Serve look at the nodes again. Created by the first Reload, as resign is.
	changed chan struct{}
	resign  chan struct{} // makes Serve sign ahead again

	// mu guards the order of changes to current, and what is logged and counted about nodes.
	mu          sync.Mutex
	metrics     *metrics     // set by the first Reload
	cookies     cookies      // set by the first Reload
	limiter     *limiter     // set by the first Reload
	signingNow  func() int64 // for tests: the wall clock in Unix seconds; nil means time.Now
	signingFree bool         // for tests: signatures may take all of the time

	challenges map[name]*rrset // guarded by mu

	began time.Time // when Serve began; guarded by mu

	tcpLimits tcpLimits // the zero value means defaultTCPLimits
	served    served

	udp sockets
	tcp listeners
}

// Reload validates a configuration and replaces the current one as a whole. The first call must
// succeed before Serve. If a call fails, nothing changes, and its error has everything that is
// wrong with the configuration. Nodes that stay keep their state, and the probes of unchanged nodes
// continue. The caller must not change the Config's contents afterwards.
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
		s.changed, s.resign = make(chan struct{}, 1), make(chan struct{}, 1)
		s.served.samples = make(chan sample, maxSamples)
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
	for _, to := range []chan struct{}{s.changed, s.resign} {
		select {
		case to <- struct{}{}:
		default: // Serve is already notified
		}
	}
	if db := snap.locator.db; db != nil && (before == nil || before.locator.db != db) {
		before = nil
		debug.FreeOSMemory() // the old database may take as much memory as everything else
	}
	return nil
}

// checkSerials logs a warning for each zone whose serial went backwards (RFC 1982). Secondaries and
// tools that compare copies would ignore such a zone.
func (s *Server) checkSerials(now, before *snapshot) {
	if before == nil {
		return
	}
	for origin, z := range now.zones {
		if old := before.zones[origin]; old != nil && int32(z.serial()-old.serial()) < 0 {
			s.log().Warn("geodns: a zone's serial went backwards",
				"zone", z.Name(), "serial", z.serial(), "before", old.serial())
		}
	}
}

// Serve probes the nodes and answers queries until ctx is done, which is not an error. It answers
// no query before each node has been probed once or its first probe has timed out. When Serve
// returns, the sockets are closed and every goroutine that it started has ended.
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
	defer cancel() // before wait

	s.mu.Lock()
	s.began = time.Now()
	s.mu.Unlock()
	<-s.changed // the notification of the first Reload, or of a later one
	probers.follow(ctx)
	probers.firstRound()
	s.pollRegistry(0)

	var listeners sync.WaitGroup
	failed := make(chan error, 2)
	listeners.Go(func() { failed <- s.serveUDP() })
	listeners.Go(func() { failed <- s.serveTCP(ctx) })

	listeners.Go(func() { s.signAhead(ctx) })
	listeners.Go(func() { s.served.run(ctx, s) })
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
			s.pollRegistry(registryInterval)
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

// registryInterval is the time between two polls of the registry.
const registryInterval = time.Second

// pollRegistry applies the registry's reports. passed is the time since the last poll.
func (s *Server) pollRegistry(passed time.Duration) {
	if s.Registry == nil {
		return
	}
	reports := s.Registry()
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, state := range s.current.Load().states {
		if r, ok := reports[name]; ok && state.applyReport(r, passed) {
			s.epoch.Add(1)
			s.metrics.node(state)
		}
	}
}

// Healthy reports, by the name of each node, whether answers treat the node as healthy: its probes
// succeed, or it has none.
func (s *Server) Healthy() map[string]bool {
	all := make(map[string]bool)
	if snap := s.current.Load(); snap != nil {
		for name, state := range snap.states {
			all[name] = state.isHealthy()
		}
	}
	return all
}

// GeoIPFault returns why the server uses an older geoip database or the copy instead of the
// configured file. It returns nil if it uses the configured file.
func (s *Server) GeoIPFault() error {
	if snap := s.current.Load(); snap != nil {
		return snap.geoipFault
	}
	return nil
}

// LocalAddr returns the bound address after Listen, the first one if there are several. Before
// Listen it returns an invalid address.
func (s *Server) LocalAddr() netip.AddrPort {
	if s.udp == nil {
		return netip.AddrPort{}
	}
	return s.udp.LocalAddr().(*net.UDPAddr).AddrPort()
}

// wallClock returns the time that signatures are made for, in Unix seconds.
func (s *Server) wallClock() int64 {
	if s.signingNow != nil {
		return s.signingNow()
	}
	return time.Now().Unix()
}

func (s *Server) log() *slog.Logger {
	if s.Log != nil {
		return s.Log
	}
	return slog.Default()
}

// handleProbe takes the result of a probe. It updates the metrics, and logs changes.
func (s *Server) handleProbe(e *endpoint, changed bool, took time.Duration, err error) {
	if changed {
		s.epoch.Add(1)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	snap, state := s.current.Load(), e.node
	if snap.states[state.name] != state {
		return // the node has been removed meanwhile
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
		err = nil // it says nothing about the node
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
		state.wasUp, state.warned = true, false
		s.log().Info("geodns: node is healthy", "node", state.name)
	case ill && !state.warned && err != nil && (state.wasUp || !s.starting()):
		state.warned = true
		s.log().Warn("geodns: node is unhealthy", "node", state.name, "err", err)
	case changed:
		s.log().Info("geodns: node is not healthy yet", "node", state.name, "err", err)
	case !ill || s.starting():
		return
	}
	s.checkEdges(snap)
}

// logAddress logs changes of one of several addresses of a node. The caller holds s.mu.
func (s *Server) logAddress(e *endpoint, changed bool, err error) {
	if len(e.node.endpoints) < 2 {
		return // logging about the node is enough
	}
	switch phase := e.phase.Load(); {
	case phase == healthy && e.warned:
		s.log().Info("geodns: an address of a node is healthy again", "node", e.node.name, "address", e.addr)
	case phase == unroutable && changed:
		s.log().Info("geodns: no route to an address of a node: its other addresses decide its health",
			"node", e.node.name, "address", e.addr)
	case phase == unhealthy && !e.warned && err != nil && e.node.isHealthy() && (e.wasUp || !s.starting()):
		e.warned = true
		s.log().Warn("geodns: an address of a node is unhealthy, and left out of answers",
			"node", e.node.name, "address", e.addr, "err", err)
	}
	if e.phase.Load() == healthy {
		e.wasUp, e.warned = true, false
	}
}

// startTime is how long the nodes of a fleet may take to start along with this server. Only after
// that does the server log a warning about a node that has never been healthy.
const startTime = 20 * time.Second

func (s *Server) starting() bool { return time.Since(s.began) < startTime }

// checkEdges logs which edge names have lost their last healthy node, and which have a healthy node
// again. The caller holds s.mu.
func (s *Server) checkEdges(snap *snapshot) {
	for _, e := range snap.edges {
		switch down := e.checkDown(); {
		case down && !e.allDown && (e.wasUp || !s.starting()):
			e.allDown = true
			s.log().Error("geodns: no node of an edge name is healthy, answering with unhealthy ones",
				"name", e.name.String())
		case !down && e.allDown:
			e.allDown = false
			s.log().Info("geodns: an edge name has a healthy node again", "name", e.name.String())
		}
	}
}
