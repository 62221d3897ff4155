package fleet

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// The sequences of a log are used twice when its control nodes lose a part of it, as by an old
// backup that is put back: the log goes on from there, and looks like the one that it was. Then two
// histories have an entry with the same sequence. A mark tells these entries apart: it is when the
// control plane took the entry, in nanoseconds, which NATS keeps with each.
//
// An edge compares marks wherever two accounts of the log meet: the end that a majority confirms
// with what it has applied itself, the first entry that is delivered with the last that it has
// applied, and the entry that each purge refers to (see reference). If any differ, all that it has
// is stale.

// markOf is the mark of an entry that was taken at a time; 0 is unknown.
func markOf(seq uint64, taken time.Time) uint64 {
	if seq == 0 || taken.Unix() <= 0 {
		return 0
	}
	return uint64(taken.UnixNano())
}

// differ reports whether two marks are of different entries. An unknown one, as an earlier version
// noted none, is taken for any.
func differ(a, b uint64) bool { return a != 0 && b != 0 && a != b }

// maxMarks is how many marks are kept at least. An edge that lags behind the end that it is told of
// by more can't compare the two, and does when it is told the next time.
const maxMarks = 1 << 16

// marks are those of the entries that an edge applied last. They are for one goroutine.
type marks struct {
	first uint64 // sequence of list[0]
	list  []uint64
}

// add notes the mark of an entry. Those before it are kept if it is the next one.
func (m *marks) add(seq, mark uint64) {
	if seq != m.first+uint64(len(m.list)) {
		m.first, m.list = seq, m.list[:0]
	}
	if len(m.list) >= 2*maxMarks {
		m.first += maxMarks
		m.list = append(m.list[:0], m.list[maxMarks:]...)
	}
	m.list = append(m.list, mark)
}

// drop forgets the last n.
func (m *marks) drop(n int) { m.list = m.list[:max(0, len(m.list)-n)] }

// at is the mark of an entry, if it is kept.
func (m *marks) at(seq uint64) (mark uint64, ok bool) {
	if seq < m.first || seq-m.first >= uint64(len(m.list)) {
		return 0, false
	}
	return m.list[seq-m.first], true
}

// learn notes the mark of an entry that was applied without one.
func (m *marks) learn(seq, mark uint64) {
	if known, ok := m.at(seq); ok && known == 0 {
		m.list[seq-m.first] = mark
	}
}

// errOtherHistory says that an edge has applied entries that the log does not have.
var errOtherHistory = errors.New("the purge log has other entries than those that were applied")

// reference is what a purge says of the one before it, or of one that was there not long before:
// each entry vouches for those up to there, so that a copy of the log that lacks some in its midst,
// or has others there, is noticed.
func (p Position) reference() string {
	return fmt.Sprintf("%s.%s.%s", encodeNumber(p.Log), encodeNumber(p.Seq), encodeNumber(p.Mark))
}

// referenceOf reads the reference at the end of the ID of an entry; the zero Position is none.
func referenceOf(id string) Position {
	parts := strings.Split(id, ".")
	if len(parts) != 4 {
		return Position{}
	}
	var numbers [3]uint64
	for i := range numbers {
		n, err := strconv.ParseUint(parts[i+1], 36, 64)
		if err != nil {
			return Position{}
		}
		numbers[i] = n
	}
	return Position{Log: numbers[0], Seq: numbers[1], Mark: numbers[2]}
}

func encodeNumber(n uint64) string { return strconv.FormatUint(n, 36) }
