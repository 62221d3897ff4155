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

// healthFunc is a fleet whose health is the result of a function.
type healthFunc struct {
	*testFleet
	check func(ctx context.Context) error
}

// Healthy calls the function.
func (l healthFunc) Healthy(ctx context.Context, _ string, _ DialFunc) error { return l.check(ctx) }

// The error has the reason why a node is not healthy, even if the last check was ended by the
// timeout.
func TestHealthReason(t *testing.T) {
	f := newTestFleet(t, "hel1")
	f.Limit = 5 * time.Second
	looks := 0
	f.Deploy.Fleet = healthFunc{f, func(ctx context.Context) error {
		if looks++; looks < 3 {
			return errors.New("the cache is on fire")
		}
		<-ctx.Done()
		return ctx.Err()
	}}
	_, r, err := f.tryDeploy(t.Context())
	if err == nil || !strings.Contains(err.Error(), "not healthy within 5s: the cache is on fire") {
		t.Errorf("%v", err)
	}
	if r.Nodes[0].Outcome != "put back" {
		t.Errorf("%+v", r.Nodes)
	}

	// If a check never returned, the timeout itself is the reason.
	f.Deploy.Fleet = healthFunc{f, func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	}}
	if _, _, err := f.tryDeploy(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

// A refusal ends the wait for health early.
func TestHealthRefused(t *testing.T) {
	f := newTestFleet(t, "hel1")
	f.Limit = time.Hour
	f.Deploy.Fleet = healthFunc{f, func(context.Context) error { return fmt.Errorf("%w: 401", ErrRefused) }}
	_, r, err := f.tryDeploy(t.Context())
	if err == nil || !strings.Contains(err.Error(), "node hel1: refused: 401") || r.Nodes[0].Outcome != "put back" {
		t.Errorf("%v, %+v", err, r)
	}
}

// refusingFleet is a fleet that refuses to drain.
type refusingFleet struct{ *testFleet }

// Drain returns ErrRefused.
func (r refusingFleet) Drain(_ context.Context, node string, _ DialFunc, _ bool) (bool, error) {
	return false, fmt.Errorf("%w: 401", ErrRefused)
}

// A drain that was refused is not reported as done and is not undone.
func TestDrainRefused(t *testing.T) {
	f := newTestFleet(t, "hel1", "nyc1")
	f.deploy(t)
	setConfig(f, "c: 1\n")
	f.Limit, f.Deploy.Fleet = time.Hour, refusingFleet{f}
	f.out.Reset()
	_, r, err := f.tryDeploy(t.Context())
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

// The log in an error contains only lines of the current start, not of earlier starts or of the old
// process.
func TestLogOfThisStart(t *testing.T) {
	f := newTestFleet(t, "hel1")
	n := f.nodes["hel1"]
	setConfig(f, "broken: first\n")
	if _, _, err := f.tryDeploy(t.Context()); err == nil ||
		!strings.Contains(err.Error(), "the end of its log:\nfleet.yaml is broken") {
		t.Fatalf("the first attempt: %v", err)
	}
	n.write(t, "/run/busy", "")
	setConfig(f, "fine: 1\n")
	if _, _, err := f.tryDeploy(t.Context()); err == nil || !strings.Contains(err.Error(), "Failed to listen") ||
		strings.Contains(err.Error(), "broken") {
		t.Errorf("an attempt that starts nothing: %v", err)
	}
	if err := os.Remove(n.root + "/run/busy"); err != nil {
		t.Fatal(err)
	}
	f.deploy(t)
	setConfig(f, "broken: again\n")
	_, _, err := f.tryDeploy(t.Context())
	if err == nil || !strings.HasSuffix(err.Error(), "the end of its log:\nfleet.yaml is broken") {
		t.Errorf("an attempt that replaces a process: %v", err)
	}
}
