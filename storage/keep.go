package storage

// This file is the policy of which objects to keep. It knows nothing of disks, so that a simulation
// can run the same code (keep_test.go).
//
// The policy is S3-FIFO (Yang et al., SOSP 2023) with segments of two classes. New objects go to
// probation, a tenth of the budget. When a segment of probation is dropped, objects with two or
// more hits move to main, and the others are lost. When a segment of main is dropped, objects with
// a hit since they were written are written to main again. The keys of lost objects are remembered
// as ghosts. A new object with such a key goes to main at once.

// class is one of the two classes of segments.
type class uint8

const (
	probation class = iota
	main
	classes
)

var classNames = [classes]string{"probation", "main"}

func (c class) String() string { return classNames[c] }

const (
	// segmentCount is the number of segments of the whole budget.
	segmentCount = 32
	// probationSegments is how many of them are for probation.
	probationSegments = 3
	// maxHits is the highest number of hits that is counted for an object since it was written.
	maxHits = 3
	// maxRewrite bounds the bytes that are written again, in percent of the new bytes. With
	// Badger's own overhead, write amplification stays under 1.4.
	maxRewrite = 33
)

// keeps reports whether an object with so many hits since it was written survives the drop of its
// segment.
func (c class) keeps(hits uint8) bool {
	if c == probation {
		return hits >= 2
	}
	return hits >= 1
}

// ghosts remember the keys of lost objects, for as many bytes of objects as the budget has. The
// zero value remembers nothing.
type ghosts struct {
	limit int64 // bytes of objects
	bytes int64
	slots map[uint64]uint64 // numbers of the newest entries in queue, by slot
	queue []ghost           // the oldest first, from head
	head  int
	next  uint64 // number of the next entry
}

type ghost struct {
	slot uint64
	size int64
}

// maxGhosts bounds the memory of ghosts: 32 bytes and a map entry each.
const maxGhosts = 1 << 20

func newGhosts(limit int64) *ghosts {
	return &ghosts{limit: limit, slots: map[uint64]uint64{}}
}

func (g *ghosts) add(slot uint64, size int64) {
	g.slots[slot] = g.next
	g.next++
	g.queue = append(g.queue, ghost{slot, size})
	g.bytes += size
	for len(g.queue)-g.head > 0 && (g.bytes > g.limit || len(g.queue)-g.head > maxGhosts) {
		old := g.queue[g.head]
		number := g.next - uint64(len(g.queue)-g.head)
		g.head++
		g.bytes -= old.size
		if g.slots[old.slot] == number {
			delete(g.slots, old.slot)
		}
	}
	if g.head > len(g.queue)/2 {
		g.queue = append(g.queue[:0], g.queue[g.head:]...)
		g.head = 0
	}
}

// take reports whether a slot is remembered, and removes it.
func (g *ghosts) take(slot uint64) bool {
	_, ok := g.slots[slot]
	delete(g.slots, slot)
	return ok
}

// overfull returns the class that has to drop a segment when the budget is exceeded: probation if
// it has more than its share, otherwise main.
func overfull(used [classes]int64, limit int64) class {
	if used[probation] > limit*probationSegments/segmentCount {
		return probation
	}
	return main
}
