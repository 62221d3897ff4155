package deploy

import (
	"context"
	"errors"
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
	f.Limit = 200 * time.Millisecond
	looks := 0
	f.Deploy.Fleet = lookedAt{f, func(ctx context.Context) error {
		if looks++; looks < 3 {
			return errors.New("the cache is on fire")
		}
		<-ctx.Done()
		return ctx.Err()
	}}
	_, r, err := f.try(t.Context())
	if err == nil || !strings.Contains(err.Error(), "not healthy within 200ms: the cache is on fire") {
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
