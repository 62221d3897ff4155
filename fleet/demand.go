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
	// askTime bounds a question for the registry, without the time that it waits for a change.
	askTime = 2 * time.Second
	// askAfter is how old an answer may be to be used again.
	askAfter = 250 * time.Millisecond
	// watchFor is how long a node watches all leases after it found no control node that answers.
	watchFor = 20 * time.Second
)

// demand is what a Registry with OnDemand knows from the control plane (see roster). The registry's
// mu guards all fields but asking.
type demand struct {
	asking sync.Mutex // held during a question that doesn't wait for a change
	asked  time.Time  // when the last one was asked
	roster string
	since  uint64
	leases map[string]Lease
	old    bool          // no control node answers, because all run an earlier version
	none   chan struct{} // receives a value when old is set
	stop   func()        // ends poll; nil without it
}

// queriesRoster reports whether the registry asks control nodes instead of watching all leases.
func (r *Registry) queriesRoster() bool {
	if !r.OnDemand {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.demand.old
}

// mustWatch reports whether a registry has to watch all leases. again receives a value when that
// may have changed.
func (r *Registry) mustWatch(ctx context.Context) (watch bool, again <-chan time.Time, old <-chan struct{}) {
	if !r.OnDemand {
		return true, nil, nil
	}
	if err := r.queryRoster(ctx, false); errors.Is(err, nats.ErrNoResponders) {
		return true, time.After(watchFor), nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.demand.none == nil {
		r.demand.none = make(chan struct{}, 1)
	}
	return false, nil, r.demand.none
}

// demanded asks what has changed, unless it has just asked, and returns all leases, by name.
func (r *Registry) demanded() []Lease {
	d := &r.demand
	d.asking.Lock()
	r.mu.Lock()
	fresh := d.stop != nil || time.Since(d.asked) < askAfter
	r.mu.Unlock()
	if !fresh {
		_ = r.queryRoster(r.Client.ctx, false) // on an error, the last answer stays
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

// queryRoster asks what has changed, or waits for a change.
func (r *Registry) queryRoster(ctx context.Context, hold bool) error {
	limit := askTime
	if hold {
		limit += rosterHold
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	anew := r.Client.connected()
	go func() {
		select {
		case <-anew: // the question was lost with its connection
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

// learn applies an answer. The caller holds r.mu.
func (r *Registry) learn(a rosterAnswer) {
	d := &r.demand
	switch {
	case a.Whole:
		d.leases = map[string]Lease{}
	case a.Roster != d.roster || a.Version <= d.since:
		return // nothing new, or an older answer than the last
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
	r.notify()
}

// begin starts to ask for changes, until end. The caller holds r.mu.
func (d *demand) begin(r *Registry) {
	ctx, cancel := context.WithCancel(r.Client.ctx)
	d.stop = cancel
	r.Client.work.Go(func() {
		for ctx.Err() == nil {
			if r.queryRoster(ctx, true) == nil {
				continue
			}
			select {
			case <-time.After(200 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	})
}

// end ends what begin started. The caller holds r.mu.
func (d *demand) end() {
	d.stop()
	d.stop = nil
}
