package fleet

import (
	"context"
	"errors"
	"time"
)

// A consumer is alive as long as bytes arrive, however slow the line is. If none arrive although
// the log has more, something was lost on the way, such as between two control nodes, or the
// consumer has ended with its control node.

// stall detects that purges are due and nothing arrives.
type stall struct {
	had   uint64 // last sequence applied
	bytes uint64 // bytes received
	at    time.Time
	since time.Time // since when something is due and nothing was applied
}

// stalls reports whether nothing has arrived for stallTime although something is due. end is the
// end of the log, applied the last sequence applied, and bytes the number of bytes received.
func (s *stall) stalls(end, applied, bytes uint64, now time.Time) bool {
	if applied >= end {
		*s = stall{}
		return false
	}
	passed := now.Sub(s.at)
	if s.at.IsZero() || applied != s.had || float64(bytes-s.bytes) >= passed.Seconds()*stallBytes &&
		passed >= pollEvery/2 {
		since := s.since
		if since.IsZero() || applied != s.had {
			since = now
		}
		*s = stall{applied, bytes, now, since}
		return false
	}
	return passed >= stallTime
}

// tooLarge reports whether the next entry may be larger than the number of bytes requested at once:
// then refusals arrive, and no purges.
func (s *stall) tooLarge(now time.Time) bool {
	return !s.since.IsZero() && now.Sub(s.since) >= entryTime
}

// entryTime is how long an entry may take to arrive.
const entryTime = 15 * time.Second

// waits reports whether an answer is late because it waits behind purges.
func (f *Follower) waits(s *stall, a answer) bool {
	if !errors.Is(a.err, context.DeadlineExceeded) {
		return false
	}
	bytes, now := f.Client.received.Load(), time.Now()
	since := now.Sub(a.queriedAt)
	late := float64(bytes-a.received) >= since.Seconds()*stallBytes
	if late {
		*s = stall{f.Applied().Seq, bytes, now, s.since}
	}
	return late
}

// feedSize returns how many bytes to request at once.
func (f *Follower) feedSize() int {
	if f.wide { // the missing entry may be larger
		f.wide = false
		return maxFed
	}
	return fedAtOnce
}
