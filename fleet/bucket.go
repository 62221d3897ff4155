package fleet

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// errReconnected ends a watch whose consumer may be gone with the server that it was on, which it
// would notice late by itself.
var errReconnected = errors.New("the connection was another one meanwhile")

// snapshotStall is how long nothing may come while what is there is not whole yet: a value that
// ends just then would be waited for in vain.
const snapshotStall = 10 * time.Second

// createBuckets makes the buckets that not every node may read, unless they are there. c.mu is
// held.
func (c *Client) createBuckets(ctx context.Context) error {
	// As for any bucket, but read from its leader alone (AllowDirect): who has just saved a
	// certificate and let go of its lock must be seen to have.
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
	// On disk, as one in memory would begin its revisions anew with a restart.
	if _, err := c.bucket(ctx, jetstream.KeyValueConfig{Bucket: challengeBucket, Storage: jetstream.FileStorage,
		TTL: challengeTime, Replicas: c.replicas, History: 1}); err != nil {
		return fmt.Errorf("open the bucket of challenges: %w", err)
	}
	return nil
}

// open gives a bucket that is not for every node. It asks the control plane the first time;
// afterwards it is as good for a bucket that replaces it.
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

// bucketAt asks the leader of a bucket for its last position.
func (c *Client) bucketAt(ctx context.Context, bucket string) (Position, error) {
	if !c.conn.IsConnected() {
		return Position{}, errNoControl
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	stream, err := c.js.Stream(ctx, "KV_"+bucket)
	if err != nil {
		return Position{}, fmt.Errorf("ask for the bucket %s: %w", bucket, err)
	}
	info := stream.CachedInfo()
	return Position{Log: logOf(info), Seq: info.State.LastSeq}, nil
}

// watch follows a bucket.
type watch struct {
	client *Client
	bucket string
	opts   []jetstream.WatchOpt
	// take gets each entry of the bucket whose number is log: those that are there, in their order,
	// then nil, then changes as they come. more says that another has come already.
	take func(log uint64, e jetstream.KeyValueEntry, more bool)
	// begin is called before what is there comes, each time anew; nil is nobody.
	begin func(log uint64)
	// tick is called every second or so, and when take is not; nil is nobody.
	tick func()

	followed bool // since it was set to false; for serve
}

// serve follows until ctx ends, through lost connections and replaced buckets.
func (w *watch) serve(ctx context.Context) {
	out := outage{log: w.client.Log, what: "control plane: out of touch with a bucket; what was known of it stays",
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

// follow follows until something goes wrong.
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
	// The same before and after the watch began: it is of this one.
	if now, err := w.client.bucketAt(ctx, w.bucket); err != nil || now.Log != at.Log {
		return errors.Join(err, errReconnected)
	}
	w.followed = true
	if w.begin != nil {
		w.begin(at.Log)
	}
	return w.pump(ctx, at, anew, updates.Updates())
}

// pump passes on what comes, while it comes of the bucket that it was, on the connection that it
// was.
func (w *watch) pump(ctx context.Context, at Position, anew <-chan struct{},
	updates <-chan jetstream.KeyValueEntry) error {
	tick := time.NewTicker(leaseEvery)
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
				return fmt.Errorf("the bucket %s came in part", w.bucket)
			}
		}
	}
}
