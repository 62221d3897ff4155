package fleet

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// Purges come over a line on which each takes longer than a sign of life, and answers wait behind
// them.
func TestSlowLine(t *testing.T) {
	t.Parallel()
	nodes := startControl(t, t.TempDir(), 1)
	line := newRelay(t, nodes[0].Addr)
	line.slow(64 << 10)
	e := startEdge(t, dial(t, []*control{{Control: &Control{Addr: line.Addr().String()}}}, "nyc1", RoleEdge),
		Position{})
	testwait.Until(t, "it is in touch", e.InTouch)
	near := dial(t, nodes, "hel1", RoleEdge)
	for i := range 2 {
		if _, err := near.Append(t.Context(), string(rune('a'+i)), "", strings.Repeat("x", 256<<10)); err != nil {
			t.Fatal(err)
		}
	}
	testwait.Until(t, "it has both", func() bool { return e.has() == 2 })
	testwait.Until(t, "it is in touch again", e.InTouch)
}

// An entry of an earlier version may be larger than what is asked for at once.
func TestLargeEntry(t *testing.T) {
	t.Parallel()
	nodes := startControl(t, t.TempDir(), 1)
	c := dial(t, nodes, "hel1", RoleEdge)
	e := startEdge(t, c, Position{})
	testwait.Until(t, "it is in touch", e.InTouch)
	if _, err := c.Append(t.Context(), "a", "", strings.Repeat("x", 2*fedAtOnce)); err != nil {
		t.Fatal(err)
	}
	seq := appendPurge(t, c, 1)
	testwait.Until(t, "it has both", func() bool { return e.Applied().Seq == seq })
}

// A purge that the log has and that does not come is noticed without another one. One of which
// bytes come is waited for, and so is an answer behind it.
func TestStalledFeed(t *testing.T) {
	follow := func(each func(c *Client, n int) answer) (err error) {
		synctest.Test(t, func(t *testing.T) {
			f := &Follower{Client: &Client{}}
			answers, from := make(chan answer), &feed{incoming: make(chan []jetstream.Msg), failed: make(chan error),
				stop: func() {}, size: maxFed}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			done := make(chan error)
			go func() {
				done <- f.apply(ctx, answer{at: Position{Log: 1}, queriedAt: time.Now()}, from, nil, answers, nil)
			}()
			for n := range 30 {
				time.Sleep(time.Second)
				a := each(f.Client, n)
				select {
				case answers <- a:
				case err = <-done:
					return
				}
			}
			cancel()
			err = <-done
		})
		return err
	}
	end := Position{Log: 1, Seq: 1}
	if err := follow(func(c *Client, _ int) answer {
		c.received.Add(1000) // answers
		return answer{at: end, queriedAt: time.Now()}
	}); err == nil || !strings.Contains(err.Error(), "due") {
		t.Errorf("nothing comes: %v", err)
	}
	if err := follow(func(c *Client, _ int) answer {
		a := answer{at: end, queriedAt: time.Now().Add(-time.Second), received: c.received.Load()}
		c.received.Add(32 << 10)
		return a
	}); err != nil {
		t.Errorf("a purge comes slowly: %v", err)
	}
	late := func(bytes uint64) error {
		return follow(func(c *Client, _ int) answer {
			a := answer{queriedAt: time.Now().Add(-callTimeout), received: c.received.Load(),
				err: context.DeadlineExceeded}
			c.received.Add(bytes)
			return a
		})
	}
	if err := late(1 << 20); err != nil {
		t.Errorf("an answer waits behind purges: %v", err)
	}
	if err := late(1000); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("no answer comes: %v", err)
	}
}
