//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/kaiku-cdn/kaiku/bench/world"
)

// fault is something that fails, and the visitors that come meanwhile.
type fault struct {
	name, title string
	// prepare runs before the visitors come, and undo after them, also if prepare fails; both may
	// be nil.
	prepare func(context.Context, *lab) (undo func(), err error)
	// happen makes the fault happen. mend ends it; may be nil.
	happen, mend func(context.Context, *lab) error
	loads        []faultLoad
	// how long it lasts after happen has returned; 0 means until clients have moved to other
	// addresses
	for_   time.Duration
	purges bool // whether somebody purges meanwhile
}

// faultLoad is a load from one city, and the goal for it.
type faultLoad struct {
	name string
	city string
	load load
	// within is how long failures are allowed; 0 means that none is.
	within time.Duration
}

// visitorsOf returns visitors of a host, at a rate a second.
func (l *lab) visitorsOf(host string, rate int) load {
	var all []string
	for k := range 20 {
		all = append(all, fmt.Sprintf("/1k/load-%d", k))
	}
	return load{Proto: "h2", Host: host, Paths: all, Rate: rate, Size: bodies()["1k"], Retry: host == hostTwo}
}

const rate = 50 // visits a second from Finland

// usual returns the visitors that always come: most from Helsinki, some from the other cities.
func (l *lab) usual() []faultLoad {
	return []faultLoad{{name: "Helsinki", city: "hel", load: l.visitorsOf(hostWWW, rate)},
		{name: "New York", city: "nyc", load: l.visitorsOf(hostWWW, rate/5)}, {name: "Singapore", city: "sin",
			load: l.visitorsOf(hostWWW, rate/5)}}
}

// edgeGone returns the visitors for faults of the edge in Helsinki. Its clients must reach another
// edge 10 s after the name's TTL at the latest. Clients that try a second address must notice
// nothing.
func (l *lab) edgeGone() []faultLoad {
	all := l.usual()
	all[0].within = l.ttl + 10*time.Second
	return append(all, faultLoad{name: "Helsinki, two answers", city: "hel", load: l.visitorsOf(hostTwo, rate)})
}

// staleVisitors request objects that are fresh for two seconds only.
func (l *lab) staleVisitors() faultLoad {
	v := l.visitorsOf(hostWWW, 10)
	v.Paths = []string{"/short/1", "/short/2", "/short/3"}
	return faultLoad{name: "Helsinki, of what is stale", city: "hel", load: v}
}

func killing(host string) (happen, mend func(context.Context, *lab) error) {
	return func(_ context.Context, l *lab) error { l.kill(host); return nil },
		func(_ context.Context, l *lab) error { return l.start(host) }
}

// stepClock steps the clock of a host's process.
func (l *lab) stepClock(host string, by time.Duration) error {
	return l.process(host).StepClock(by)
}

// withoutECS replaces the resolver in New York by one that sends no client subnet.
func withoutECS(ctx context.Context, l *lab) (undo func(), err error) {
	const host = "resolvernyc"
	l.kill(host)
	p, err := l.world.Start(host, filepath.Join(l.dir, host+".log"),
		resolver(filepath.Join(l.dir, host), address(host), false)...)
	if err != nil {
		return nil, err
	}
	return func() {
		p.Stop(syscall.SIGKILL, time.Second)
		_ = l.start(host) // if this fails, the next fault fails
	}, world.Pause(ctx, time.Second)
}

func cutting(a, b string) (happen, mend func(context.Context, *lab) error) {
	set := func(cut bool) func(context.Context, *lab) error {
		return func(_ context.Context, l *lab) error {
			if b == "" {
				return l.world.SetLinks(a, func(k *world.Link) { k.Cut = cut })
			}
			return l.world.SetLink(a, b, func(k *world.Link) { k.Cut = cut })
		}
	}
	return set(true), set(false)
}

// allFaults returns all faults. They are tried one after the other.
func (l *lab) allFaults() []fault {
	usual := l.usual()
	// visitors who ask the resolver each time, so that they notice the name servers
	cold := func(at string) []faultLoad {
		all := l.usual()
		all[0].load.Cold, all[0].load.At = true, at
		return all
	}
	all := []fault{
		{name: "edge-killed", title: "the edge in Helsinki is killed", loads: l.edgeGone()},
		{name: "edge-cut", title: "the edge in Helsinki is cut off, a black hole", loads: l.edgeGone()},
		{name: "origin-down", title: "the origin is killed", loads: append(l.usual(), l.staleVisitors()),
			for_: 30 * time.Second},
		{name: "origin-cut", title: "the link between the edge in Helsinki and the origin is cut",
			loads: append(l.usual(), l.staleVisitors()), for_: 30 * time.Second},
		{name: "dns-killed", title: "the name server in Helsinki is killed", loads: cold("")},
		{name: "dns-cut", title: "the name server in Helsinki is cut off, a black hole", loads: cold("")},
		{name: "no-ecs", title: "Finnish clients use a resolver in New York that sends no client subnet",
			loads: cold(address("resolvernyc")), for_: 10 * time.Second},
		{name: "loss", title: "2 % of all packets are lost", loads: usual, for_: 20 * time.Second},
	}
	all[0].happen, all[0].mend = killing("hel1")
	all[1].happen, all[1].mend = cutting("hel1", "")
	all[2].happen, all[2].mend = killing("origin")
	all[3].happen, all[3].mend = cutting("hel1", "origin")
	all[4].happen, all[4].mend = killing("ns1")
	all[5].happen, all[5].mend = cutting("ns1", "")
	all[6].prepare = withoutECS
	all[6].happen = func(context.Context, *lab) error { return nil } // prepare has made it happen
	loss := func(part float64) func(context.Context, *lab) error {
		return func(_ context.Context, l *lab) error {
			return l.world.SetLinks("", func(k *world.Link) { k.Loss = part })
		}
	}
	all[7].happen, all[7].mend = loss(0.02), loss(0)
	for _, by := range []time.Duration{2 * time.Hour, -2 * time.Hour} {
		f := fault{name: fmt.Sprintf("clock%+.0fh", by.Hours()),
			title: fmt.Sprintf("the clock of the edge in Helsinki steps by %v, and then to where it was", by),
			loads: append(l.usual(), l.staleVisitors()), for_: 15 * time.Second}
		f.happen = func(_ context.Context, l *lab) error { return l.stepClock("hel1", by) }
		f.mend = func(_ context.Context, l *lab) error { return l.stepClock("hel1", 0) }
		all = append(all, f)
	}
	for k, c := range cities() {
		f := fault{name: fmt.Sprintf("control-%d", k+1),
			title: fmt.Sprintf("the control node in %s is killed; one of the three leads", c.place), loads: usual,
			for_: 20 * time.Second, purges: true}
		f.happen, f.mend = killing(fmt.Sprintf("c%d", k+1))
		all = append(all, f)
	}
	return all
}

// faults tries the faults.
func (l *lab) faults(ctx context.Context, r *report) error {
	some := l.allFaults()
	if l.short {
		some = slices.DeleteFunc(some, func(f fault) bool { return f.name != "edge-killed" })
	}
	if l.only != "" {
		some = slices.DeleteFunc(some, func(f fault) bool { return f.name != l.only })
	}
	for _, f := range some {
		if err := l.warm(ctx); err != nil {
			return err
		}
		res, err := l.try(ctx, f)
		if res != nil {
			r.Faults = append(r.Faults, *res)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
	}
	return nil
}

// warm fills all edges with everything that visitors request.
func (l *lab) warm(ctx context.Context) error {
	results := make(chan error, len(cities()))
	for _, c := range cities() {
		go func() {
			for _, host := range []string{hostWWW, hostTwo} {
				for _, path := range append(l.visitorsOf(host, 1).Paths, l.staleVisitors().load.Paths...) {
					t, err := l.clients[c.key].visit(ctx,
						visit{Proto: "h2", Host: host, Paths: []string{path}, Addr: address(c.edge)})
					if err != nil || t.Err != "" {
						results <- fmt.Errorf("ask %s for %s: %s %w", c.edge, path, t.Err, err)
						return
					}
				}
			}
			results <- nil
		}()
	}
	var err error
	for range cities() {
		err = errors.Join(err, <-results)
	}
	return err
}
