package geodns

import (
	"context"
	"net/netip"
)

// probers are the probers of the running configuration. They belong to the goroutine of Serve.
type probers struct {
	server  *Server
	running map[probeKey]*prober
}

// probeKey is what a prober is known by: the node, and its address where each is probed.
type probeKey struct {
	node string
	addr netip.Addr
}

func newProbers(s *Server) *probers {
	return &probers{server: s, running: make(map[probeKey]*prober)}
}

// follow starts, replaces and ends probers until they are those of the current configuration.
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
			<-p.done // two probers must not write one state
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
		target: t, endpoint: e, check: httpCheck(t), report: ps.server.reported,
		stop: stop, first: make(chan struct{}), done: make(chan struct{}),
	}
	go p.run(ctx)
	return p
}

// firstRound waits until each has probed once, which takes no longer than the timeout.
func (ps *probers) firstRound() {
	for _, p := range ps.running {
		<-p.first
	}
}

// wait waits for all to end, after their context has.
func (ps *probers) wait() {
	for _, p := range ps.running {
		<-p.done
		p.stop() // frees the context
	}
}

// Probe probes each node once and returns when all have answered or their time is over. It is for
// who explains without serving.
func (s *Server) Probe(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ps := newProbers(s)
	ps.follow(ctx)
	ps.firstRound()
	cancel()
	ps.wait()
}
