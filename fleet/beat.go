package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// An edge asks for the end of the purge log each second. With that question it says that the lease
// that it wrote last still holds, and what of it changes often: a beat. Its control node takes the
// beats of its edges together, and writes them to the registry as one entry (see beats). So a lease
// itself is written when it changes otherwise, on each connection, and every rewriteEvery. If each
// edge wrote its lease every renewEvery, the control nodes of 500 edges would do nothing else.
//
// A beat is of one lease: of the process that wrote it, and of that moment. Who reads a beat counts
// it only if the registry has that lease, and no beat that is later. A control node takes no beat
// that nobody would count. An edge whose beats are not taken writes its lease every renewEvery.
// That is so if another process has written a lease meanwhile (see twin), if a control node is of
// an earlier version, or one of the nodes that read the registry, and while nothing can be written.
type beat struct {
	Process string    `json:"process"`
	Lease   time.Time `json:"lease"`   // Renewed of the lease as it was written
	N       uint64    `json:"n"`       // later ones have more
	Renewed time.Time `json:"renewed"` // by the node's own clock
	// What follows replaces what the lease says.
	Applied  Position `json:"applied"`
	Load     float64  `json:"load,omitempty"`
	Ready    bool     `json:"ready,omitempty"`
	Unproven bool     `json:"unproven,omitempty"`
}

// rewriteEvery is about how often a lease is written that does not change.
const rewriteEvery = 5 * time.Minute

// beatsPrefix begins the keys of the entries of the registry that have beats. The name of the
// control node follows, which has no dot.
const beatsPrefix = "beats."

// endQuestion is what a node may add to its question for the end of the log.
type endQuestion struct {
	Beat *beat `json:"beat,omitempty"`
	// Alone says that the answer needs no end.
	Alone bool `json:"alone,omitempty"`
	// Taken says that the control node has taken the beat; the gate says so.
	Taken bool `json:"taken,omitempty"`
}

// calm is what a node needs to know for beats. Registry's mu guards its fields but refused.
type calm struct {
	lease Lease     // as it was written last; without Process, there is none of this connection
	until time.Time // when it is to be written again
	n     uint64    // of the last beat
	taken time.Time // when the last one was made that was taken; zero if a later one was not
	// twin is set while another process is known that has the node's name.
	twin atomic.Bool
}

// still reports whether a lease says what another one does, but for what beats tell.
func (l Lease) still(other Lease) bool {
	for _, x := range []*Lease{&l, &other} {
		x.Renewed, x.Process = time.Time{}, ""
		x.Applied, x.Load, x.Ready, x.Unproven = Position{}, 0, false, false
	}
	return l.same(other)
}

// self is the node's lease as it is now.
func (r *Registry) self(now time.Time) Lease {
	r.saying.Lock()
	defer r.saying.Unlock()
	return r.selfAt(now)
}

// selfAt is self with saying held.
func (r *Registry) selfAt(now time.Time) Lease {
	l := r.Self()
	l.Node, l.Renewed, l.Beats = r.Client.Node, now, true
	return l
}

// beat is what the node says now; nil if it has to write its lease.
func (r *Registry) beat(now time.Time) *beat {
	if r.Self == nil || r.Refused() || r.calm.twin.Load() {
		return nil
	}
	r.saying.Lock() // as later ones are to say what was so later
	defer r.saying.Unlock()
	l := r.selfAt(now)
	r.mu.Lock()
	defer r.mu.Unlock()
	c := &r.calm
	if c.lease.Process == "" || now.After(c.until) || !l.still(c.lease) {
		c.taken = time.Time{}
		return nil
	}
	c.n++
	return &beat{Process: c.lease.Process, Lease: c.lease.Renewed, N: c.n, Renewed: now, Applied: l.Applied,
		Load: l.Load, Ready: l.Ready, Unproven: l.Unproven}
}

// hasWritten notes the lease that was written; the zero one is none.
func (r *Registry) hasWritten(l Lease) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calm.lease, r.calm.until = l, time.Now().Add(rewriteEvery/2+rand.N(rewriteEvery)) // not all at the same time
}

// answered notes whether a beat was taken. The node was in touch when it made that.
func (r *Registry) answered(b *beat, taken bool) {
	r.mu.Lock()
	last := b.N == r.calm.n
	switch {
	case taken && b.Renewed.After(r.calm.taken):
		r.calm.taken = b.Renewed
	case !taken && last:
		r.calm.taken = time.Time{}
	}
	r.mu.Unlock()
	if taken && last {
		r.touch(b.Renewed)
	}
}

// beats reports whether the last beat was taken so lately that the lease need not be written.
func (r *Registry) beats() bool {
	r.mu.Lock()
	at := r.calm.taken
	r.mu.Unlock()
	return !at.IsZero() && age(at) < LeaseTime/2
}

// beatAlone tells of a change by a beat, and reports whether it was taken.
func (r *Registry) beatAlone(ctx context.Context) bool {
	if !r.beats() {
		return false
	}
	b := r.beat(time.Now())
	if b == nil {
		return false // something has changed of which beats don't tell
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	end, err := askEnd(ctx, r.Client.conn, &endQuestion{Beat: b, Alone: true})
	r.answered(b, err == nil && end.Taken)
	return err == nil && end.Taken
}

// positionWithBeat is position, with a beat if there is one to be told.
func (c *Client) positionWithBeat(ctx context.Context) (last Position, first uint64, err error) {
	r := c.registry.Load()
	if r == nil {
		return c.position(ctx)
	}
	b := r.beat(time.Now())
	if b == nil {
		return c.position(ctx)
	}
	last, first, taken, err := c.positionAnd(ctx, &endQuestion{Beat: b})
	r.answered(b, taken)
	return last, first, err
}

// heardBeat is a beat as a control node has it.
type heardBeat struct {
	Node string `json:"node"`
	beat
	Age int64 `json:"age_ms"` // when it was written to the registry
	at  time.Time
}

// beatsEntry is an entry of the registry.
type beatsEntry struct {
	Beats []heardBeat `json:"beats"`
}

// takeBeats notes what a control node has written. r.mu is held. news is false for what was there
// when the watch began, of which nobody knows how old it is.
func (r *Registry) takeBeats(e jetstream.KeyValueEntry) (news bool) {
	if r.catching || e.Operation() != jetstream.KeyValuePut {
		return false
	}
	var all beatsEntry
	if json.Unmarshal(e.Value(), &all) != nil {
		return false
	}
	now := time.Now()
	for _, b := range all.Beats {
		s, ok := r.leases[b.Node]
		if !ok || !s.counts(b.beat) || b.Age < 0 {
			continue
		}
		if at := now.Add(-time.Duration(b.Age) * time.Millisecond); at.After(s.at) {
			s.at = at
		}
		s.n, s.Sure, s.Renewed = b.N, true, b.Renewed
		s.Applied, s.Load, s.Ready, s.Unproven = b.Applied, b.Load, b.Ready, b.Unproven
		r.leases[b.Node] = s
	}
	return true
}

// counts reports whether a beat is of the lease that there is, and later than those of before.
func (s seen) counts(b beat) bool {
	return s.Process == b.Process && b.Process != "" && s.written.Equal(b.Lease) && b.N > s.n
}

// isBeats reports whether an entry of the registry has beats.
func isBeats(e jetstream.KeyValueEntry) bool { return strings.HasPrefix(e.Key(), beatsPrefix) }

// parseEndQuestion reads what a node adds to its question.
func parseEndQuestion(b []byte) (q endQuestion, err error) {
	if err := json.Unmarshal(b, &q); err != nil {
		return endQuestion{}, err
	}
	if q.Beat != nil && (q.Beat.Load < 0 || q.Beat.Load > 1) {
		return endQuestion{}, errors.New("a load that is not 0 to 1")
	}
	q.Taken = false
	return q, nil
}
