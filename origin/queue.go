package origin

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// ErrBusy says that every server of a pool has as much to do as it may, and the queue was full or the wait too long. An edge answers with 503.
var ErrBusy = errors.New("origin busy")

// ErrDown says that no server of a pool takes connections; it comes with what the last failure was.
var ErrDown = errors.New("no origin server takes connections")

// waiter is a request in the queue.
type waiter struct {
	key uint64
	got chan *backend // the server that it may use, or nil if there is none any more; holds one
}

// acquire takes a place at a server for a first attempt, and waits for one if it must. The caller gives it back with release.
func (p *Pool) acquire(ctx context.Context, key uint64) (*backend, error) {
	p.mu.Lock()
	now := time.Now()
	p.budget.request(now)
	b, full := p.take(now, key, 0)
	if b != nil || !full {
		err := p.downError(b)
		p.mu.Unlock()
		return b, err
	}
	if len(p.queue) >= p.Queue {
		p.refused++
		p.mu.Unlock()
		return nil, fmt.Errorf("%w: %d requests wait already", ErrBusy, p.Queue)
	}
	w := &waiter{key: key, got: make(chan *backend, 1)}
	p.queue = append(p.queue, w)
	p.mu.Unlock()

	timer := time.NewTimer(p.QueueTimeout)
	defer timer.Stop()
	var err error
	select {
	case b := <-w.got:
		p.mu.Lock()
		defer p.mu.Unlock()
		return b, p.downError(b)
	case <-timer.C:
		err = fmt.Errorf("%w: no server had room for %v", ErrBusy, p.QueueTimeout)
	case <-ctx.Done():
		err = ctx.Err()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, o := range p.queue {
		if o == w {
			p.queue = append(p.queue[:i], p.queue[i+1:]...)
			p.refused++
			return nil, err
		}
	}
	b = <-w.got // it came at the last moment
	return b, p.downError(b)
}

// downError is the error of a pick that found b, or nothing. The caller holds mu.
func (p *Pool) downError(b *backend) error {
	switch {
	case b != nil:
		return nil
	case p.lastDown != nil:
		return fmt.Errorf("%w; the last failure: %w", ErrDown, p.lastDown)
	}
	return ErrDown
}

// take picks a server and takes a place at it. The caller holds mu.
func (p *Pool) take(now time.Time, key, tried uint64) (b *backend, full bool) {
	b, full = p.pick(now, key, tried)
	if b != nil && !b.Self {
		p.occupy(b, now)
	}
	return b, full
}

// occupy takes a place at the server.
func (p *Pool) occupy(b *backend, now time.Time) {
	b.inFlight++
	if b.waiting++; b.waiting == 1 {
		b.waitingSince = now
	}
	b.counts.Requests++
	b.trial = p.fitness(b, now) == dead
}

// release gives a place at a server back, to who waits for one if there is anybody.
func (p *Pool) release(b *backend) {
	p.mu.Lock()
	defer p.mu.Unlock()
	b.inFlight--
	p.grant(time.Now())
}

// grant serves the queue, first come first served, as long as there is room. The caller holds mu.
func (p *Pool) grant(now time.Time) {
	n := 0
	for ; n < len(p.queue); n++ {
		b, full := p.take(now, p.queue[n].key, 0)
		if b == nil && full {
			break
		}
		p.queue[n].got <- b
	}
	if n > 0 {
		p.queue = append(p.queue[:0], p.queue[n:]...)
	}
}
