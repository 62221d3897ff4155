package fleet

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Each control node watches the registry, and answers questions for it on rosterSubject. Edges ask
// for the registry only when they need it. If each of n nodes watched the leases itself, each round
// of renewals would take n² deliveries.
//
// A node that has had an answer gets the changes since then. It may wait for a change (see
// Registry.poll).
const rosterSubject = "kaiku.registry"

const (
	// rosterHold is how long a question may wait for a change.
	rosterHold = 5 * time.Second
	// rosterGather is how long changes are gathered before the waiting questions are answered.
	rosterGather = 10 * time.Millisecond
	// rosterTick is how often the control node checks for leases that have expired.
	rosterTick = 500 * time.Millisecond
	// rosterSilence is how long a watch of the leases may deliver nothing. It should at least
	// deliver the control node's own.
	rosterSilence = LeaseTime
	// maxRosterGone bounds the number of removed nodes whose removal is remembered.
	maxRosterGone = 1024
	// maxRoster bounds an answer, in bytes after decompression.
	maxRoster = 64 << 20
)

// rosterQuestion is a question for the registry.
type rosterQuestion struct {
	Roster string `json:"roster,omitempty"` // Roster of the last answer; "" means none
	Since  uint64 `json:"since,omitempty"`  // Version of the last answer
	Hold   bool   `json:"hold,omitempty"`   // wait for a change
}

// rosterAnswer has the changes since an answer. It is sent compressed.
type rosterAnswer struct {
	Roster  string   `json:"roster"`  // the control node's process; each process counts its own versions
	Version uint64   `json:"version"` // of the newest change
	Whole   bool     `json:"whole,omitempty"`
	Changed []Lease  `json:"changed,omitempty"` // all leases, if Whole
	Gone    []string `json:"gone,omitempty"`
}

// rosterEntry is a lease, and the version of its last change.
type rosterEntry struct {
	Lease
	version uint64
}

// roster is what a control node knows of all nodes. Its fields belong to serve.
type roster struct {
	control *Control
	conn    *nats.Conn
	js      jetstream.JetStream
	id      string
	table   *Registry // filled by follow
	beats   *beats    // the beats that this control node receives
	queries chan *nats.Msg

	version uint64
	from    uint64 // the oldest version since which changes are known
	entries map[string]rosterEntry
	gone    map[string]uint64 // version of the removal, by node
	whole   []byte            // the encoded answer with all leases; nil after a change
	held    []heldQuestion    // the oldest first
}

// heldQuestion waits for a change until its time is over.
type heldQuestion struct {
	rosterQuestion
	msg   *nats.Msg
	until time.Time
}

func (c *Control) newRoster() (*roster, error) {
	r := &roster{control: c, id: rand.Text(), table: &Registry{}, queries: make(chan *nats.Msg, maxQueries),
		entries: map[string]rosterEntry{}, gone: map[string]uint64{}}
	var err error
	r.beats = newBeats(c, r.table)
	r.conn, r.js, err = inside(c.nats(), userFleet, c.secret)
	return r, err
}

// serve answers questions until ctx ends.
func (r *roster) serve(ctx context.Context) error {
	defer r.conn.Close()
	news, stop := r.table.listen()
	defer stop()
	ctx, cancel := context.WithCancel(ctx)
	var work sync.WaitGroup
	work.Go(func() { r.follow(ctx) })
	work.Go(func() { r.beats.serve(ctx, r.js) })
	r.control.beats.Store(r.beats)
	defer work.Wait()
	defer cancel()
	defer r.control.beats.Store(nil)
	// NATS prefers the control node that the asking node is connected to.
	if _, err := r.conn.ChanQueueSubscribe(rosterSubject, "control", r.queries); err != nil {
		return fmt.Errorf("answer queries about the registry: %w", err)
	}
	tick := time.NewTicker(rosterTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case m := <-r.queries:
			r.update()
			r.handle(m)
			continue
		case <-news:
			if len(r.held) == 0 {
				continue
			}
			select {
			case <-time.After(rosterGather):
			case <-ctx.Done():
				return nil
			}
		case <-tick.C:
		}
		if len(r.held) > 0 {
			r.update()
			r.release(time.Now())
		}
	}
}

// follow fills the table until ctx ends.
func (r *roster) follow(ctx context.Context) {
	for ctx.Err() == nil {
		if err := r.watch(ctx); err != nil {
			r.control.Log.Debug("control plane: watch the registry", "error", err)
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// watch fills the table until an error. A majority of the control nodes has taken each lease that
// arrives, so an arrival shows that the table is up to date.
func (r *roster) watch(ctx context.Context) error {
	open, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	live := r.table.live()
	leases, err := r.js.KeyValue(open, leaseBucket)
	if err != nil {
		return err
	}
	drains, err := r.js.KeyValue(open, drainBucket)
	if err != nil {
		return err
	}
	nodes, err := leases.WatchAll(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = nodes.Stop() }()
	flags, err := drains.WatchAll(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = flags.Stop() }()
	r.table.resume(live)
	silence := time.NewTimer(rosterSilence)
	defer silence.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, ok := <-nodes.Updates():
			if !ok {
				return errors.New("the watch of the registry ended")
			}
			if r.table.take(e) {
				r.table.touch(time.Now())
				if e.Key() == beatsPrefix+r.control.Node {
					r.beats.entryArrived()
				}
				silence.Reset(rosterSilence)
			}
		case e, ok := <-flags.Updates():
			if !ok {
				return errors.New("the watch of drains ended")
			}
			r.table.takeDrain(e)
		case <-silence.C:
			return errors.New("the registry sends nothing")
		}
	}
}

// update gives the changes in the table their versions.
func (r *roster) update() {
	now := r.table.watched()
	next := r.version + 1
	for _, l := range now {
		e, ok := r.entries[l.Node]
		if !ok || !e.sameAs(l) {
			delete(r.gone, l.Node)
			e.version, r.version = next, next
		}
		e.Lease = l
		r.entries[l.Node] = e
	}
	for name := range r.entries {
		if len(r.entries) == len(now) {
			break
		}
		if !slices.ContainsFunc(now, func(l Lease) bool { return l.Node == name }) {
			delete(r.entries, name)
			r.gone[name], r.version = next, next
		}
	}
	if r.version == next {
		r.whole = nil
	}
	if len(r.gone) > maxRosterGone {
		clear(r.gone)
		r.from = r.version
	}
}

// sameAs reports whether two leases of a node differ only in when they were renewed.
func (l Lease) sameAs(other Lease) bool {
	if l.Renewed.Equal(other.Renewed) {
		return l.Live == other.Live && l.Draining == other.Draining && l.Sure == other.Sure
	}
	l.Renewed, other.Renewed = time.Time{}, time.Time{}
	return l.same(other)
}

// same reports whether two leases say the same.
func (l Lease) same(other Lease) bool {
	a, err := json.Marshal(l)
	b, err2 := json.Marshal(other)
	return err == nil && err2 == nil && bytes.Equal(a, b)
}

// handle answers a question at once, or holds it until there is a change.
func (r *roster) handle(m *nats.Msg) {
	q := heldQuestion{msg: m, until: time.Now().Add(rosterHold)}
	if len(m.Data) > 0 && json.Unmarshal(m.Data, &q.rosterQuestion) != nil {
		q.rosterQuestion = rosterQuestion{}
	}
	if q.Hold && r.knows(q.rosterQuestion) && q.Since == r.version && len(r.held) < maxQueries {
		r.held = append(r.held, q)
		return
	}
	r.respond(q)
}

// knows reports whether a question refers to an answer of this process, and all changes since then
// are known.
func (r *roster) knows(q rosterQuestion) bool {
	return q.Roster == r.id && q.Since >= r.from && q.Since <= r.version
}

// release answers the held questions for which there is a change, or whose time is over.
func (r *roster) release(now time.Time) {
	r.held = slices.DeleteFunc(r.held, func(q heldQuestion) bool {
		if q.Since == r.version && now.Before(q.until) {
			return false
		}
		r.respond(q)
		return true
	})
}

func (r *roster) respond(q heldQuestion) {
	b, err := r.encode(q.rosterQuestion)
	if err == nil {
		err = q.msg.Respond(b)
	}
	if err != nil {
		r.control.Log.Debug("control plane: answer a query about the registry", "error", err)
	}
}

// encode encodes the answer to a question.
func (r *roster) encode(q rosterQuestion) ([]byte, error) {
	a := rosterAnswer{Roster: r.id, Version: r.version, Whole: !r.knows(q)}
	if a.Whole && r.whole != nil {
		return r.whole, nil
	}
	for _, e := range r.entries {
		if a.Whole || e.version > q.Since {
			a.Changed = append(a.Changed, e.Lease)
		}
	}
	for name, version := range r.gone {
		if !a.Whole && version > q.Since {
			a.Gone = append(a.Gone, name)
		}
	}
	b, err := compress(a)
	if a.Whole && err == nil {
		r.whole = b
	}
	return b, err
}

// parseRoster decodes an answer.
func parseRoster(b []byte) (a rosterAnswer, err error) {
	err = decompress(b, maxRoster, &a)
	return a, err
}
