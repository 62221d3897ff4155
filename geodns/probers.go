package geodns

import (
	"context"
	"net/netip"
)

// probers holds the probers of the current configuration. Only the goroutine of Serve uses it.
type probers struct {
	server  *Server
	running map[probeKey]*prober
}

// probeKey identifies a prober. addr is invalid if the node is probed at one URL for all its
// addresses.
type probeKey struct {
	node string
	addr netip.Addr
}

func newProbers(s *Server) *probers {
	return &probers{server: s, running: make(map[probeKey]*prober)}
}

// follow starts, replaces and stops probers until they match the current configuration.
func (ps *probers) follow(ctx context.Context) {
	snap := ps.server.current.Load()
	wanted := make(map[probeKey]target)
	endpoints := make(map[probeKey]*endpoint)
	for _, node := range snap.nodes {
		for _, e := range snap.states[node.Name].endpoints {
			key := probeKey{node.Name, e.addr}
			endpoints[key] = e
			wanted[key] = target{url: node.probeOf(e.addr), host: node.ProbeHost, health: snap.health}
		}
	}
	for key, p := range ps.running {
		if t, ok := wanted[key]; !ok || t != p.target || p.endpoint != endpoints[key] {
			p.stop()
			<-p.done // two probers must not write to one endpoint
			delete(ps.running, key)
		}
	}
	for key, t := range wanted {
		if ps.running[key] == nil {
			ps.running[key] = ps.start(ctx, t, endpoints[key])
		}
	}
}

func (ps *probers) start(ctx context.Context, t target, e *endpoint) *prober {
	ctx, stop := context.WithCancel(ctx)
	p := &prober{
		target: t, endpoint: e, check: httpCheck(t), report: ps.server.handleProbe,
		stop: stop, first: make(chan struct{}), done: make(chan struct{}),
	}
	go p.run(ctx)
	return p
}

// firstRound waits until every endpoint has been probed once, which takes at most the timeout of a
// probe.
func (ps *probers) firstRound() {
	for _, p := range ps.running {
		<-p.first
	}
}

// wait waits until all probers have ended. The caller has cancelled their context.
func (ps *probers) wait() {
	for _, p := range ps.running {
		<-p.done
		p.stop() // release the context
	}
}

// Probe probes each node once. It returns when all probes have ended, by a result or by their
// timeout. It is for callers that use Explain without Serve.
func (s *Server) Probe(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ps := newProbers(s)
	ps.follow(ctx)
	ps.firstRound()
	cancel()
	ps.wait()
}
