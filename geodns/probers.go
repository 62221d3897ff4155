package geodns

import "context"

// probers are the probers of the running configuration. They belong to the goroutine of Serve.
type probers struct {
	server  *Server
	running map[string]*prober // by node name
}

// follow starts, replaces and ends probers until they are those of the current configuration.
func (ps *probers) follow(ctx context.Context) {
	snap := ps.server.current.Load()
	wanted := make(map[string]target)
	for _, node := range snap.nodes {
		if node.Probe != "" {
			wanted[node.Name] = target{url: node.Probe, host: node.ProbeHost, health: snap.health}
		}
	}
	for name, p := range ps.running {
		if t, ok := wanted[name]; !ok || t != p.target || p.state != snap.states[name] {
			p.stop()
			<-p.done // two probers must not write one state
			delete(ps.running, name)
		}
	}
	for name, t := range wanted {
		if ps.running[name] == nil {
			ps.start(ctx, t, snap.states[name])
		}
	}
}

func (ps *probers) start(ctx context.Context, t target, state *nodeState) {
	ctx, stop := context.WithCancel(ctx)
	p := &prober{
		target: t, state: state, check: httpCheck(t), report: ps.server.reported,
		stop: stop, first: make(chan struct{}), done: make(chan struct{}),
	}
	ps.running[state.name] = p
	go p.run(ctx)
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

// Probe probes each node once and returns when all have answered or their time is over. It is for who explains without serving.
func (s *Server) Probe(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ps := &probers{server: s, running: make(map[string]*prober)}
	ps.follow(ctx)
	ps.firstRound()
	cancel()
	ps.wait()
}
