package storage

import (
	"context"
	"time"
)

// The scrubber goes round the values that were checked, and are sent without being read since. What
// the kernel still has in memory of them is checked again, as that is what is sent; what it has let
// go of comes from the disk the next time, and is checked then.

const (
	scrubInterval = time.Second
	// scrubRate is how many bytes of values it checks in that time. At 10 GB/s that is a thousandth
	// of a processor; a set of 10 GiB takes 21 minutes.
	scrubRate = 8 << 20
	// seenRounds is for how many rounds a value that the page cache had is taken to be there still,
	// so that the kernel need not be asked each time: that costs a tenth of a range of 64 KiB.
	seenRounds = 2
	// lookCost is what a value counts that is not read, so that one round can't take for ever.
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

// scrubPlace is how far a round is: in a segment, a value log of it, and the list of that.
type scrubPlace struct {
	segment uint32
	file    uint32
	index   int
}

// scrub goes on with a round from a place, for so many bytes. It returns where to go on, at the
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

// scrubValue looks at one value of those of a value log that were checked. It returns how many
// bytes that counts for, and which value is next, -1 after the last.
func (s *Store) scrubValue(g *segment, v *valueFile, index int, buf *buffer) (read, next int) {
	v.mu.Lock()
	if index >= len(v.list) {
		v.mu.Unlock()
		return 0, -1
	}
	c := v.list[index]
	v.mu.Unlock()
	if v.evicted(int64(c.value), minPlaced) { // before anything is read of it, which would bring it back
		v.setUnchecked(c) // another one has its index now
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
	v.setUnchecked(c) // another one has its index now
	return lookCost, index
}
