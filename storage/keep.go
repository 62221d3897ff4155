package storage

// This file is the policy of what to keep; it knows nothing of disks, so that a simulation runs the
// same code (keep_test.go).
//
// Segments are of two classes, which is S3-FIFO (Yang et al., SOSP 2023) in generations. New
// objects go to probation, a tenth of the budget. When a segment of it is dropped, what was hit
// twice or more moves on to main, and the rest leaves; when a segment of main is dropped, what was
// hit since it was written is written again. A key that comes back while it is remembered as a
// ghost goes to main at once.

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
	// segmentCount divides the budget; the design asks for 16 to 32.
	segmentCount = 32
	// probationSegments of them are probation.
	probationSegments = 3
	// maxHits is where an object's hits since it was written stop being counted.
	maxHits = 3
	// maxRewrite bounds what is written again, in parts of a hundred of what is new: with what
	// Badger adds it keeps write amplification under 1.4.
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

// ghosts remember the keys of objects that left, oldest first, for as many bytes of them as the
// budget. The zero value remembers nothing.
type ghosts struct {
	limit int64 // bytes of objects
	bytes int64
	slots map[uint64]uint64 // to the number of the newest entry in queue
	queue []ghost           // from head on
	head  int
	next  uint64 // number of the entry that comes next
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

// take reports whether a slot is remembered, and forgets it.
func (g *ghosts) take(slot uint64) bool {
	_, ok := g.slots[slot]
	delete(g.slots, slot)
	return ok
}

// overfull says which class has to give up a segment when the budget is exceeded: probation if it
// has more than its share.
func overfull(used [classes]int64, limit int64) class {
	if used[probation] > limit*probationSegments/segmentCount {
		return probation
	}
	return main
}
