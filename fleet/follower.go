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

// Logged is a purge from the log.
type Logged struct {
	// Site is the only site that the purge may concern, because its author may purge no other; ""
	// means any.
	Site  string
	Purge json.RawMessage // as it was appended; may be anything, because other versions write to the log, too
}

// Follower applies the log of purges to an edge. Its fields are set before Serve.
type Follower struct {
	Client *Client
	// Start is the position that the edge has already applied, from its disk.
	Start Position
	// Apply applies purges in the order of the log. They and the position after them must be
	// durable when it returns.
	Apply func(purges []Logged, after Position) error
	// Lost makes everything that the edge has stale, and stores the position. It is called if the
	// log was replaced, or lacks entries that the edge has not seen.
	Lost func(now Position) error
	// Forgot appends a purge with an ID that makes all edges treat everything that they have as
	// stale. It is called if the log lost acknowledged entries: this edge has applied some that
	// others may lack. It may be nil.
	Forgot func(ctx context.Context, id string) error
	// Changed is called after Applied has changed; may be nil.
	Changed func()
	// MaxDisconnected is how long the edge trusts its store while it is out of touch; 0 means a
	// minute.
	MaxDisconnected time.Duration

	applied atomic.Pointer[Position]  // nil before Serve
	touched atomic.Pointer[time.Time] // when the edge last had everything that the log had; nil before the first time
	proven  atomic.Pointer[time.Time] // like touched, but nil again from each reconnect until the log was asked
	marks   marks                     // of the entries applied last
	forgot  atomic.Bool               // Forgot must be called
	avoid   string                    // a control node whose copy of the log differs; "" means none
	wide    bool                      // see feedSize; Serve's own
	// excused is the sequence up to which references are not compared, because everything older is
	// stale.
	excused uint64
}

// Applied returns the position that the edge has applied.
func (f *Follower) Applied() Position {
	if p := f.applied.Load(); p != nil {
		return *p
	}
	return Position{}
}

// provenFor is how long a confirmation by a majority of the control nodes counts. The edge asks for
// one every pollEvery.
const provenFor = LeaseTime

// Proven reports whether the log has what the edge has applied. It is true if a majority of the
// control nodes confirmed that less than provenFor ago, on the present connection.
func (f *Follower) Proven() bool {
	t := f.proven.Load()
	return t != nil && age(*t) < provenFor
}

// EntryID returns the ID under which to append a purge: id, and a reference to the entry before it.
func (f *Follower) EntryID(id string) string {
	if at := f.Applied(); f.Proven() && at.Mark != 0 {
		return id + "." + at.reference()
	}
	return id
}

// InTouch reports whether the edge may trust its store: less than MaxDisconnected ago, it had
// applied everything that the log had. Both clocks must agree: the wall clock, which runs on while
// a machine sleeps, and the monotonic clock, which nobody can set.
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

// CutOff reports whether the edge gets no sign of life at all from control nodes, not even refused
// connections, or has not asked what it missed since. Others may be purging meanwhile; when the
// control plane is down, nobody can.
func (f *Follower) CutOff() bool {
	last, t := f.Client.activity.Load(), f.touched.Load()
	return last == nil || t == nil || age(last.last) > quietAfter || t.Before(last.quiet)
}

// defaultDisconnected is the default of MaxDisconnected.
const defaultDisconnected = time.Minute

// batchSize is how many purges are applied at once at most.
const batchSize = 1000

// Serve follows the log until ctx ends.
func (f *Follower) Serve(ctx context.Context) error {
	f.set(f.Start)
	out := outage{log: f.Client.Log, what: "purge log: can't be read; purges don't reach this edge"}
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

// follow catches up, and then applies purges as they arrive, until an error.
func (f *Follower) follow(ctx context.Context) error {
	anew := f.Client.connected()
	queriedAt := time.Now()
	last, first, err := f.Client.position(ctx)
	if err != nil {
		return err
	}
	f.proven.Store(nil)
	if f.hasGap(last, first) {
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
	work.Go(func() { f.pollEnd(ctx, answers) })
	if !near && f.avoid != f.Client.conn.ConnectedServerName() {
		work.Go(func() { f.approach(ctx, stream, first, nearer) })
	}
	return f.apply(ctx, answer{at: last, queriedAt: queriedAt}, from, anew, answers, nearer)
}

// hasGap reports whether the edge has applied, or may have applied, entries that the log doesn't
// have, or lacks entries that the log no longer has. The log ends at last, and first is the first
// sequence that it has.
func (f *Follower) hasGap(last Position, first uint64) bool {
	have := f.Applied()
	switch {
	case have.Log != last.Log, have.Seq > last.Seq, have.Seq+1 < first && last.Seq > 0:
		return true
	case have.Seq == last.Seq:
		return differ(have.Mark, last.Mark)
	}
	return have.Seq > 0 && have.Seq < first && have.Mark != 0 // the mark can't be compared
}

// lose makes everything that the edge has stale. trimmed means that the log dropped old entries
// which the edge lacks. Otherwise the log lost entries.
func (f *Follower) lose(now Position, trimmed bool) error {
	if have := f.Applied(); have.Log == 0 {
		f.Client.Log.Info("purge log: followed for the first time; everything in the cache is now stale", "log", now)
	} else {
		f.Client.Log.Warn("purge log: it is another log, or no longer has purges that this edge has not applied; everything in the cache is now stale", "had", have, "log", now)
	}
	f.proven.Store(nil)
	if err := f.Lost(now); err != nil {
		return fmt.Errorf("mark all objects as stale: %w", err)
	}
	if now.Log != f.Applied().Log {
		f.excused = 0 // all edges notice that it is another log
	} else if f.Forgot != nil && !trimmed {
		f.forgot.Store(true)
	}
	f.set(now)
	return nil
}

// answer is the end of the log at the time of the question.
type answer struct {
	at        Position
	had       uint64 // the last sequence applied at that time
	queriedAt time.Time
	// received is the number of bytes received until then.
	received uint64
	err      error
}

// pollEnd asks for the end of the log every pollEvery. Meanwhile purges are applied: over an ocean,
// an answer takes as long as a purge.
func (f *Follower) pollEnd(ctx context.Context, answers chan<- answer) {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		f.reportLoss(ctx)
		a := answer{had: f.Applied().Seq, queriedAt: time.Now(), received: f.Client.received.Load()}
		a.at, _, a.err = f.Client.positionWithBeat(ctx)
		select {
		case answers <- a:
		case <-ctx.Done():
			return
		}
	}
}

// reportLoss calls Forgot if it is due. All edges that notice a loss within a minute or two use the
// same ID, so the log takes only the first.
func (f *Follower) reportLoss(ctx context.Context) {
	if !f.forgot.Load() {
		return
	}
	if err := f.Forgot(ctx, fmt.Sprintf("lost-%d-%d", f.Applied().Log, time.Now().Unix()/60)); err != nil {
		f.Client.Log.Warn("purge log: report lost purges to other edges", "error", err)
		return
	}
	f.forgot.Store(false)
}

// apply applies the purges that arrive.
func (f *Follower) apply(ctx context.Context, known answer, from *feed, anew <-chan struct{}, answers <-chan answer,
	nearer <-chan jetstream.Consumer) error {
	defer func() { from.stop() }()
	var due stall
	for {
		if err := f.touch(known.at, known.queriedAt); err != nil {
			return errors.Join(err, f.lose(known.at, false))
		}
		select {
		case <-ctx.Done():
			return nil
		case err := <-from.failed:
			return fmt.Errorf("follow the purge log: %w", err)
		case <-anew:
			return errReconnected // the consumer may be far from the new control node
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
				return fmt.Errorf("purges up to %d are due, but none arrives", known.at.Seq)
			}
		case c := <-nearer:
			next, err := openFeed(ctx, c, f.feedSize())
			if err != nil {
				return err
			}
			from.stop() // the consumer expires by itself
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

// batch applies purges that arrived together. It compares those that are applied already: they came
// by another feed, or are the entry that this feed begins with.
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
			return fmt.Errorf("received purge %d instead of %d", seq, from.due)
		}
		from.due++
		if seq <= after.Seq {
			if known, ok := f.marks.at(seq); ok && differ(known, mark) {
				return f.suspectCopy(from)
			}
			f.marks.learn(seq, mark)
			continue
		}
		if seq > after.Seq+1 {
			return fmt.Errorf("received purge %d instead of %d", seq, after.Seq+1)
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

// suspectCopy returns the error for a copy of the log that has another entry than the edge. If a
// majority has confirmed what the edge has, the copy is wrong.
func (f *Follower) suspectCopy(from *feed) error {
	if from.by == "" || !f.Proven() {
		return errOtherHistory
	}
	if f.avoid != from.by {
		f.avoid = from.by
		f.Client.Log.Error("purge log: the copy of one control node differs from the copies of the majority, as after restoring an old backup: "+
			"stop that node, move its folder aside, and start it again: it gets the log from the others", "control_node", from.by)
	}
	return fmt.Errorf("the copy of the purge log on %s differs", from.by)
}

// differs reports whether a purge refers to another entry than the one that was applied. The
// reference of a purge by somebody who may purge a single site only isn't trusted.
func (f *Follower) differs(m jetstream.Msg) bool {
	if m.Subject() != subjectOf("") {
		return false
	}
	ref := referenceOf(m.Headers().Get(jetstream.MsgIDHeader))
	known, ok := f.marks.at(ref.Seq)
	return ok && ref.Log == f.Applied().Log && differ(known, ref.Mark)
}

// loggedOf returns the purge of an entry. An entry on a subject that this version doesn't know gets
// no content, which nobody can parse, so it counts as a purge of everything.
func loggedOf(subject string, data []byte) Logged {
	site := siteOf(subject)
	if subject != subjectOf(site) {
		return Logged{}
	}
	return Logged{site, data}
}

// set records the position of the edge, and forgets all other marks.
func (f *Follower) set(p Position) {
	f.marks = marks{}
	f.marks.add(p.Seq, p.Mark)
	f.applied.Store(&p)
}

// touch records that the edge had everything that the log had at a time. It fails with
// errOtherHistory if the log has other entries.
func (f *Follower) touch(known Position, at time.Time) error {
	have := f.Applied()
	if have.Log != known.Log || have.Seq < known.Seq {
		return nil
	}
	mark, ok := f.marks.at(known.Seq)
	switch {
	case ok && differ(mark, known.Mark):
		return errOtherHistory
	case !ok && known.Seq > 0: // too long ago to compare
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

// adopt takes over the mark of the entry that an earlier version applied. Whether it is of this log
// can't be verified.
func (f *Follower) adopt(known Position) error {
	f.marks.learn(known.Seq, known.Mark)
	if have := f.Applied(); have.Seq != known.Seq || have.Mark != 0 {
		return nil
	}
	if err := f.Apply(nil, known); err != nil {
		return fmt.Errorf("store the position in the purge log: %w", err)
	}
	f.applied.Store(&known)
	return nil
}
