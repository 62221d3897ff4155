//go:build linux

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/kaiku-cdn/kaiku/bench/world"
)

// trial is one fault, with the visitors that come before, during and after it.
type trial struct {
	fault
	lab           *lab
	before, after time.Duration // how long visitors come before the fault, and once it is mended
	tasks         []*task       // one for each load of the fault
	purged        chan []sample // receives what the purger saw after endPurges; nil without a purger
	endPurges     func()
	at, mended    time.Time
}

// try makes a fault happen while visitors come, mends it, and waits until all is well again. If
// only the last step fails, it returns what the visitors saw with the error.
func (l *lab) try(ctx context.Context, f fault) (*faultResult, error) {
	l.say("%s", f.title)
	if f.prepare != nil {
		undo, err := f.prepare(ctx, l)
		if undo != nil {
			defer undo()
		}
		if err != nil {
			return nil, err
		}
	}
	t := l.newTrial(f)
	defer func() { t.endPurges() }()
	if err := t.begin(ctx); err != nil {
		return nil, err
	}
	if err := t.happens(ctx); err != nil {
		return nil, err
	}
	res, err := t.result(ctx)
	if err != nil {
		return nil, err
	}
	return res, l.allSettled(ctx, f.name)
}

// newTrial returns a trial with the durations of the short or the long version.
func (l *lab) newTrial(f fault) *trial {
	t := &trial{fault: f, lab: l, before: 5 * time.Second, after: 10 * time.Second, endPurges: func() {}}
	if t.for_ == 0 {
		t.for_ = l.ttl + 25*time.Second
	}
	if l.short {
		t.before, t.after = 3*time.Second, 3*time.Second
		t.for_ = min(t.for_, l.ttl+10*time.Second)
	}
	return t
}

// begin starts the visitors and the purger.
func (t *trial) begin(ctx context.Context) error {
	if t.purges {
		var purging context.Context
		purging, t.endPurges = context.WithCancel(ctx)
		t.purged = make(chan []sample, 1)
		go func() { t.purged <- t.lab.purger(ctx, purging) }()
	}
	for _, v := range t.loads {
		task, err := t.lab.clients[v.city].begin(job{Load: &v.load})
		if err != nil {
			return err
		}
		t.tasks = append(t.tasks, task)
	}
	return world.Pause(ctx, t.before)
}

// happens makes the fault happen, mends it, and stops the visitors.
func (t *trial) happens(ctx context.Context) error {
	t.at = time.Now()
	if err := t.happen(ctx, t.lab); err != nil {
		return err
	}
	if err := world.Pause(ctx, t.for_); err != nil {
		return err
	}
	t.mended = time.Now()
	if t.mend != nil {
		if err := t.mend(ctx, t.lab); err != nil {
			return err
		}
	}
	if err := world.Pause(ctx, t.after); err != nil {
		return err
	}
	t.endPurges()
	for _, task := range t.tasks {
		if err := task.stop(); err != nil {
			return err
		}
	}
	return nil
}

// result waits for the visitors, and sums up what they saw.
func (t *trial) result(ctx context.Context) (*faultResult, error) {
	res := &faultResult{Name: t.name, Title: t.title, For: t.mended.Sub(t.at)}
	for k, v := range t.loads {
		var samples []sample
		if err := t.tasks[k].wait(ctx, &samples); err != nil {
			return nil, err
		}
		one := sum(samples, t.at, t.mended)
		one.Name, one.Within = v.name, v.within
		res.Loads = append(res.Loads, one)
	}
	if t.purged != nil {
		one := sum(<-t.purged, t.at, t.mended)
		one.Name = purgerName
		res.Loads = append(res.Loads, one)
	}
	return res, nil
}

// allSettled waits until all cities are well after a fault.
func (l *lab) allSettled(ctx context.Context, fault string) error {
	for _, c := range cities() {
		ctx, cancel := context.WithTimeoutCause(ctx, 2*time.Minute,
			fmt.Errorf("all is not well two minutes after %s", fault))
		err := l.settled(ctx, c)
		cancel()
		if err != nil {
			return err
		}
	}
	return nil
}

// purgerName is the name of the purger's load.
const purgerName = "who purges, at hel1"

// purger purges a URL that no edge has, through hel1, twice a second, until the second context
// ends.
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
		if world.Pause(until, time.Until(s.Start.Add(500*time.Millisecond))) != nil {
			return all
		}
	}
}
