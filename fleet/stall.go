package fleet

import (
	"context"
	"errors"
	"time"
)

// What delivers purges to an edge is alive as long as bytes come, however slow its line is. If none
// come though the log has more, something was lost on the way, as between two control nodes, or
// what delivers has ended with its control node.

// stall is since when purges are due of which nothing comes.
type stall struct {
	had   uint64 // applied
	bytes uint64 // received
	at    time.Time
	since time.Time // something is due, and nothing was applied
}

// stalls reports whether nothing has come for stallTime though something is due, by the end of the
// log, what is applied, and how many bytes have been received.
func (s *stall) stalls(end, applied, bytes uint64, now time.Time) bool {
	if applied >= end {
		*s = stall{}
		return false
	}
	passed := now.Sub(s.at)
	if s.at.IsZero() || applied != s.had || float64(bytes-s.bytes) >= passed.Seconds()*stallBytes &&
		passed >= leaseEvery/2 {
		since := s.since
		if since.IsZero() || applied != s.had {
			since = now
		}
		*s = stall{applied, bytes, now, since}
		return false
	}
	return passed >= stallTime
}

// tooLarge reports whether an entry may be larger than what is asked for at once: refusals come,
// and no purge.
func (s *stall) tooLarge(now time.Time) bool {
	return !s.since.IsZero() && now.Sub(s.since) >= entryTime
}

// entryTime is how long an entry may take to come.
const entryTime = 15 * time.Second

// waits reports whether an answer is late as it waits behind purges.
func (f *Follower) waits(s *stall, a answer) bool {
	if !errors.Is(a.err, context.DeadlineExceeded) {
		return false
	}
	bytes, now := f.Client.received.Load(), time.Now()
	since := now.Sub(a.asked)
	late := float64(bytes-a.received) >= since.Seconds()*stallBytes
	if late {
		*s = stall{f.Applied().Seq, bytes, now, s.since}
	}
	return late
}

// feedSize is how many bytes are asked for at once.
func (f *Follower) feedSize() int {
	if f.wide { // what did not come may be larger
		f.wide = false
		return maxFed
	}
	return fedAtOnce
}
