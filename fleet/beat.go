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

// A beat says that a lease still holds. An edge asks for the end of the purge log every pollEvery,
// and sends a beat with that question: it confirms the lease that the edge wrote last, and has the
// values of it that change often. The control node collects the beats of its edges and writes them
// to the registry as one entry (see beats). So an edge writes its lease only if something else in
// it changes, once on each connection, and every rewriteEvery. If each edge wrote its lease every
// renewEvery, the control nodes of 500 edges would do nothing else.
//
// A beat belongs to one lease: to the process that wrote it, and to the time at which it did. A
// reader counts a beat only if the registry has that lease and no later beat. A control node
// rejects a beat that no reader would count. An edge whose beats are rejected writes its lease
// every renewEvery. That happens if another process has written a lease with the edge's name (see
// duplicate), if a control node or another reader of the registry runs an earlier version, and
// while nothing can be written.
type beat struct {
	Process string    `json:"process"`
	Lease   time.Time `json:"lease"`   // Lease.Renewed as it was written
	N       uint64    `json:"n"`       // increases with each beat
	Renewed time.Time `json:"renewed"` // by the node's own clock
	// The following fields replace those of the lease.
	Applied  Position `json:"applied"`
	Load     float64  `json:"load,omitempty"`
	Ready    bool     `json:"ready,omitempty"`
	Unproven bool     `json:"unproven,omitempty"`
}

// rewriteEvery is about how often an unchanged lease is written.
const rewriteEvery = 5 * time.Minute

// beatsPrefix begins the keys of registry entries that have beats. The name of the control node
// follows, which has no dot.
const beatsPrefix = "beats."

// endQuestion is what a node may add when it asks for the end of the log.
type endQuestion struct {
	Beat *beat `json:"beat,omitempty"`
	// Alone means that the node needs no end of the log, only an answer.
	Alone bool `json:"alone,omitempty"`
	// Taken means that the control node has taken the beat. The gate sets it.
	Taken bool `json:"taken,omitempty"`
}

// beatState is the state that a node needs to send beats. Registry's mu guards it.
type beatState struct {
	lease Lease     // as written last; its Process is "" if none was written on this connection
	until time.Time // when the lease must be written again
	n     uint64    // of the last beat
	taken time.Time // when the last accepted beat was made; zero if a later one was rejected
	// duplicate is set while another process with the node's name is known.
	duplicate atomic.Bool
}

// still reports whether two leases differ only in what beats say.
func (l Lease) still(other Lease) bool {
	for _, x := range []*Lease{&l, &other} {
		x.Renewed, x.Process = time.Time{}, ""
		x.Applied, x.Load, x.Ready, x.Unproven = Position{}, 0, false, false
	}
	return l.same(other)
}

// self is the node's lease as it is now.
func (r *Registry) self(now time.Time) Lease {
	r.selfMu.Lock()
	defer r.selfMu.Unlock()
	return r.selfAt(now)
}

// selfAt is self for callers that hold selfMu.
func (r *Registry) selfAt(now time.Time) Lease {
	l := r.Self()
	l.Node, l.Renewed, l.Beats = r.Client.Node, now, true
	return l
}

// beat returns the next beat, or nil if the node has to write its lease.
func (r *Registry) beat(now time.Time) *beat {
	if r.Self == nil || r.Refused() || r.beatState.duplicate.Load() {
		return nil
	}
	r.selfMu.Lock() // so that a later beat never has older values
	defer r.selfMu.Unlock()
	l := r.selfAt(now)
	r.mu.Lock()
	defer r.mu.Unlock()
	c := &r.beatState
	if c.lease.Process == "" || now.After(c.until) || !l.still(c.lease) {
		c.taken = time.Time{}
		return nil
	}
	c.n++
	return &beat{Process: c.lease.Process, Lease: c.lease.Renewed, N: c.n, Renewed: now, Applied: l.Applied,
		Load: l.Load, Ready: l.Ready, Unproven: l.Unproven}
}

// hasWritten records the lease that was written; the zero Lease means none.
func (r *Registry) hasWritten(l Lease) {
	r.mu.Lock()
	defer r.mu.Unlock()
	// edges write at different times
	r.beatState.lease, r.beatState.until = l, time.Now().Add(rewriteEvery/2+rand.N(rewriteEvery))
}

// answered records whether a beat was taken. If so, the node was in touch when it made the beat.
func (r *Registry) answered(b *beat, taken bool) {
	r.mu.Lock()
	last := b.N == r.beatState.n
	switch {
	case taken && b.Renewed.After(r.beatState.taken):
		r.beatState.taken = b.Renewed
	case !taken && last:
		r.beatState.taken = time.Time{}
	}
	r.mu.Unlock()
	if taken && last {
		r.touch(b.Renewed)
	}
}

// beats reports whether the last beat was taken recently enough that the lease need not be written.
func (r *Registry) beats() bool {
	r.mu.Lock()
	at := r.beatState.taken
	r.mu.Unlock()
	return !at.IsZero() && age(at) < LeaseTime/2
}

// beatAlone reports a change by a beat, and reports whether the beat was taken.
func (r *Registry) beatAlone(ctx context.Context) bool {
	if !r.beats() {
		return false
	}
	b := r.beat(time.Now())
	if b == nil {
		return false // something has changed that beats don't have
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	end, err := queryEnd(ctx, r.Client.conn, &endQuestion{Beat: b, Alone: true})
	r.answered(b, err == nil && end.Taken)
	return err == nil && end.Taken
}

// positionWithBeat is position, with a beat if there is one to send.
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

// heardBeat is a beat as a control node stores it.
type heardBeat struct {
	Node string `json:"node"`
	beat
	Age int64 `json:"age_ms"` // at the time of writing
	at  time.Time
}

// beatsEntry is a registry entry with beats.
type beatsEntry struct {
	Beats []heardBeat `json:"beats"`
}

// takeBeats takes the beats of a control node's entry. The caller holds r.mu. news is false for an
// entry that was there when the watch began: its age is unknown.
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

// counts reports whether a beat belongs to the current lease and is later than all beats before it.
func (s seen) counts(b beat) bool {
	return s.Process == b.Process && b.Process != "" && s.written.Equal(b.Lease) && b.N > s.n
}

// isBeats reports whether a registry entry has beats.
func isBeats(e jetstream.KeyValueEntry) bool { return strings.HasPrefix(e.Key(), beatsPrefix) }

// parseEndQuestion parses what a node adds to its question.
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
