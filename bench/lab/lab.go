//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/kaiku-cdn/kaiku/bench/world"
	"github.com/kaiku-cdn/kaiku/bench/world/machine"
)

// lab is a world with a fleet in it.
type lab struct {
	options
	dir             string
	ttl             time.Duration
	maxDisconnected time.Duration
	together        time.Duration // how long the fleet took to start
	world           *world.World
	clients         map[string]*client // by the key of the city
	fresh           int                // number of the next unused URL

	mu      sync.Mutex
	running map[string]*world.Process // by host
}

// say prints progress.
func (l *lab) say(format string, args ...any) {
	fmt.Fprintf(l.log, "%s %s\n", time.Now().Format(time.TimeOnly), fmt.Sprintf(format, args...))
}

// build makes the world, and starts everything in it but the fleet. Unless the lab is nil, it must
// be closed, also after an error.
func build(ctx context.Context, o options) (l *lab, err error) {
	l = &lab{options: o, ttl: 20 * time.Second, maxDisconnected: 30 * time.Second, clients: map[string]*client{},
		running: map[string]*world.Process{}}
	if o.short {
		l.ttl, l.maxDisconnected = 5*time.Second, 10*time.Second
	}
	if l.world, err = world.New(1); err != nil {
		return nil, err
	}
	if l.dir, err = world.TempDir(dirPrefix); err != nil {
		return l, err
	}
	if err := writeFleet(l.dir, l.ttl, l.maxDisconnected); err != nil {
		return l, err
	}
	for _, h := range hosts() {
		if err := l.world.Add(h); err != nil {
			return l, err
		}
	}
	if l.near {
		if err := l.world.SetLinks("", func(k *world.Link) { k.Delay = world.InCity / 2 }); err != nil {
			return l, err
		}
	}
	for _, name := range []string{"origin", "resolverhel", "resolvernyc", "resolversin"} {
		if err := l.start(name); err != nil {
			return l, err
		}
	}
	for _, c := range cities() {
		if l.clients[c.key], err = l.newClient(c.key, address("resolver"+c.key)); err != nil {
			return l, err
		}
	}
	return l, ctx.Err()
}

// serve starts the fleet and waits until it is ready.
func (l *lab) serve(ctx context.Context) error {
	if _, err := l.world.Start("origin", filepath.Join(l.dir, "check.log"), l.kaiku, "check", "--config",
		l.config()); err != nil {
		return err
	}
	for _, name := range fleetHosts() {
		if err := l.start(name); err != nil {
			return err
		}
	}
	began := time.Now()
	err := l.ready(ctx)
	l.together = time.Since(began)
	if err == nil {
		l.say("the fleet is together after %v", l.together.Round(time.Second))
	}
	return err
}

// dirPrefix begins the names of labs' directories. The ID of the process follows.
const dirPrefix = "kaiku-lab-"

func (l *lab) config() string { return filepath.Join(l.dir, "fleet.yaml") }

// start starts what a host runs.
func (l *lab) start(name string) error {
	var args []string
	switch {
	case name == "origin":
		args = []string{"nginx", "-c", filepath.Join(l.dir, "nginx.conf"), "-p", l.dir}
	case len(name) > 8 && name[:8] == "resolver":
		dir := filepath.Join(l.dir, name)
		if err := errors.Join(os.MkdirAll(dir, 0o755),
			os.WriteFile(filepath.Join(dir, "recursor.conf"), nil, 0o644)); err != nil {
			return err
		}
		args = resolver(dir, address(name), true)
	default:
		args = []string{l.kaiku, "serve", "--config", l.config(), "--node", name}
	}
	p, err := l.world.Start(name, filepath.Join(l.dir, name+".log"), args...)
	if err != nil {
		return err
	}
	l.runs(name, p)
	return nil
}

// runs records what a host runs.
func (l *lab) runs(name string, p *world.Process) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.running[name] = p
}

// process returns what a host runs, or nil if nothing was started there yet.
func (l *lab) process(name string) *world.Process {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.running[name]
}

// kill kills what a host runs.
func (l *lab) kill(name string) { l.process(name).Stop(syscall.SIGKILL, time.Second) }

// ready waits until the fleet is ready, and each client gets the edge of its city.
func (l *lab) ready(ctx context.Context) error {
	l.say("waiting for the fleet")
	ctx, cancel := context.WithTimeoutCause(ctx, 4*time.Minute,
		errors.New("the fleet did not come together within four minutes"))
	defer cancel()
	for _, c := range cities() {
		if err := l.settled(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

// settled waits until a city's edge reports that all nodes are ready, and the city's client gets
// that edge.
func (l *lab) settled(ctx context.Context, c city) error {
	for {
		var status struct {
			Nodes []struct {
				Node        string
				Live, Ready bool
			}
		}
		why := l.admin(ctx, c.edge, "GET", "/v1/status", nil, &status)
		if why == nil {
			good := 0
			for _, n := range status.Nodes {
				if n.Live && n.Ready {
					good++
				}
			}
			if good < 5 { // three edges and two name servers
				why = fmt.Errorf("%s hears of %d nodes that are ready", c.edge, good)
			}
		}
		if why == nil {
			var v timing
			if v, why = l.clients[c.key].visit(ctx,
				visit{Proto: "h2", Host: hostWWW, Paths: []string{"/1k/ready"}}); why == nil &&
				v.Addr != address(c.edge) {
				why = fmt.Errorf("the client is sent to %s: %s", v.Addr, v.Err)
			}
		}
		if why == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w: %w", c.edge, context.Cause(ctx), why)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// admin calls the admin API of an edge from the edge's machine. out may be nil.
func (l *lab) admin(ctx context.Context, edge, method, path string, in, out any) error {
	_, err := l.world.Call(ctx, edge, method, "http://127.0.0.1:9080"+path, in, out)
	return err
}

// close ends everything.
func (l *lab) close() error {
	err := l.world.Close()
	if l.dir == "" {
		return err
	}
	if l.keep != "" {
		logs, bad1 := filepath.Glob(filepath.Join(l.dir, "*.log"))
		journals, bad2 := filepath.Glob(filepath.Join(l.machine("*"), machine.Journal))
		err = errors.Join(err, bad1, bad2, os.MkdirAll(l.keep, 0o755))
		for _, name := range append(logs, journals...) {
			b, bad := os.ReadFile(name)
			to := filepath.Base(name)
			if to == machine.Journal {
				to = filepath.Base(filepath.Dir(name)) + ".deployed.log"
			}
			err = errors.Join(err, bad, os.WriteFile(filepath.Join(l.keep, to), b, 0o644))
		}
	}
	return errors.Join(err, os.RemoveAll(l.dir))
}
