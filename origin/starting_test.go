package origin

import (
	"errors"
	"log/slog"
	"testing"
	"time"
)

// An edge that starts at the same time as this one is logged as down only if it does not come up.
// An edge that was up before, and an origin server, are logged at once.
func TestEdgesThatStart(t *testing.T) {
	down := errors.New("connection refused")
	for _, c := range []struct {
		name        string
		relays      bool
		seen        bool
		early, late int // log lines within startGrace, and in total after it
	}{
		{"an edge that was never there", true, false, 0, 1},
		{"an edge that was there", true, true, 1, 1},
		{"an origin server", false, false, 1, 1},
	} {
		var log logBuffer
		p := newIdlePool(t, &Pool{Relays: c.relays, Log: slog.New(slog.NewTextHandler(&log, nil))}, 1, 1)
		// Set after Start, so that only this test probes.
		p.Health = &Health{Interval: time.Hour, UnhealthyAfter: 1, HealthyAfter: 1}
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
