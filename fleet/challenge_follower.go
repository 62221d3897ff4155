package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// ChallengeFollower keeps a name server's challenges up to date. Its fields are set before Serve.
type ChallengeFollower struct {
	Client *Client
	// Set replaces all challenges that the name server answers. Names have no final dot. The new
	// challenges must be in effect when Set returns. One goroutine calls Set, which must not block.
	Set func(values map[string][]string)
	// Changed is called after Applied has changed, so that the lease is renewed at once; it is
	// usually Registry.Renew. It may be nil.
	Changed func()

	applied atomic.Pointer[Position] // nil before the first Set
	once    sync.Once
	first   chan struct{}   // made once; closed by the first Set
	held    map[string]held // the challenges that are answered, by their key in the bucket; Serve's own
	coming  map[string]held // the bucket's present contents while they arrive; then they replace held. Otherwise nil
	seen    uint64          // revision of the last entry
}

// held is a challenge that is answered, and its expiry.
type held struct {
	challenge
	until time.Time
}

// Applied returns the position up to which the name server answers with what is published, for its
// lease. It is zero before the first Set.
func (f *ChallengeFollower) Applied() Position {
	if p := f.applied.Load(); p != nil {
		return *p
	}
	return Position{}
}

// Wait waits for the first Set, or until ctx ends. A name server that has restarted waits so before
// it answers, because others may take it for the process that knew all challenges. Without a
// control plane it has to answer without them, so the caller bounds the wait.
func (f *ChallengeFollower) Wait(ctx context.Context) error {
	select {
	case <-f.known():
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the challenges of the fleet: %w", ctx.Err())
	}
}

func (f *ChallengeFollower) known() chan struct{} {
	f.once.Do(func() { f.first = make(chan struct{}) })
	return f.first
}

// Serve follows the challenges until ctx ends, which is no error. While the control plane can't be
// reached, challenges stay until they expire.
func (f *ChallengeFollower) Serve(ctx context.Context) error {
	w := watch{client: f.Client, bucket: challengeBucket, begin: f.begin, take: f.take, tick: f.expire}
	w.serve(ctx)
	return nil
}

// begin starts a new read of the bucket. The previous challenges are answered until it is complete.
func (f *ChallengeFollower) begin(uint64) {
	f.coming, f.seen = map[string]held{}, 0
}

// take applies an entry. Entries come in the order of their revisions, also the present ones. So
// after an entry has come, all earlier ones that still exist have come.
func (f *ChallengeFollower) take(log uint64, e jetstream.KeyValueEntry, more bool) {
	switch {
	case e == nil:
		f.held, f.coming = f.coming, nil
	case f.coming != nil:
		f.seen = e.Revision()
		applyEntry(f.coming, e)
	default:
		f.seen = e.Revision()
		applyEntry(f.held, e)
	}
	if f.coming != nil || more {
		return
	}
	f.set()
	if f.applied.Swap(&Position{Log: log, Seq: f.seen}) == nil {
		close(f.known())
	}
	if f.Changed != nil {
		f.Changed()
	}
}

// applyEntry applies an entry to a set of challenges.
func applyEntry(to map[string]held, e jetstream.KeyValueEntry) {
	delete(to, e.Key())
	var c challenge
	if e.Operation() != jetstream.KeyValuePut || json.Unmarshal(e.Value(), &c) != nil || c.key() != e.Key() {
		return
	}
	if _, err := newChallenge(c.Name, c.Value); err != nil {
		return // edges may not publish at other names of the zones
	}
	until := time.Now().Add(challengeTime) // a bound, in case a clock is wrong
	if c.Until.Before(until) {
		until = c.Until
	}
	to[e.Key()] = held{c, until}
}

// set calls Set with the present challenges.
func (f *ChallengeFollower) set() {
	f.drop(time.Now())
	values := map[string][]string{}
	for _, key := range slices.Sorted(maps.Keys(f.held)) {
		c := f.held[key]
		values[c.Name] = append(values[c.Name], c.Value)
	}
	f.Set(values)
}

// drop removes challenges that have expired, and reports whether there were any.
func (f *ChallengeFollower) drop(now time.Time) bool {
	before := len(f.held)
	maps.DeleteFunc(f.held, func(_ string, c held) bool { return !now.Before(c.until) })
	return len(f.held) < before
}

// expire stops answering challenges that have expired.
func (f *ChallengeFollower) expire() {
	if f.drop(time.Now()) {
		f.set()
	}
}
