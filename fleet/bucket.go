package fleet

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// errReconnected ends a watch after a reconnect. Its consumer may have been lost with the previous
// server, which the watch itself would notice late.
var errReconnected = errors.New("the connection was replaced meanwhile")

// snapshotStall is how long a watch waits for the next entry while it reads the bucket's present
// contents. It would wait in vain for an entry that expires at that moment.
const snapshotStall = 10 * time.Second

// createBuckets creates the buckets that only some nodes may read, unless they exist. The caller
// holds c.mu.
func (c *Client) createBuckets(ctx context.Context) error {
	// Only the leader of this bucket answers reads, unlike for other buckets (AllowDirect). An edge
	// that gets the lock must see what the previous holder has saved.
	conf := jetstream.StreamConfig{Name: "KV_" + certificateBucket,
		Subjects: []string{"$KV." + certificateBucket + ".>"}, Storage: jetstream.FileStorage, Replicas: c.replicas,
		MaxMsgsPerSubject: 1, MaxMsgSize: 2 * maxVaultValue, Discard: jetstream.DiscardNew, AllowRollup: true,
		DenyDelete: true, AllowMsgTTL: true, AllowDirect: false}
	_, err := c.js.Stream(ctx, conf.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		_, err = c.js.CreateStream(ctx, conf)
	}
	if err != nil {
		return fmt.Errorf("open the bucket of certificates: %w", err)
	}
	// This one is on disk: in memory, its revisions would start again after a restart.
	if _, err := c.bucket(ctx, jetstream.KeyValueConfig{Bucket: challengeBucket, Storage: jetstream.FileStorage,
		TTL: challengeTime, Replicas: c.replicas, History: 1}); err != nil {
		return fmt.Errorf("open the bucket of challenges: %w", err)
	}
	return nil
}

// open returns a bucket that only some nodes may read. It asks the control plane the first time
// only. The result stays valid if another bucket replaces this one.
func (c *Client) open(ctx context.Context, bucket string) (jetstream.KeyValue, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if kv := c.others[bucket]; kv != nil {
		return kv, nil
	}
	if !c.conn.IsConnected() {
		return nil, errNoControl
	}
	kv, err := c.js.KeyValue(ctx, bucket)
	if err != nil {
		return nil, fmt.Errorf("open the bucket %s: %w", bucket, err)
	}
	if c.others == nil {
		c.others = map[string]jetstream.KeyValue{}
	}
	c.others[bucket] = kv
	return kv, nil
}

// bucketAt asks the leader of a bucket for the bucket's last position.
func (c *Client) bucketAt(ctx context.Context, bucket string) (Position, error) {
	if !c.conn.IsConnected() {
		return Position{}, errNoControl
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	stream, err := c.js.Stream(ctx, "KV_"+bucket)
	if err != nil {
		return Position{}, fmt.Errorf("look up the bucket %s: %w", bucket, err)
	}
	info := stream.CachedInfo()
	return Position{Log: logOf(info), Seq: info.State.LastSeq}, nil
}

// watch reads a bucket and follows its changes.
type watch struct {
	client *Client
	bucket string
	opts   []jetstream.WatchOpt
	// take gets each entry of the bucket. log identifies the bucket. The present entries come
	// first, in order, then nil, then changes. more means that another entry is waiting.
	take func(log uint64, e jetstream.KeyValueEntry, more bool)
	// begin is called each time before the present entries come; may be nil.
	begin func(log uint64)
	// tick is called about every second, never at the same time as take; may be nil.
	tick func()

	followed bool // whether the watch has followed since serve cleared it
}

// serve follows the bucket until ctx ends. It reconnects, and follows a bucket that replaces this
// one.
func (w *watch) serve(ctx context.Context) {
	out := outage{log: w.client.Log, what: "control plane: a bucket can't be watched; its last known contents stay in use",
		attrs: []any{"bucket", w.bucket}}
	for ctx.Err() == nil {
		w.followed = false
		err := w.follow(ctx)
		if ctx.Err() != nil {
			return
		}
		if w.followed {
			out.over()
		}
		if err != nil && !errors.Is(err, errReconnected) && !errors.Is(err, nats.ErrDisconnected) {
			out.failed(err)
		}
		if w.tick != nil {
			w.tick()
		}
		select {
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// follow follows the bucket until an error.
func (w *watch) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	anew := w.client.connected()
	at, err := w.client.bucketAt(ctx, w.bucket)
	if err != nil {
		return err
	}
	kv, err := w.client.open(ctx, w.bucket)
	if err != nil {
		return err
	}
	updates, err := kv.WatchAll(ctx, w.opts...)
	if err != nil {
		return fmt.Errorf("watch the bucket %s: %w", w.bucket, err)
	}
	defer func() { _ = updates.Stop() }()
	// If the bucket was the same before and after the watch began, the watch is of this bucket.
	if now, err := w.client.bucketAt(ctx, w.bucket); err != nil || now.Log != at.Log {
		return errors.Join(err, errReconnected)
	}
	w.followed = true
	if w.begin != nil {
		w.begin(at.Log)
	}
	return w.pump(ctx, at, anew, updates.Updates())
}

// pump passes entries to take for as long as the bucket and the connection stay the same.
func (w *watch) pump(ctx context.Context, at Position, anew <-chan struct{},
	updates <-chan jetstream.KeyValueEntry) error {
	tick := time.NewTicker(bucketEvery)
	defer tick.Stop()
	whole, last := false, time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-anew:
			return errReconnected
		case e, ok := <-updates:
			if !ok {
				return fmt.Errorf("the watch of the bucket %s ended", w.bucket)
			}
			whole = whole || e == nil
			w.take(at.Log, e, len(updates) > 0)
			last = time.Now()
		case <-tick.C:
			if w.tick != nil {
				w.tick()
			}
			now, err := w.client.bucketAt(ctx, w.bucket)
			switch {
			case err != nil:
				return err
			case now.Log != at.Log:
				return fmt.Errorf("the bucket %s was replaced", w.bucket)
			case !whole && time.Since(last) > snapshotStall:
				return fmt.Errorf("the bucket %s is incomplete", w.bucket)
			}
		}
	}
}
