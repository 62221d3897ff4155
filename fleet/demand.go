package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	// askTime bounds a question for the registry, apart from how long it waits for a change.
	askTime = 2 * time.Second
	// askAfter is how old an answer may be that is as good as a new one.
	askAfter = 250 * time.Millisecond
	// watchFor is how long a node watches all leases that heard of no control node that answers.
	watchFor = 20 * time.Second
)

// demand is what a Registry with OnDemand was told by the control plane (see roster). Its fields
// but asking are guarded by the registry's mu.
type demand struct {
	asking sync.Mutex // held while a question that waits for no change is asked
	asked  time.Time  // when that was
	roster string
	since  uint64
	leases map[string]Lease
	old    bool          // no control node answers, as all are of an earlier version
	none   chan struct{} // gets something when that begins
	stop   func()        // ends poll; nil without it
}

// asks reports whether others are asked for what is known, rather than watched.
func (r *Registry) asks() bool {
	if !r.OnDemand {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.demand.old
}

// mustWatch reports whether a registry has to watch all leases, and gives what tells it that this
// may be otherwise now.
func (r *Registry) mustWatch(ctx context.Context) (watch bool, again <-chan time.Time, old <-chan struct{}) {
	if !r.OnDemand {
		return true, nil, nil
	}
	if err := r.ask(ctx, false); errors.Is(err, nats.ErrNoResponders) {
		return true, time.After(watchFor), nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.demand.none == nil {
		r.demand.none = make(chan struct{}, 1)
	}
	return false, nil, r.demand.none
}

// demanded asks what has changed, unless that was just done, and returns all that is known, by
// name.
func (r *Registry) demanded() []Lease {
	d := &r.demand
	d.asking.Lock()
	r.mu.Lock()
	fresh := d.stop != nil || time.Since(d.asked) < askAfter
	r.mu.Unlock()
	if !fresh {
		_ = r.ask(r.Client.ctx, false) // what was known stays
	}
	d.asking.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	fresh = time.Since(d.asked) < askTime+rosterHold
	out := make([]Lease, 0, len(d.leases))
	for _, name := range slices.Sorted(maps.Keys(d.leases)) {
		l := d.leases[name]
		l.Sure = l.Sure && fresh
		out = append(out, l)
	}
	return out
}

// ask asks what has changed, or waits for that.
func (r *Registry) ask(ctx context.Context, hold bool) error {
	limit := askTime
	if hold {
		limit += rosterHold
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	anew := r.Client.connected()
	go func() {
		select {
		case <-anew: // the question is lost
			cancel()
		case <-ctx.Done():
		}
	}()
	if !r.Client.conn.IsConnected() {
		return errNoControl
	}
	d := &r.demand
	r.mu.Lock()
	question, err := json.Marshal(rosterQuestion{d.roster, d.since, hold})
	r.mu.Unlock()
	if err != nil {
		return err
	}
	m, err := r.Client.conn.RequestWithContext(ctx, rosterSubject, question)
	var a rosterAnswer
	if err == nil {
		a, err = parseRoster(m.Data)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if none := errors.Is(err, nats.ErrNoResponders); none != d.old && (none || err == nil) {
		d.old = none
		select {
		case d.none <- struct{}{}:
		default:
		}
	}
	if err != nil {
		return err
	}
	d.asked = time.Now()
	r.learn(a)
	return nil
}

// learn notes an answer. r.mu is held.
func (r *Registry) learn(a rosterAnswer) {
	d := &r.demand
	switch {
	case a.Whole:
		d.leases = map[string]Lease{}
	case a.Roster != d.roster || a.Version <= d.since:
		return // nothing new, or overtaken by another answer
	}
	d.roster, d.since = a.Roster, a.Version
	if d.leases == nil {
		d.leases = map[string]Lease{}
	}
	for _, name := range a.Gone {
		delete(d.leases, name)
	}
	for _, l := range a.Changed {
		d.leases[l.Node] = l
	}
	r.tell()
}

// begin asks for changes until end. r.mu is held.
func (d *demand) begin(r *Registry) {
	ctx, cancel := context.WithCancel(r.Client.ctx)
	d.stop = cancel
	r.Client.work.Go(func() {
		for ctx.Err() == nil {
			if r.ask(ctx, true) == nil {
				continue
			}
			select {
			case <-time.After(200 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	})
}

// end ends what begin began. r.mu is held.
func (d *demand) end() {
	d.stop()
	d.stop = nil
}
