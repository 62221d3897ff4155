package origin

import (
	"testing"
	"time"
)

// A server whose probes succeed but whose requests fail is ejected for longer each time it comes
// back, until it was stable for long.
func TestFlapping(t *testing.T) {
	t.Parallel()
	p := newIdlePool(t, &Pool{Log: discardLog}, 1, 1)
	h := Health{Interval: time.Minute}.withDefaults()
	p.Health = &h // set after Start, so that no probes run
	b := p.all[0]
	since := func() time.Time {
		p.mu.Lock()
		defer p.mu.Unlock()
		return b.recoveredAt
	}
	for _, c := range []struct{ well, want time.Duration }{
		{time.Second, time.Minute},
		{time.Second, 2 * time.Minute},
		{time.Second, 4 * time.Minute},
		{time.Second, maxPause},
		{5 * maxPause, time.Minute},
		{time.Second, 2 * time.Minute},
	} {
		failOften(p, b, since().Add(c.well), errStatus, failureLimit)
		p.recordProbe(b, time.Now(), nil, false)
		p.mu.Lock()
		ejected, paused := b.ejected, b.ejectedFor
		p.mu.Unlock()
		if !ejected || paused != c.want {
			t.Errorf("after %v it is ejected: %v, for %v, want %v", c.well, ejected, paused, c.want)
		}
		p.readmit(b)
	}
}
