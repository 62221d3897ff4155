package origin

import (
	"errors"
	"log/slog"
	"testing"
	"time"
)

// An edge of the fleet that starts along with this one is told of as down if it does not come; one
// that was there, and an origin server, at once.
func TestEdgesThatStart(t *testing.T) {
	down := errors.New("connection refused")
	for _, c := range []struct {
		name        string
		relays      bool
		seen        bool
		early, late int // lines within the start, and after it
	}{
		{"an edge that was never there", true, false, 0, 1},
		{"an edge that was there", true, true, 1, 1},
		{"an origin server", false, false, 1, 1},
	} {
		var log logBuffer
		p := newIdlePool(t, &Pool{Relays: c.relays, Log: slog.New(slog.NewTextHandler(&log, nil))}, 1, 1)
		p.Health = &Health{Interval: time.Hour, UnhealthyAfter: 1, HealthyAfter: 1} // after the start: only this test probes
		at := p.started.Add(time.Second)
		if c.seen {
			p.recordProbe(p.all[0], at, nil, false)
		}
		p.recordProbe(p.all[0], at.Add(time.Second), down, true)
		p.recordProbe(p.all[0], at.Add(2*time.Second), down, true)
		if n := log.count("origin server is down"); n != c.early {
			t.Errorf("%s: %d lines within the start, want %d", c.name, n, c.early)
		}
		p.recordProbe(p.all[0], at.Add(startGrace), down, true)
		if n := log.count("origin server is down"); n != c.late {
			t.Errorf("%s: %d lines after the start, want %d", c.name, n, c.late)
		}
	}
}
