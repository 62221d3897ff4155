package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Logged is a purge of the log.
type Logged struct {
	Site  string          // the only one that it may be of, as who made it may purge no other; "" is any
	Purge json.RawMessage // as it was appended; anything, as other versions may have written it
}

// Follower applies the log of purges to an edge. Its fields are set before Serve.
type Follower struct {
	Client *Client
	// Start is what the edge has applied already, from its disk.
	Start Position
	// Apply makes some purges, in the order of the log, effective and durable along with the
	// position after them.
	Apply func(purges []Logged, after Position) error
	// Lost makes all that the edge has stale, and notes the position: the log was replaced, or
	// lacks what the edge has not seen.
	Lost func(now Position) error
	// Forgot appends a purge, with an ID, that has all edges take what they have as stale: the
	// log lost entries that were acknowledged, as this edge has applied some, and others may lack
	// them. nil is nobody.
	Forgot func(ctx context.Context, id string) error
	// Changed is called after Applied has changed; nil is nobody.
	Changed func()
	// MaxDisconnected is how long the edge may be out of touch before it stops trusting what it
	// has; 0 means a minute.
	MaxDisconnected time.Duration

	applied atomic.Pointer[Position]  // nil before Serve
	touched atomic.Pointer[time.Time] // the last moment when nothing was known to lack; nil before the first
	proven  atomic.Pointer[time.Time] // touched, or nil if that was before the log was asked for anew
	marks   marks                     // of what was applied last
	forgot  atomic.Bool               // Forgot is due
	avoid   string                    // control node whose copy of the log differs; "" is none
	wide    bool                      // see feedSize; of Serve alone
	excused uint64                    // sequence up to which references are not compared, as all is stale that is older
}

// Applied is what the edge has applied.
func (f *Follower) Applied() Position {
	if p := f.applied.Load(); p != nil {
		return *p
	}
	return Position{}
}

// provenFor is how long Applied is known to be of the log after a majority of the control nodes
// confirmed it. It is asked for each second.
const provenFor = LeaseTime

// Proven reports whether what the edge has applied is what the log has, as far as a majority of the
// control nodes can tell, by the connection that there is. It holds if that was so less than
// provenFor ago.
func (f *Follower) Proven() bool {
	t := f.proven.Load()
	return t != nil && age(*t) < provenFor
}

// EntryID is the ID of a purge that is to be appended: what id says, and what the log has before
// it.
func (f *Follower) EntryID(id string) string {
	if at := f.Applied(); f.Proven() && at.Mark != 0 {
		return id + "." + at.reference()
	}
	return id
}

// InTouch says whether the edge may trust what it has: it has applied all that the log held at a
// moment not longer ago than MaxDisconnected, by the wall clock, which goes on while a machine
// sleeps, and by the monotonic one, which nobody sets.
func (f *Follower) InTouch() bool {
	t := f.touched.Load()
	limit := f.MaxDisconnected
	if limit == 0 {
		limit = defaultDisconnected
	}
	if t == nil {
		return false
	}
	return age(*t) < limit
}

// CutOff says whether the edge hears nothing at all of control nodes, not even that they refuse it,
// or has not yet asked for what it missed while it was so. Purges may be under way to others then,
// which a control plane that is down has none of.
func (f *Follower) CutOff() bool {
	signs, t := f.Client.signs.Load(), f.touched.Load()
	return signs == nil || t == nil || age(signs.last) > quietAfter || t.Before(signs.quiet)
}

// defaultDisconnected is how long an edge may be out of touch unless it is told otherwise.
const defaultDisconnected = time.Minute

// batchSize is how many purges are applied at once at most.
const batchSize = 1000

// Serve follows the log until ctx ends.
func (f *Follower) Serve(ctx context.Context) error {
	f.set(f.Start)
	out := outage{log: f.Client.Log, what: "purge log: out of touch; purges don't reach this edge"}
	for ctx.Err() == nil {
		began, anew := f.touched.Load(), f.Client.connected()
		err := f.follow(ctx)
		if f.touched.Load() != began {
			out.over()
		}
		if ctx.Err() != nil {
			break
		}
		if errors.Is(err, errReconnected) {
			f.avoid = ""
			continue
		}
		out.failed(err)
		select {
		case <-anew:
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	return nil
}

// follow catches up and then applies purges as they come, until something goes wrong.
func (f *Follower) follow(ctx context.Context) error {
	anew := f.Client.connected()
	asked := time.Now()
	last, first, err := f.Client.position(ctx)
	if err != nil {
		return err
	}
	f.proven.Store(nil)
	if f.lacks(last, first) {
		have := f.Applied()
		if err := f.lose(last, have.Seq < first && have.Seq < last.Seq); err != nil {
			return err
		}
	}
	stream, _, _, err := f.Client.ready(ctx)
	if err != nil {
		return err
	}
	consumer, near, err := f.consumer(ctx, stream, first)
	if err != nil {
		return err
	}
	if at := leaderOf(consumer); at != "" && at == f.avoid {
		err := stream.DeleteConsumer(ctx, consumer.CachedInfo().Name)
		return errors.Join(fmt.Errorf("follow the purge log: the copy of %s differs", at), err)
	}
	from, err := openFeed(ctx, consumer, f.feedSize())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var work sync.WaitGroup
	defer work.Wait()
	defer cancel()
	answers, nearer := make(chan answer), make(chan jetstream.Consumer)
	work.Go(func() { f.ask(ctx, answers) })
	if !near && f.avoid != f.Client.conn.ConnectedServerName() {
		work.Go(func() { f.approach(ctx, stream, first, nearer) })
	}
	return f.apply(ctx, answer{at: last, asked: asked}, from, anew, answers, nearer)
}

// lacks reports whether the edge has applied what the log that ends at last does not have, may have
// applied such, or lacks what the log has no more. first is the first sequence that it has.
func (f *Follower) lacks(last Position, first uint64) bool {
	have := f.Applied()
	switch {
	case have.Log != last.Log, have.Seq > last.Seq, have.Seq+1 < first && last.Seq > 0:
		return true
	case have.Seq == last.Seq:
		return differ(have.Mark, last.Mark)
	}
	return have.Seq > 0 && have.Seq < first && have.Mark != 0 // nobody can compare it
}

// lose makes all that the edge has stale. trimmed says that the log was so long that it ended
// entries that the edge lacks; else it lost some.
func (f *Follower) lose(now Position, trimmed bool) error {
	if have := f.Applied(); have.Log == 0 {
		f.Client.Log.Info("purge log: followed for the first time; what this edge has from before is stale", "log", now)
	} else {
		f.Client.Log.Warn("purge log: it is another one, or lacks what this edge has not seen: all that it has is stale", "had", have, "log", now)
	}
	f.proven.Store(nil)
	if err := f.Lost(now); err != nil {
		return fmt.Errorf("make everything stale: %w", err)
	}
	if now.Log != f.Applied().Log {
		f.excused = 0 // and all edges find that it is another log
	} else if f.Forgot != nil && !trimmed {
		f.forgot.Store(true)
	}
	f.set(now)
	return nil
}

// answer is the end of the log as it was when it was asked for.
type answer struct {
	at    Position
	had   uint64 // the newest that had been applied when it was asked for
	asked time.Time
	// received is how many bytes had come when it was asked for.
	received uint64
	err      error
}

// ask asks for the end of the log every second. Purges are applied meanwhile: over an ocean an
// answer takes as long as a purge.
func (f *Follower) ask(ctx context.Context, answers chan<- answer) {
	tick := time.NewTicker(leaseEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		f.tellForgot(ctx)
		a := answer{had: f.Applied().Seq, asked: time.Now(), received: f.Client.received.Load()}
		a.at, _, a.err = f.Client.positionWithBeat(ctx)
		select {
		case answers <- a:
		case <-ctx.Done():
			return
		}
	}
}

// tellForgot calls Forgot if that is due. All edges that notice within a minute or two give the
// same ID, of which the log takes the first.
func (f *Follower) tellForgot(ctx context.Context) {
	if !f.forgot.Load() {
		return
	}
	if err := f.Forgot(ctx, fmt.Sprintf("lost-%d-%d", f.Applied().Log, time.Now().Unix()/60)); err != nil {
		f.Client.Log.Warn("purge log: tell other edges of purges that were lost", "error", err)
		return
	}
	f.forgot.Store(false)
}

// apply applies what comes in.
func (f *Follower) apply(ctx context.Context, known answer, from *feed, anew <-chan struct{}, answers <-chan answer,
	nearer <-chan jetstream.Consumer) error {
	defer func() { from.stop() }()
	var due stall
	for {
		if err := f.touch(known.at, known.asked); err != nil {
			return errors.Join(err, f.lose(known.at, false))
		}
		select {
		case <-ctx.Done():
			return nil
		case err := <-from.failed:
			return fmt.Errorf("follow the purge log: %w", err)
		case <-anew:
			return errReconnected // what delivers may be far from the control node that it is now
		case a := <-answers:
			if f.waits(&due, a) {
				continue
			}
			if a.err != nil {
				return a.err
			}
			if a.at.Log != known.at.Log || a.at.Seq < a.had {
				return errors.New("the purge log was replaced")
			}
			known = a
			now := time.Now()
			if due.stalls(known.at.Seq, f.Applied().Seq, f.Client.received.Load(), now) || from.size < maxFed &&
				due.tooLarge(now) {
				f.wide = true
				return fmt.Errorf("purges up to %d are due, and none comes", known.at.Seq)
			}
		case c := <-nearer:
			next, err := openFeed(ctx, c, f.feedSize())
			if err != nil {
				return err
			}
			from.stop() // the consumer ends by itself
			from = next
		case batch := <-from.incoming:
			err := f.batch(from, batch)
			if errors.Is(err, errOtherHistory) {
				err = errors.Join(err, f.lose(known.at, false))
			}
			if err != nil {
				return err
			}
		}
	}
}

// batch applies purges that came together. Those that are applied already, as they came by another
// feed or are where this one begins, are compared.
func (f *Follower) batch(from *feed, messages []jetstream.Msg) error {
	var purges []Logged
	after := f.Applied()
	for _, m := range messages {
		meta, err := m.Metadata()
		if err != nil {
			return fmt.Errorf("read a purge: %w", err)
		}
		seq, mark := meta.Sequence.Stream, markOf(meta.Sequence.Stream, meta.Timestamp)
		if seq != from.due {
			return fmt.Errorf("purge %d came where %d was due", seq, from.due)
		}
		from.due++
		if seq <= after.Seq {
			if known, ok := f.marks.at(seq); ok && differ(known, mark) {
				return f.doubt(from)
			}
			f.marks.learn(seq, mark)
			continue
		}
		if seq > after.Seq+1 {
			return fmt.Errorf("purge %d came where %d was due", seq, after.Seq+1)
		}
		if seq > f.excused && f.differs(m) {
			f.excused = seq
			return errOtherHistory
		}
		f.marks.add(seq, mark)
		after.Seq, after.Mark = seq, mark
		purges = append(purges, loggedOf(m.Subject(), m.Data()))
	}
	if len(purges) == 0 {
		return nil
	}
	if err := f.Apply(purges, after); err != nil {
		f.marks.drop(len(purges))
		return fmt.Errorf("apply purges up to %d: %w", after.Seq, err)
	}
	f.applied.Store(&after)
	if f.Changed != nil {
		f.Changed()
	}
	return nil
}

// doubt returns what is to be thought of a copy of the log that has another entry where it is
// compared: if a majority has confirmed what the edge has, the copy is wrong.
func (f *Follower) doubt(from *feed) error {
	if from.by == "" || !f.Proven() {
		return errOtherHistory
	}
	if f.avoid != from.by {
		f.avoid = from.by
		f.Client.Log.Error("purge log: the copy that a control node delivers has other entries than a majority of them, as after an old backup: "+
			"stop that node, and move its folder aside; it gets the log from the others", "control_node", from.by)
	}
	return fmt.Errorf("the copy of the purge log that %s has differs", from.by)
}

// differs reports whether a purge refers to another entry than the one that was applied. One that
// may be of a single site only says nothing of others.
func (f *Follower) differs(m jetstream.Msg) bool {
	if m.Subject() != subjectOf("") {
		return false
	}
	ref := referenceOf(m.Headers().Get(jetstream.MsgIDHeader))
	known, ok := f.marks.at(ref.Seq)
	return ok && ref.Log == f.Applied().Log && differ(known, ref.Mark)
}

// loggedOf is the purge of an entry. One on a subject that this version doesn't know has no
// content, which nobody understands, so that it is taken for a purge of everything.
func loggedOf(subject string, data []byte) Logged {
	site := siteOf(subject)
	if subject != subjectOf(site) {
		return Logged{}
	}
	return Logged{site, data}
}

// set notes where the edge is, of whose marks it knows no other one.
func (f *Follower) set(p Position) {
	f.marks = marks{}
	f.marks.add(p.Seq, p.Mark)
	f.applied.Store(&p)
}

// touch notes that all is applied that the log held at a time. It fails with errOtherHistory if it
// is not what the log has.
func (f *Follower) touch(known Position, at time.Time) error {
	have := f.Applied()
	if have.Log != known.Log || have.Seq < known.Seq {
		return nil
	}
	mark, ok := f.marks.at(known.Seq)
	switch {
	case ok && differ(mark, known.Mark):
		return errOtherHistory
	case !ok && known.Seq > 0: // too long ago
		return nil
	case ok && mark == 0 && known.Mark != 0:
		if err := f.adopt(known); err != nil {
			return err
		}
	}
	f.touched.Store(&at)
	f.proven.Store(&at)
	return nil
}

// adopt notes the mark of what an earlier version applied. That it is of this log can't be told.
func (f *Follower) adopt(known Position) error {
	f.marks.learn(known.Seq, known.Mark)
	if have := f.Applied(); have.Seq != known.Seq || have.Mark != 0 {
		return nil
	}
	if err := f.Apply(nil, known); err != nil {
		return fmt.Errorf("note where the purge log is: %w", err)
	}
	f.applied.Store(&known)
	return nil
}
