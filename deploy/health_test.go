package deploy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// lookedAt is a fleet whose health is what a func says.
type lookedAt struct {
	*testFleet
	look func(ctx context.Context) error
}

// Healthy asks the func.
func (l lookedAt) Healthy(ctx context.Context, _ string, _ DialFunc) error { return l.look(ctx) }

// The reason why a node is not well is told, also when the last look at it was ended by the limit.
func TestHealthReason(t *testing.T) {
	f := newTestFleet(t, "hel1")
	f.Limit = 5 * time.Second
	looks := 0
	f.Deploy.Fleet = lookedAt{f, func(ctx context.Context) error {
		if looks++; looks < 3 {
			return errors.New("the cache is on fire")
		}
		<-ctx.Done()
		return ctx.Err()
	}}
	_, r, err := f.try(t.Context())
	if err == nil || !strings.Contains(err.Error(), "not healthy within 5s: the cache is on fire") {
		t.Errorf("%v", err)
	}
	if r.Nodes[0].Outcome != "put back" {
		t.Errorf("%+v", r.Nodes)
	}

	// One look that never ended has no other reason than that.
	f.Deploy.Fleet = lookedAt{f, func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	}}
	if _, _, err := f.try(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

// What is refused is not tried for long: it ends the wait for health at once.
func TestHealthRefused(t *testing.T) {
	f := newTestFleet(t, "hel1")
	f.Limit = time.Hour
	f.Deploy.Fleet = lookedAt{f, func(context.Context) error { return fmt.Errorf("%w: 401", ErrRefused) }}
	_, r, err := f.try(t.Context())
	if err == nil || !strings.Contains(err.Error(), "node hel1: refused: 401") || r.Nodes[0].Outcome != "put back" {
		t.Errorf("%v, %+v", err, r)
	}
}

// refusing is a fleet that refuses drains.
type refusing struct{ *testFleet }

// Drain refuses.
func (r refusing) Drain(_ context.Context, node string, _ DialFunc, _ bool) (bool, error) {
	return false, fmt.Errorf("%w: 401", ErrRefused)
}

// A drain that was refused is not told of as one that was done, and is not taken back.
func TestDrainRefused(t *testing.T) {
	f := newTestFleet(t, "hel1", "nyc1")
	f.deploy(t)
	setConfig(f, "c: 1\n")
	f.Limit, f.Deploy.Fleet = time.Hour, refusing{f}
	f.out.Reset()
	_, r, err := f.try(t.Context())
	if err == nil || !strings.HasSuffix(err.Error(), "drain hel1: refused: 401") {
		t.Errorf("the error is %v", err)
	}
	for _, n := range r.Nodes {
		if n.Outcome != "untouched" || n.Note != "" {
			t.Errorf("%+v", n)
		}
	}
	if strings.Contains(f.out.String(), "drain") {
		t.Errorf("it says\n%s", f.out.String())
	}
}

// What is told of the log is of this start: not of an attempt before, and not what the old process
// says.
func TestLogOfThisStart(t *testing.T) {
	f := newTestFleet(t, "hel1")
	n := f.nodes["hel1"]
	setConfig(f, "broken: first\n")
	if _, _, err := f.try(t.Context()); err == nil || !strings.Contains(err.Error(), "the end of its log:\nfleet.yaml is broken") {
		t.Fatalf("the first attempt: %v", err)
	}
	n.write(t, "/run/busy", "")
	setConfig(f, "fine: 1\n")
	if _, _, err := f.try(t.Context()); err == nil || !strings.Contains(err.Error(), "Failed to listen") || strings.Contains(err.Error(), "broken") {
		t.Errorf("an attempt that starts nothing: %v", err)
	}
	if err := os.Remove(n.root + "/run/busy"); err != nil {
		t.Fatal(err)
	}
	f.deploy(t)
	setConfig(f, "broken: again\n")
	_, _, err := f.try(t.Context())
	if err == nil || !strings.HasSuffix(err.Error(), "the end of its log:\nfleet.yaml is broken") {
		t.Errorf("an attempt that replaces a process: %v", err)
	}
}
