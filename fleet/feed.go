package fleet

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// consumer makes the control plane deliver first the entry that was applied last, so that the edge
// can check that it is the same log, and then all later entries. first is the first sequence that
// the log has. near reports whether the consumer is on the control node that the edge is connected
// to.
func (f *Follower) consumer(ctx context.Context, stream jetstream.Stream, first uint64) (
	c jetstream.Consumer, near bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	from := f.Applied().Seq
	if from == 0 || from < first {
		from++
	}
	c, err = stream.CreateConsumer(ctx, jetstream.ConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: from, AckPolicy: jetstream.AckNonePolicy,
		MemoryStorage: true, Replicas: 1, InactiveThreshold: time.Minute})
	if err != nil {
		return nil, false, fmt.Errorf("follow the purge log: %w", err)
	}
	at := leaderOf(c)
	return c, at == "" || at == f.Client.conn.ConnectedServerName(), nil
}

// leaderOf returns the control node that delivers for a consumer; "" means the only one.
func leaderOf(c jetstream.Consumer) string {
	if at := c.CachedInfo().Cluster; at != nil {
		return at.Leader
	}
	return ""
}

// approach looks for a consumer on the control node that the edge is connected to. NATS puts each
// consumer on any of them. From another one, purges would take a detour, possibly over an ocean.
func (f *Follower) approach(ctx context.Context, stream jetstream.Stream, first uint64,
	found chan<- jetstream.Consumer) {
	for range 12 { // with three control nodes, this fails for one edge in a hundred, until its next connection
		c, near, err := f.consumer(ctx, stream, first)
		if near {
			select {
			case found <- c:
			case <-ctx.Done():
			}
			return
		}
		if err == nil {
			err = stream.DeleteConsumer(ctx, c.CachedInfo().Name)
		}
		if err != nil {
			f.Client.Log.Debug("purge log: no consumer nearby", "error", err)
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return
		}
	}
}

// feed is what a consumer delivers, in batches.
type feed struct {
	incoming chan []jetstream.Msg
	failed   chan error // why nothing more comes
	stop     func()
	due      uint64 // sequence of the next entry; for one goroutine
	by       string // the control node that delivers
	size     int    // how many bytes are requested at once
}

const (
	// maxFed is the size of a batch in bytes. An edge that was away may lack any number of purges.
	maxFed = 16 << 20
	// fedAtOnce is how many bytes are requested at once. All other answers wait behind them: for 8
	// s on a line of 64 KB/s. An entry is at most half as large, except entries of earlier
	// versions. For these, maxFed bytes are requested.
	fedAtOnce = 512 << 10
	// feedBeat is how often the consumer sends a sign of life.
	feedBeat = 5 * time.Second
	// stallTime is how long nothing may arrive while something is due. Less than stallBytes a
	// second counts as nothing.
	stallTime  = 2 * time.Second
	stallBytes = 4 << 10
)

func openFeed(ctx context.Context, c jetstream.Consumer, size int) (*feed, error) {
	messages, err := c.Messages(jetstream.PullMaxMessagesWithBytesLimit(batchSize, size),
		jetstream.PullHeartbeat(feedBeat), jetstream.PullExpiry(6*feedBeat))
	if err != nil {
		return nil, fmt.Errorf("follow the purge log: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	f := &feed{incoming: make(chan []jetstream.Msg), failed: make(chan error, 1),
		due: c.CachedInfo().Config.OptStartSeq, by: leaderOf(c), size: size}
	var work sync.WaitGroup
	each := make(chan jetstream.Msg)
	work.Go(func() {
		for {
			m, err := messages.Next()
			if err != nil {
				f.failed <- err
				return
			}
			select {
			case each <- m:
			case <-ctx.Done():
				return
			}
		}
	})
	work.Go(func() { f.gather(ctx, each) })
	f.stop = func() {
		cancel()
		messages.Stop()
		work.Wait()
	}
	return f, nil
}

// gather makes batches of what arrives while the previous batch is applied.
func (f *feed) gather(ctx context.Context, each <-chan jetstream.Msg) {
	var batch []jetstream.Msg
	size := 0
	for {
		from, to := each, f.incoming
		if len(batch) == 0 {
			to = nil
		}
		if len(batch) == batchSize || size >= maxFed {
			from = nil
		}
		select {
		case m := <-from:
			batch, size = append(batch, m), size+len(m.Data())
		case to <- batch:
			batch, size = nil, 0
		case <-ctx.Done():
			return
		}
	}
}
