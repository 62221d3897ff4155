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
	// queryTimeout bounds a query of the registry, without the time that it waits for a change.
	queryTimeout = 2 * time.Second
	// maxAnswerAge is how old an answer may be to be used again.
	maxAnswerAge = 250 * time.Millisecond
	// watchTime is how long a node watches all leases after it found no control node that answers.
	watchTime = 20 * time.Second
)

// rosterView is what a Registry with OnDemand knows from the control plane (see roster). The
// registry's mu guards all fields but querying.
type rosterView struct {
	querying       sync.Mutex // held during a query that doesn't wait for a change
	queriedAt      time.Time  // time of the last answer
	roster         string
	since          uint64
	leases         map[string]Lease
	unsupported    bool          // no control node answers, because all run an earlier version
	supportChanged chan struct{} // receives a value when unsupported changes
	stop           func()        // ends the polling; nil without it
}

// queriesRoster reports whether the registry asks control nodes instead of watching all leases.
func (r *Registry) queriesRoster() bool {
	if !r.OnDemand {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.view.unsupported
}

// mustWatch reports whether a registry has to watch all leases. again receives a value when that
// may have changed.
func (r *Registry) mustWatch(ctx context.Context) (watch bool, again <-chan time.Time, old <-chan struct{}) {
	if !r.OnDemand {
		return true, nil, nil
	}
	if err := r.queryRoster(ctx, false); errors.Is(err, nats.ErrNoResponders) {
		return true, time.After(watchTime), nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.view.supportChanged == nil {
		r.view.supportChanged = make(chan struct{}, 1)
	}
	return false, nil, r.view.supportChanged
}

// rosterLeases queries what has changed, unless it has just done so, and returns all leases, by
// name.
func (r *Registry) rosterLeases() []Lease {
	v := &r.view
	v.querying.Lock()
	r.mu.Lock()
	fresh := v.stop != nil || time.Since(v.queriedAt) < maxAnswerAge
	r.mu.Unlock()
	if !fresh {
		_ = r.queryRoster(r.Client.ctx, false) // on an error, the last answer stays
	}
	v.querying.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	fresh = time.Since(v.queriedAt) < queryTimeout+rosterHold
	out := make([]Lease, 0, len(v.leases))
	for _, name := range slices.Sorted(maps.Keys(v.leases)) {
		l := v.leases[name]
		l.Sure = l.Sure && fresh
		out = append(out, l)
	}
	return out
}

// queryRoster queries what has changed, or waits for a change.
func (r *Registry) queryRoster(ctx context.Context, hold bool) error {
	limit := queryTimeout
	if hold {
		limit += rosterHold
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	anew := r.Client.connected()
	go func() {
		select {
		case <-anew: // the query was lost with its connection
			cancel()
		case <-ctx.Done():
		}
	}()
	if !r.Client.conn.IsConnected() {
		return errNoControl
	}
	v := &r.view
	r.mu.Lock()
	question, err := json.Marshal(rosterQuestion{v.roster, v.since, hold})
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
	if none := errors.Is(err, nats.ErrNoResponders); none != v.unsupported && (none || err == nil) {
		v.unsupported = none
		select {
		case v.supportChanged <- struct{}{}:
		default:
		}
	}
	if err != nil {
		return err
	}
	v.queriedAt = time.Now()
	r.learn(a)
	return nil
}

// learn applies an answer. The caller holds r.mu.
func (r *Registry) learn(a rosterAnswer) {
	v := &r.view
	switch {
	case a.Whole:
		v.leases = map[string]Lease{}
	case a.Roster != v.roster || a.Version <= v.since:
		return // nothing new, or an older answer than the last
	}
	v.roster, v.since = a.Roster, a.Version
	if v.leases == nil {
		v.leases = map[string]Lease{}
	}
	for _, name := range a.Gone {
		delete(v.leases, name)
	}
	for _, l := range a.Changed {
		v.leases[l.Node] = l
	}
	r.notify()
}

// startPolling starts to query changes, until stopPolling. The caller holds r.mu.
func (v *rosterView) startPolling(r *Registry) {
	ctx, cancel := context.WithCancel(r.Client.ctx)
	v.stop = cancel
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

// stopPolling ends what startPolling started. The caller holds r.mu.
func (v *rosterView) stopPolling() {
	v.stop()
	v.stop = nil
}
