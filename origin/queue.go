package origin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// ErrBusy means that all servers are at their limits and that the queue is full or the wait was too
// long. An edge answers with 503.
var ErrBusy = errors.New("origin busy")

// ErrDown means that no server takes connections. The error that wraps it also wraps the last
// failure.
var ErrDown = errors.New("no origin server accepts connections")

type waiter struct {
	options *FetchOptions
	granted chan *place // receives the place, or nil if no server is left; capacity 1
}

// acquire reserves a place at a server for the first attempt of a request. It waits in the queue if
// it must. The caller releases the place.
func (p *Pool) acquire(ctx context.Context, o *FetchOptions) (*place, error) {
	p.mu.Lock()
	now := time.Now()
	p.budget.request(now)
	pl, has := p.take(now, o, 0)
	if pl != nil || has == roomFree {
		err := p.downError(pl)
		p.mu.Unlock()
		return pl, err
	}
	if err := p.mayWait(o, has); err != nil {
		p.mu.Unlock()
		return nil, err
	}
	w := &waiter{options: o, granted: make(chan *place, 1)}
	p.queue = append(p.queue, w)
	p.countWaiter(w, 1)
	p.mu.Unlock()

	timer := time.NewTimer(p.QueueTimeout)
	defer timer.Stop()
	var err error
	select {
	case pl := <-w.granted:
		p.mu.Lock()
		defer p.mu.Unlock()
		return pl, p.downError(pl)
	case <-timer.C:
		err = fmt.Errorf("%w: no server was free within %v", ErrBusy, p.QueueTimeout)
	case <-ctx.Done():
		err = ctx.Err()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := slices.Index(p.queue, w); i >= 0 {
		p.queue = slices.Delete(p.queue, i, i+1)
		p.countWaiter(w, -1)
		if _, has := p.pick(time.Now(), o, 0); has == roomShareUsed && errors.Is(err, ErrBusy) {
			return nil, p.countLimited(fmt.Errorf("%w, and did for %v", ErrShare, p.QueueTimeout))
		}
		p.refused++
		return nil, err
	}
	pl = <-w.granted // serveQueue granted it just before the timeout
	return pl, p.downError(pl)
}

// mayWait returns nil if the request may enter the queue, or the error to return to the caller. The
// caller holds mu.
func (p *Pool) mayWait(o *FetchOptions, has room) error {
	switch {
	case o.Shared && has == roomShareUsed, p.clients.isFull(o.Client, p.Queue):
		return p.countLimited(ErrShare)
	case len(p.queue) >= p.Queue, o.Streams && p.streams >= streamLimit(p.Queue):
		p.refused++
		return fmt.Errorf("%w: %d requests are already queued", ErrBusy, len(p.queue))
	}
	return nil
}

// countLimited counts a request that failed because its client had used its share. It returns err.
// The caller holds mu.
func (p *Pool) countLimited(err error) error {
	p.limited++
	return err
}

// countWaiter adds n to the counters of waiting requests for w. The caller holds mu.
func (p *Pool) countWaiter(w *waiter, n int) {
	p.clients.add(w.options.Client, n)
	if w.options.Streams {
		p.streams += n
	}
}

// downError returns nil if pl is a place, else ErrDown with the last failure. The caller holds mu.
func (p *Pool) downError(pl *place) error {
	switch {
	case pl != nil:
		return nil
	case p.lastServerErr != nil:
		return fmt.Errorf("%w; the last failure: %w", ErrDown, p.lastServerErr)
	}
	return ErrDown
}

// take picks a server and reserves a place at it. The caller holds mu.
func (p *Pool) take(now time.Time, o *FetchOptions, tried uint64) (*place, room) {
	b, has := p.pick(now, o, tried)
	switch {
	case b == nil:
		return nil, has
	case b.Self:
		return &place{b: b}, roomFree
	}
	return p.occupy(b, o, now), roomFree
}

// serveQueue grants places to waiting requests, first come, first served. A request passes earlier
// ones that may not have a place yet: their client has used its share, or no more requests may have
// a place that clients can hold open. The caller holds mu.
func (p *Pool) serveQueue(now time.Time) {
	streamsFull := false
	for i := 0; i < len(p.queue); {
		w := p.queue[i]
		if streamsFull && w.options.Streams {
			i++
			continue
		}
		pl, has := p.take(now, w.options, 0)
		switch {
		case pl != nil, has == roomFree:
			p.queue = slices.Delete(p.queue, i, i+1)
			p.countWaiter(w, -1)
			w.granted <- pl
		case has == roomFull && !w.options.Streams:
			return // no request behind this one can have a place either
		case has == roomFull && !w.options.upgrade:
			streamsFull = true
			i++
		default:
			i++
		}
	}
}
