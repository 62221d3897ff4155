package storage

import (
	"context"
	"time"
)

// The scrubber checks values again that were checked once, and are since sent without being read.
// It reads those that the page cache still has. It marks the others as unchecked: they come from
// the disk the next time, and are checked then.

const (
	scrubInterval = time.Second
	// scrubRate is how many bytes of values it checks in that time. At 10 GB/s, that takes a
	// thousandth of a processor. A round over 10 GiB takes 21 minutes.
	scrubRate = 8 << 20
	// seenRounds is for how many rounds a value in the page cache is assumed to stay there. Asking
	// the kernel each time would cost a tenth of sending 64 KiB.
	seenRounds = 2
	// lookCost is how many bytes a value counts that is not read, so that a call takes bounded
	// time.
	lookCost = 4 << 10
)

// scrubLoop scrubs until ctx ends.
func (s *Store) scrubLoop(ctx context.Context) {
	tick := time.NewTicker(scrubInterval)
	defer tick.Stop()
	at := scrubPlace{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		s.rounds.Add(1)
		at = s.scrub(at, scrubRate)
	}
}

// scrubPlace is the position of a round: a segment, a value log, and an index in its list.
type scrubPlace struct {
	segment uint32
	file    uint32
	index   int
}

// scrub continues a round from a place, for left bytes. It returns the next place, which is the
// beginning if the round is over.
func (s *Store) scrub(from scrubPlace, left int) scrubPlace {
	buf := buffers.Get().(*buffer)
	defer buffers.Put(buf)
	for left > 0 {
		g := s.segmentFrom(from.segment)
		if g == nil {
			return scrubPlace{}
		}
		if g.id != from.segment {
			from = scrubPlace{segment: g.id}
		}
		if !g.pin() {
			from = scrubPlace{segment: g.id + 1}
			continue
		}
		v := g.files.from(from.file)
		switch {
		case v == nil:
			from = scrubPlace{segment: g.id + 1}
		case v.number != from.file:
			from = scrubPlace{segment: g.id, file: v.number}
			fallthrough
		default:
			n, next := s.scrubValue(g, v, from.index, buf)
			if left -= n; next < 0 {
				from = scrubPlace{segment: g.id, file: v.number + 1}
			} else {
				from.index = next
			}
		}
		g.unpin()
	}
	return from
}

// scrubValue scrubs one of the checked values of a value log. It returns how many bytes that
// counts, and the index of the next value, or -1 after the last.
func (s *Store) scrubValue(g *segment, v *valueFile, index int, buf *buffer) (read, next int) {
	v.mu.Lock()
	if index >= len(v.list) {
		v.mu.Unlock()
		return 0, -1
	}
	c := v.list[index]
	v.mu.Unlock()
	if v.evicted(int64(c.value), minPlaced) { // before a read brings it back into the page cache
		v.setUnchecked(c) // another value has the index now
		return lookCost, index
	}
	e, err := v.readEntry(c.entry)
	if err == nil && !v.evicted(e.value, e.size) {
		if err = v.check(e.key, e, buf); err == nil {
			return e.size, index + 1
		}
	}
	if err != nil {
		s.opt.Log.Warn("a value that was right is damaged: it is checked before it is used again", "segment", g.id,
			"value_log", v.number,
			"at", c.value, "error", err)
	}
	v.setUnchecked(c) // another value has the index now
	return lookCost, index
}
