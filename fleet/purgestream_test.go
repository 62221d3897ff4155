package fleet

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// acks are what a stream of purges was answered.
type acks struct {
	stop func()
	mu   sync.Mutex
	seqs []uint64 // by purge
}

// purgeOn makes one purge after the other, each again until it is acknowledged.
func purgeOn(t *testing.T, c *Client) *acks {
	t.Helper()
	a := &acks{}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := 0; ctx.Err() == nil; n++ {
			for {
				seq, err := c.Append(context.Background(), fmt.Sprintf("%s-%d", c.Node, n), "", n)
				if err == nil {
					a.mu.Lock()
					a.seqs = append(a.seqs, seq)
					a.mu.Unlock()
					break
				}
				if ctx.Err() != nil {
					return
				}
				time.Sleep(20 * time.Millisecond)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}()
	a.stop = sync.OnceFunc(func() {
		cancel()
		<-done
	})
	t.Cleanup(a.stop)
	return a
}

func (a *acks) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.seqs)
}

// more waits until some more are acknowledged.
func (a *acks) more(t *testing.T) {
	t.Helper()
	n := a.count()
	testwait.Until(t, "purges are acknowledged", func() bool { return a.count() > n+5 })
}

// keeper is an edge that notes what it applies, by sequence.
type keeper struct {
	*Follower
	mu      sync.Mutex
	applied map[uint64]string
	last    uint64
	lost    []Position
	wrong   []string
}

// keep starts an edge that goes on from a position.
func keep(t *testing.T, c *Client, from Position) *keeper {
	t.Helper()
	k := &keeper{applied: map[uint64]string{}, last: from.Seq}
	k.Follower = &Follower{Client: c, Start: from,
		Apply: func(purges []Logged, after Position) error {
			k.mu.Lock()
			defer k.mu.Unlock()
			if after.Seq != k.last+uint64(len(purges)) {
				k.wrong = append(k.wrong, fmt.Sprintf("after %d come %d purges, up to %d", k.last, len(purges),
					after.Seq))
			}
			for i, p := range purges {
				k.applied[after.Seq-uint64(len(purges)-1-i)] = string(p.Purge)
			}
			k.last = after.Seq
			return nil
		},
		Lost: func(now Position) error {
			k.mu.Lock()
			defer k.mu.Unlock()
			k.lost, k.last = append(k.lost, now), now.Seq
			return nil
		}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- k.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	testwait.Until(t, "the edge is in touch", k.InTouch)
	k.mu.Lock()
	k.lost = nil // of the first time
	k.mu.Unlock()
	return k
}

// check stops the purges, and makes sure that each that was acknowledged was applied by each edge,
// once, in the order of the log, and that no edge took everything as stale.
func (a *acks) check(t *testing.T, edges ...*keeper) {
	t.Helper()
	a.stop()
	if !slices.IsSorted(a.seqs) || len(slices.Compact(slices.Clone(a.seqs))) != len(a.seqs) {
		t.Errorf("sequences of the acknowledged are not increasing: %v", a.seqs)
	}
	for i, e := range edges {
		testwait.Until(t, "an edge has all", func() bool {
			e.mu.Lock()
			defer e.mu.Unlock()
			return len(a.seqs) == 0 || e.last >= a.seqs[len(a.seqs)-1]
		})
		e.mu.Lock()
		for n, seq := range a.seqs {
			if got := e.applied[seq]; got != fmt.Sprint(n) {
				t.Errorf("edge %d: purge %d was acknowledged as %d, where it has %q", i, n, seq, got)
			}
		}
		if len(e.lost) > 0 || len(e.wrong) > 0 {
			t.Errorf("edge %d took everything as stale at %v; %v", i, e.lost, e.wrong)
		}
		e.mu.Unlock()
	}
}
