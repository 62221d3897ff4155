package fleet

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// The same sequences are used twice if the control nodes lose a part of the log, such as by
// restoring an old backup: the log goes on from there as if nothing had happened. Then two
// histories have different entries with the same sequence. A mark distinguishes these: it is the
// time at which the control plane took the entry, in nanoseconds. NATS keeps it with each entry.
//
// An edge compares marks in three places: the end that a majority confirms with the entry that the
// edge has applied, the first entry that is delivered with the last one applied, and the entry that
// each purge refers to (see reference). If any differ, everything that the edge has is stale.

// markOf returns the mark of an entry that was taken at a time; 0 means unknown.
func markOf(seq uint64, taken time.Time) uint64 {
	if seq == 0 || taken.Unix() <= 0 {
		return 0
	}
	return uint64(taken.UnixNano())
}

// differ reports whether two marks are of different entries. An unknown mark, as earlier versions
// have, differs from none.
func differ(a, b uint64) bool { return a != 0 && b != 0 && a != b }

// maxMarks is how many marks are kept at least. An edge that lags further behind the known end of
// the log can't compare marks until it is told the end again.
const maxMarks = 1 << 16

// marks are the marks of the last entries that an edge applied. They are for one goroutine.
type marks struct {
	first uint64 // sequence of list[0]
	list  []uint64
}

// add adds the mark of an entry. If it isn't the next entry, the earlier marks are dropped.
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

// drop removes the last n marks.
func (m *marks) drop(n int) { m.list = m.list[:max(0, len(m.list)-n)] }

// at returns the mark of an entry, if it is kept.
func (m *marks) at(seq uint64) (mark uint64, ok bool) {
	if seq < m.first || seq-m.first >= uint64(len(m.list)) {
		return 0, false
	}
	return m.list[seq-m.first], true
}

// learn sets the mark of an entry that was applied without one.
func (m *marks) learn(seq, mark uint64) {
	if known, ok := m.at(seq); ok && known == 0 {
		m.list[seq-m.first] = mark
	}
}

// errOtherHistory means that an edge has applied entries that the log does not have.
var errOtherHistory = errors.New("the purge log differs from the purges that this edge has applied")

// reference identifies the entry before a purge, or one not long before it. So each entry vouches
// for those before it: a copy of the log that lacks some in the middle, or has others, is noticed.
func (p Position) reference() string {
	return fmt.Sprintf("%s.%s.%s", encodeNumber(p.Log), encodeNumber(p.Seq), encodeNumber(p.Mark))
}

// referenceOf parses the reference at the end of an entry's ID; the zero Position means none.
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
