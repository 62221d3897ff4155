//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/kaiku-cdn/kaiku/bench/world"
)

// fault is something that goes wrong, and what visitors there are meanwhile.
type fault struct {
	name, title string
	// happen makes it, and mend makes it good again; either may be nil.
	happen, mend func(context.Context, *lab) error
	loads        []faultLoad
	for_         time.Duration // how long it stays once happen has returned; 0: long enough for names to move
	purges       bool          // somebody purges meanwhile
}

// faultLoad is a load of one city, and what is asked of it.
type faultLoad struct {
	name string
	city string
	load load
	// within is how long failures are allowed; 0: none are.
	within time.Duration
}

// faultResult is what visitors saw.
type faultResult struct {
	Name  string        `json:"name"`
	Title string        `json:"title"`
	For   time.Duration `json:"for"`
	Loads []loadResult  `json:"loads"`
}

// loadResult is what those of one city saw. Times are since the fault.
type loadResult struct {
	Within time.Duration  `json:"within,omitzero"` // failures are allowed for so long
	Name   string         `json:"name"`
	Before loadSum        `json:"before"`
	During loadSum        `json:"during"`
	After  loadSum        `json:"after"`
	First  float64        `json:"first_failure"` // seconds, of the start of the visit
	Well   float64        `json:"well"`          // seconds until the start of the last visit that failed; 0 if none did
	Late   float64        `json:"late"`          // milliseconds that 99 of 100 visitors began late at most
	Errors map[string]int `json:"errors,omitempty"`
}

// loadSum is a part of a load.
type loadSum struct {
	Visits int            `json:"visits"`
	Failed int            `json:"failed"`
	P50    float64        `json:"p50"`
	P99    float64        `json:"p99"`
	Most   float64        `json:"most"` // the longest
	Cache  map[string]int `json:"cache"`
	Served map[string]int `json:"served"` // by host
}

// failed is how many visits failed, of how many.
func (v loadResult) failed() (failed, visits int) {
	return v.Before.Failed + v.During.Failed + v.After.Failed, v.Before.Visits + v.During.Visits + v.After.Visits
}

// visitorsOf are visitors of a name, at a rate a second.
func (l *lab) visitorsOf(host string, rate int) load {
	var all []string
	for k := range 20 {
		all = append(all, fmt.Sprintf("/1k/load-%d", k))
	}
	return load{Proto: "h2", Host: host, Paths: all, Rate: rate, Size: bodies()["1k"], Retry: host == hostTwo}
}

const rate = 50 // visits a second from Finland

// usual are the visitors that there always are: from Finland, and some from the other cities.
func (l *lab) usual() []faultLoad {
	return []faultLoad{{name: "Helsinki", city: "hel", load: l.visitorsOf(hostWWW, rate)},
		{name: "New York", city: "nyc", load: l.visitorsOf(hostWWW, rate/5)}, {name: "Singapore", city: "sin",
			load: l.visitorsOf(hostWWW, rate/5)}}
}

// edgeGone are the visitors for when the edge in Helsinki is gone: its clients are to be elsewhere
// once the name's TTL is over and 10 s, and those who retry see nothing.
func (l *lab) edgeGone() []faultLoad {
	all := l.usual()
	all[0].within = l.ttl + 10*time.Second
	return append(all, faultLoad{name: "Helsinki, two answers", city: "hel", load: l.visitorsOf(hostTwo, rate)})
}

// staleVisitors ask for what was fresh for two seconds only.
func (l *lab) staleVisitors() faultLoad {
	v := l.visitorsOf(hostWWW, 10)
	v.Paths = []string{"/short/1", "/short/2", "/short/3"}
	return faultLoad{name: "Helsinki, of what is stale", city: "hel", load: v}
}

func killing(host string) (happen, mend func(context.Context, *lab) error) {
	return func(_ context.Context, l *lab) error { l.kill(host); return nil },
		func(_ context.Context, l *lab) error { return l.start(host) }
}

// stepClock steps the clock of what a host runs.
func (l *lab) stepClock(host string, by time.Duration) error {
	return l.process(host).StepClock(by)
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

// allFaults are tried one after the other.
func (l *lab) allFaults() []fault {
	usual := l.usual()
	cold := func(at string) []faultLoad { // each visitor asks the resolver, so that the name servers are heard of
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
	all[6].happen = func(context.Context, *lab) error { return nil } // the visitors are the fault; see prepare
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

// faults tries them.
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

// warm has all edges have all that visitors ask for.
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

// try has visitors come, has the fault happen, and mends it. What they saw is returned with an
// error that comes after it.
func (l *lab) try(ctx context.Context, f fault) (*faultResult, error) {
	l.say("%s", f.title)
	if f.name == "no-ecs" {
		l.kill("resolvernyc")
		dir := filepath.Join(l.dir, "resolvernyc")
		p, err := l.world.Start("resolvernyc", filepath.Join(l.dir, "resolvernyc.log"),
			resolver(dir, address("resolvernyc"), false)...)
		if err != nil {
			return nil, err
		}
		defer func() {
			p.Stop(syscall.SIGKILL, time.Second)
			_ = l.start("resolvernyc") // the next fault would tell
		}()
		if err := pause(ctx, time.Second); err != nil {
			return nil, err
		}
	}
	before, after := 5*time.Second, 10*time.Second
	if f.for_ == 0 {
		f.for_ = l.ttl + 25*time.Second
	}
	if l.short {
		before, after = 3*time.Second, 3*time.Second
		f.for_ = min(f.for_, l.ttl+10*time.Second)
	}
	purging, endPurges := context.WithCancel(ctx)
	defer endPurges()
	purged := make(chan []sample, 1)
	if f.purges {
		go func() { purged <- l.purger(ctx, purging) }()
	}
	var loads []*task
	for _, v := range f.loads {
		t, err := l.clients[v.city].begin(job{Load: &v.load})
		if err != nil {
			return nil, err
		}
		loads = append(loads, t)
	}
	if err := pause(ctx, before); err != nil {
		return nil, err
	}
	at := time.Now()
	if err := f.happen(ctx, l); err != nil {
		return nil, err
	}
	if err := pause(ctx, f.for_); err != nil {
		return nil, err
	}
	mended := time.Now()
	if f.mend != nil {
		if err := f.mend(ctx, l); err != nil {
			return nil, err
		}
	}
	if err := pause(ctx, after); err != nil {
		return nil, err
	}
	endPurges()
	for _, t := range loads {
		if err := t.stop(); err != nil {
			return nil, err
		}
	}
	res := &faultResult{Name: f.name, Title: f.title, For: mended.Sub(at)}
	for k, v := range f.loads {
		var samples []sample
		if err := loads[k].wait(ctx, &samples); err != nil {
			return nil, err
		}
		one := sum(samples, at, mended)
		one.Name, one.Within = v.name, v.within
		res.Loads = append(res.Loads, one)
	}
	if f.purges {
		one := sum(<-purged, at, mended)
		one.Name = purgerName
		res.Loads = append(res.Loads, one)
	}
	for _, c := range cities() {
		ctx, cancel := context.WithTimeoutCause(ctx, 2*time.Minute,
			fmt.Errorf("all is not well two minutes after %s", f.name))
		err := l.settled(ctx, c)
		cancel()
		if err != nil {
			return res, err
		}
	}
	return res, nil
}

// purgerName is the load of who purges.
const purgerName = "who purges, at hel1"

// purger purges what nobody has, at hel1, twice a second, until another context ends.
func (l *lab) purger(ctx, until context.Context) (all []sample) {
	for {
		s := sample{Start: time.Now()}
		one, cancel := context.WithTimeout(ctx, pageLimit)
		at, err := l.purge(one, "hel1", map[string]any{"urls": []string{"https://" + hostWWW + "/none"}})
		cancel()
		s.Took = float64(at.Sub(s.Start)) / float64(time.Millisecond)
		if err != nil {
			s.Err = err.Error()
		}
		all = append(all, s)
		if pause(until, time.Until(s.Start.Add(500*time.Millisecond))) != nil {
			return all
		}
	}
}

// names are the hosts of addresses.
func names() map[string]string {
	all := map[string]string{}
	for _, h := range hosts() {
		all[h.Addr.String()] = h.Name
	}
	return all
}

// sum looks at the visits before, during and after a fault.
func sum(all []sample, at, mended time.Time) loadResult {
	res := loadResult{Errors: map[string]int{}}
	var before, during, after []sample
	var late []float64
	for _, s := range all {
		late = append(late, s.Late)
		switch {
		case s.Start.Before(at.Add(-pageLimit / 5)): // those that begin just before it meet it
			before = append(before, s)
		case s.Start.Before(mended):
			during = append(during, s)
		default:
			after = append(after, s)
		}
		if s.Err != "" {
			since := s.Start.Sub(at).Seconds()
			if len(res.Errors) == 0 || since < res.First {
				res.First = since
			}
			if len(res.Errors) == 0 || since > res.Well {
				res.Well = since
			}
			res.Errors[shorten(s.Err)]++
		}
	}
	res.Late = quantile(late, 0.99)
	res.Before, res.During, res.After = sumOf(before), sumOf(during), sumOf(after)
	return res
}

func shorten(s string) string {
	const most = 120
	if len(s) > most {
		return s[:most]
	}
	return s
}

func sumOf(all []sample) loadSum {
	out := loadSum{Visits: len(all), Cache: map[string]int{}, Served: map[string]int{}}
	known := names()
	var took []float64
	for _, s := range all {
		if s.Err != "" {
			out.Failed++
			continue
		}
		took = append(took, s.Took)
		if s.Addr != "" { // purges have none
			out.Cache[kindOf(s.Cache)]++
			out.Served[known[s.Addr]]++
		}
	}
	out.P50, out.P99, out.Most = quantile(took, 0.5), quantile(took, 0.99), quantile(took, 1)
	return out
}

// sorted gives the keys of a count, the most first.
func sorted(count map[string]int) []string {
	return slices.SortedFunc(maps.Keys(count), func(a, b string) int { return count[b] - count[a] })
}
