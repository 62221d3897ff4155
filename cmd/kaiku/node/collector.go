package node

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// Go's collector lets the heap grow to twice the bytes in use before it runs. The RAM tier is most
// of these bytes, and its objects stay for long. So an edge lets garbage grow only as large as the
// rest of the heap, or a fifth of all.

const (
	// minGarbage is how many bytes of garbage the collector lets grow at least.
	minGarbage = 32 << 20
	// minPercent is the smallest share of the bytes in use that garbage may have, in percent. Each
	// collection visits all objects of the tier.
	minPercent = 20
	// goPercent is Go's default.
	goPercent      = 100
	paceInterval   = time.Second
	liveHeapMetric = "/gc/heap/live:bytes"
)

// garbagePercent returns the value for debug.SetGCPercent if live bytes of the heap are in use, of
// which the RAM tier has tier.
func garbagePercent(live, tier uint64) int {
	if live == 0 {
		return goPercent
	}
	garbage := max(live-min(live, tier), minGarbage)
	return int(min(max(garbage*100/live, minPercent), goPercent))
}

// paceCollector sets the pace of Go's collector once a second until ctx ends, unless the
// environment has GOGC. tier returns the bytes of the RAM tier.
func paceCollector(ctx context.Context, tier func() uint64) {
	if os.Getenv("GOGC") != "" {
		return
	}
	defer debug.SetGCPercent(goPercent)
	sample := []metrics.Sample{{Name: liveHeapMetric}}
	tick := time.NewTicker(paceInterval)
	defer tick.Stop()
	for last := goPercent; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		metrics.Read(sample)
		if p := garbagePercent(sample[0].Value.Uint64(), tier()); p != last {
			debug.SetGCPercent(p)
			last = p
		}
	}
}
