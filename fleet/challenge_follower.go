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

// ChallengeFollower gives a name server the challenges that edges publish. Its fields are set
// before Serve.
type ChallengeFollower struct {
	Client *Client
	// Set makes the values at each name, which has no dot at its end, all that are answered; when
	// it returns they are. It is called by one goroutine, each time with all that there is, and
	// must not keep that goroutine waiting.
	Set func(values map[string][]string)
	// Changed is called after Applied has changed, as Registry.Renew, so that the lease tells at
	// once; nil is nobody.
	Changed func()

	applied atomic.Pointer[Position] // nil before the first Set
	once    sync.Once
	first   chan struct{}   // made once; closed after the first Set
	held    map[string]held // those answered, by key of the bucket; of Serve alone
	coming  map[string]held // not nil while all that there is comes: takes the place of held when it is whole
	seen    uint64          // revision of the last entry
}

// held is a challenge that is answered, and until when.
type held struct {
	challenge
	until time.Time
}

// Applied is up to where the name server answers with what is published, for its lease. It is zero
// before Set was called for the first time.
func (f *ChallengeFollower) Applied() Position {
	if p := f.applied.Load(); p != nil {
		return *p
	}
	return Position{}
}

// Wait waits until Set was called for the first time, or ctx ends. A name server that has begun
// again is to wait a little before it answers: others may take it for the one that had all
// challenges, but without a control plane it must answer all the same.
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

// Serve follows until ctx ends, which is no error. A control plane that is lost leaves what was
// known, until it expires.
func (f *ChallengeFollower) Serve(ctx context.Context) error {
	w := watch{client: f.Client, bucket: challengeBucket, begin: f.begin, take: f.take, tick: f.expire}
	w.serve(ctx)
	return nil
}

// begin is told that all that there is comes anew. What was known is answered until it has.
func (f *ChallengeFollower) begin(uint64) {
	f.coming, f.seen = map[string]held{}, 0
}

// take notes an entry. Entries come in the order of their revisions, those that are there at first
// too, so that with one all before it have come that are still there.
func (f *ChallengeFollower) take(log uint64, e jetstream.KeyValueEntry, more bool) {
	switch {
	case e == nil:
		f.held, f.coming = f.coming, nil
	case f.coming != nil:
		f.seen = e.Revision()
		note(f.coming, e)
	default:
		f.seen = e.Revision()
		note(f.held, e)
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

// note makes the change of an entry.
func note(to map[string]held, e jetstream.KeyValueEntry) {
	delete(to, e.Key())
	var c challenge
	if e.Operation() != jetstream.KeyValuePut || json.Unmarshal(e.Value(), &c) != nil || c.key() != e.Key() {
		return
	}
	if _, err := newChallenge(c.Name, c.Value); err != nil {
		return // an edge has no say in other names of the zones
	}
	until := time.Now().Add(challengeTime) // of whoever's clock is wrong
	if c.Until.Before(until) {
		until = c.Until
	}
	to[e.Key()] = held{c, until}
}

// set says what there is.
func (f *ChallengeFollower) set() {
	f.drop(time.Now())
	values := map[string][]string{}
	for _, key := range slices.Sorted(maps.Keys(f.held)) {
		c := f.held[key]
		values[c.Name] = append(values[c.Name], c.Value)
	}
	f.Set(values)
}

// drop drops what has expired, and says whether anything has.
func (f *ChallengeFollower) drop(now time.Time) bool {
	before := len(f.held)
	maps.DeleteFunc(f.held, func(_ string, c held) bool { return !now.Before(c.until) })
	return len(f.held) < before
}

// expire ends the challenges whose time is over.
func (f *ChallengeFollower) expire() {
	if f.drop(time.Now()) {
		f.set()
	}
}
