package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Logged is a purge of the log.
type Logged struct {
	Site  string // the only one that it may be of, as who made it may purge no other; "" is any
	Purge json.RawMessage
}

// Follower applies the log of purges to an edge. Its fields are set before Serve.
type Follower struct {
	Client *Client
	// Start is what the edge has applied already, from its disk.
	Start Position
	// Apply makes some purges, in the order of the log, effective and durable along with the position after them.
	Apply func(purges []Logged, after Position) error
	// Lost makes all that the edge has stale, and notes the position: the log was replaced, or lacks what the edge has not seen.
	Lost func(now Position) error
	// Changed is called after Applied has changed; nil is nobody.
	Changed func()
	// MaxDisconnected is how long the edge may be out of touch before it stops trusting what it has; 0 means a minute.
	MaxDisconnected time.Duration

	applied atomic.Uint64 // sequence
	log     atomic.Uint64
	touched atomic.Pointer[time.Time] // the last moment when nothing was known to lack; nil before the first
}

// Applied is what the edge has applied.
func (f *Follower) Applied() Position { return Position{f.log.Load(), f.applied.Load()} }

// InTouch says whether the edge may trust what it has: it has applied all that the log held at a moment not longer ago than MaxDisconnected, by the wall clock, which goes on
// while a machine sleeps, and by the monotonic one, which nobody sets.
func (f *Follower) InTouch() bool {
	t := f.touched.Load()
	limit := f.MaxDisconnected
	if limit == 0 {
		limit = time.Minute
	}
	if t == nil {
		return false
	}
	now := time.Now()
	wall, monotonic := now.Round(0).Sub(t.Round(0)), now.Sub(*t)
	return wall >= 0 && wall < limit && monotonic < limit
}

// batchSize is how many purges are applied at once at most.
const batchSize = 1000

// Serve follows the log until ctx ends.
func (f *Follower) Serve(ctx context.Context) error {
	f.log.Store(f.Start.Log)
	f.applied.Store(f.Start.Seq)
	told := ""
	for ctx.Err() == nil {
		err := f.follow(ctx)
		if ctx.Err() != nil {
			break
		}
		if err != nil && err.Error() != told { // not again and again
			told = err.Error()
			f.Client.Log.Warn("purge log: out of touch; purges don't reach this edge", "error", err)
		}
		select {
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	return nil
}

// follow catches up and then applies purges as they come, until something goes wrong.
func (f *Follower) follow(ctx context.Context) error {
	asked := time.Now()
	last, first, err := f.Client.position(ctx)
	if err != nil {
		return err
	}
	have := f.Applied()
	if have.Log != last.Log || have.Seq > last.Seq || have.Seq+1 < first && last.Seq > 0 {
		if have.Log == 0 {
			f.Client.Log.Info("purge log: followed for the first time; what this edge has from before is stale", "log", last)
		} else {
			f.Client.Log.Warn("purge log: it is another one, or lacks what this edge has not seen: all that it has is stale", "had", have, "log", last)
		}
		if err := f.Lost(last); err != nil {
			return fmt.Errorf("make everything stale: %w", err)
		}
		f.set(last)
		have = last
	}
	stream, _, _, err := f.Client.ready(ctx)
	if err != nil {
		return err
	}
	consumer, err := stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: have.Seq + 1, MaxResetAttempts: 1})
	if err != nil {
		return fmt.Errorf("follow the purge log: %w", err)
	}
	messages, err := consumer.Messages(jetstream.PullMaxMessages(batchSize), jetstream.PullHeartbeat(2*time.Second), jetstream.PullExpiry(10*time.Second))
	if err != nil {
		return fmt.Errorf("follow the purge log: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	incoming := make(chan jetstream.Msg, batchSize)
	failed := make(chan error, 1)
	go func() { // ends with the consumer, which may take a while to notice
		for {
			m, err := messages.Next()
			if err != nil {
				failed <- err
				return
			}
			select {
			case incoming <- m:
			case <-ctx.Done():
				return
			}
		}
	}()
	defer messages.Stop()
	return f.apply(ctx, last, asked, incoming, failed)
}

// apply applies what comes in. known is the end of the log as it was at a time when it was asked for.
func (f *Follower) apply(ctx context.Context, known Position, asked time.Time, incoming <-chan jetstream.Msg, failed <-chan error) error {
	tick := time.NewTicker(leaseEvery)
	defer tick.Stop()
	f.touch(known, asked)
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return fmt.Errorf("follow the purge log: %w", err)
		case <-tick.C:
			now := time.Now()
			last, _, err := f.Client.position(ctx)
			if err != nil {
				return err
			}
			if last.Log != known.Log || last.Seq < f.applied.Load() {
				return errors.New("the purge log was replaced")
			}
			known, asked = last, now
		case m := <-incoming:
			if err := f.batch(m, incoming); err != nil {
				return err
			}
		}
		f.touch(known, asked)
	}
}

// batch applies a purge and those that came with it.
func (f *Follower) batch(m jetstream.Msg, incoming <-chan jetstream.Msg) error {
	var purges []Logged
	for {
		meta, err := m.Metadata()
		if err != nil {
			return fmt.Errorf("read a purge: %w", err)
		}
		seq := meta.Sequence.Stream
		if s := m.Subject(); s != subjectOf("") && siteOf(s) == "" {
			return fmt.Errorf("purge %d has the subject %q, which is none of a purge", seq, s)
		}
		if want := f.applied.Load() + uint64(len(purges)) + 1; seq != want {
			return fmt.Errorf("purge %d came where %d was due", seq, want)
		}
		purges = append(purges, Logged{siteOf(m.Subject()), m.Data()})
		if len(purges) == batchSize {
			break
		}
		select {
		case m = <-incoming:
			continue
		default:
		}
		break
	}
	after := Position{f.log.Load(), f.applied.Load() + uint64(len(purges))}
	if err := f.Apply(purges, after); err != nil {
		return fmt.Errorf("apply purges up to %d: %w", after.Seq, err)
	}
	f.set(after)
	if f.Changed != nil {
		f.Changed()
	}
	return nil
}

func (f *Follower) set(p Position) {
	f.log.Store(p.Log)
	f.applied.Store(p.Seq)
}

// touch notes that all is applied that the log held at a time.
func (f *Follower) touch(known Position, at time.Time) {
	if f.log.Load() == known.Log && f.applied.Load() >= known.Seq {
		f.touched.Store(&at)
	}
}
