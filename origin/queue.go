package origin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// ErrBusy says that every server of a pool has as much to do as it may, and the queue was full or
// the wait too long. An edge answers with 503.
var ErrBusy = errors.New("origin busy")

// ErrDown says that no server of a pool takes connections; it comes with what the last failure was.
var ErrDown = errors.New("no origin server takes connections")

// waiter is a request in the queue.
type waiter struct {
	ask     *Ask
	granted chan *place // the place that it has, or nil if there is none any more; holds one
}

// acquire takes a place at a server for a first attempt, and waits for one if it must. The caller
// gives it back with release.
func (p *Pool) acquire(ctx context.Context, a *Ask) (*place, error) {
	p.mu.Lock()
	now := time.Now()
	p.budget.request(now)
	pl, has := p.take(now, a, 0)
	if pl != nil || has == free {
		err := p.downError(pl)
		p.mu.Unlock()
		return pl, err
	}
	if err := p.mayWait(a, has); err != nil {
		p.mu.Unlock()
		return nil, err
	}
	w := &waiter{ask: a, granted: make(chan *place, 1)}
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
		err = fmt.Errorf("%w: no server had room for %v", ErrBusy, p.QueueTimeout)
	case <-ctx.Done():
		err = ctx.Err()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := slices.Index(p.queue, w); i >= 0 {
		p.queue = slices.Delete(p.queue, i, i+1)
		p.countWaiter(w, -1)
		if _, has := p.pick(time.Now(), a, 0); has == shareUsed && errors.Is(err, ErrBusy) {
			return nil, p.countLimited(fmt.Errorf("%w, and had for %v", ErrShare, p.QueueTimeout))
		}
		p.refused++
		return nil, err
	}
	pl = <-w.granted // it came at the last moment
	return pl, p.downError(pl)
}

// mayWait says why a request for which there is no room may not wait for some; nil if it may. The
// caller holds mu.
func (p *Pool) mayWait(a *Ask, has room) error {
	switch {
	case a.Shared && has == shareUsed, p.clients.isFull(a.Client, p.Queue):
		return p.countLimited(ErrShare)
	case len(p.queue) >= p.Queue, a.Streams && p.streams >= streamLimit(p.Queue):
		p.refused++
		return fmt.Errorf("%w: %d requests wait already", ErrBusy, len(p.queue))
	}
	return nil
}

// limit counts a request that failed because its client had its share, and returns err. The caller
// holds mu.
func (p *Pool) countLimited(err error) error {
	p.limited++
	return err
}

// countWaiter adds n to what is counted of a waiter's kind. The caller holds mu.
func (p *Pool) countWaiter(w *waiter, n int) {
	p.clients.add(w.ask.Client, n)
	if w.ask.Streams {
		p.streams += n
	}
}

// downError is the error of a pick that found a place, or nothing. The caller holds mu.
func (p *Pool) downError(pl *place) error {
	switch {
	case pl != nil:
		return nil
	case p.lastServerErr != nil:
		return fmt.Errorf("%w; the last failure: %w", ErrDown, p.lastServerErr)
	}
	return ErrDown
}

// take picks a server and takes a place at it. The caller holds mu.
func (p *Pool) take(now time.Time, a *Ask, tried uint64) (*place, room) {
	b, has := p.pick(now, a, tried)
	switch {
	case b == nil:
		return nil, has
	case b.Self:
		return &place{b: b}, free
	}
	return p.occupy(b, a, now), free
}

// grant serves the queue as long as there is room: first come first served, but for those whose
// client has its share and for those that stream, which may have to let others go first. The caller
// holds mu.
func (p *Pool) serveQueue(now time.Time) {
	streamsFull := false
	for i := 0; i < len(p.queue); {
		w := p.queue[i]
		if streamsFull && w.ask.Streams {
			i++
			continue
		}
		pl, has := p.take(now, w.ask, 0)
		switch {
		case pl != nil, has == free:
			p.queue = slices.Delete(p.queue, i, i+1)
			p.countWaiter(w, -1)
			w.granted <- pl
		case has == full && !w.ask.Streams:
			return // for nobody else either
		case has == full && !w.ask.upgrade:
			streamsFull = true
			i++
		default:
			i++
		}
	}
}
