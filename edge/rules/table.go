package rules

import (
	"hash/maphash"
	"sync"
	"time"
)

// The size of a Table: 131,072 counts of 16 bytes.
const (
	tableWays  = 8
	tableSets  = 1 << 14
	tableLocks = 64
)

// TableBytes is the memory that a Table takes from its first use on.
const TableBytes = tableSets * tableWays * 16

// Table counts for limits. It has a fixed size. A count is kept in one of the eight places to which
// the hash of its key leads. If all of them are in use, the count that is furthest from its limit
// is lost. So a client that is limited loses its count only after seven other keys, with hashes
// that nobody can foresee, have come as close to their limits. The zero Table is ready to use.
type Table struct {
	once  sync.Once
	seed  maphash.Seed
	base  time.Time
	sets  [][tableWays]count
	locks [tableLocks]struct {
		sync.Mutex
		_ [56]byte // a cache line each
	}
}

// count is the state of the generic cell rate algorithm (GCRA) for one key.
type count struct {
	full int64  // when all that was taken is regained, in ns since Table.base
	tag  uint32 // of the key; 0 means that the place is free
	// room is the tolerance of the limit, in ns. It makes counts of different limits comparable.
	room float32
}

// pace is a limit: one request per interval, and as many at once as tolerance has intervals. The
// zero pace is no limit.
type pace struct{ interval, tolerance time.Duration }

// newPace returns the pace of n requests in a time, and of burst requests at once.
func newPace(n int, in time.Duration, burst int) pace {
	interval := in / time.Duration(n)
	return pace{interval, interval * time.Duration(burst)}
}

// taken is the outcome of a take.
type taken struct {
	ok    bool
	retry time.Duration // when the next request is allowed; 0 if this one is
	full  time.Duration // when all is regained
}

func (t *Table) start() {
	t.once.Do(func() {
		t.seed, t.base, t.sets = maphash.MakeSeed(), time.Now(), make([][tableWays]count, tableSets)
	})
}

// hash returns the hash of a key, which consists of the name of a limit, of what the limit counts,
// and of whose requests these are.
func (t *Table) hash(limit string, what byte, whose string) uint64 {
	t.start()
	var h maphash.Hash
	h.SetSeed(t.seed)
	_, _ = h.WriteString(limit)
	_, _ = h.Write([]byte{0, what})
	_, _ = h.WriteString(whose)
	return h.Sum64()
}

// take counts a request, unless it exceeds the limit.
func (t *Table) take(hash uint64, p pace, now time.Time) taken {
	at := int64(now.Sub(t.base))
	defer t.lock(hash).Unlock()
	c := t.find(hash, p, at)
	full := max(c.full, at) + int64(p.interval)
	if over := full - at - int64(p.tolerance); over > 0 {
		return taken{false, time.Duration(over), time.Duration(c.full - at)}
	}
	c.full, c.room = full, float32(p.tolerance)
	return taken{true, 0, time.Duration(full - at)}
}

// giveBack undoes a take.
func (t *Table) giveBack(hash uint64, p pace, now time.Time) {
	defer t.lock(hash).Unlock()
	c := t.find(hash, p, int64(now.Sub(t.base)))
	c.full -= int64(p.interval)
}

func (t *Table) lock(hash uint64) *sync.Mutex {
	l := &t.locks[hash%tableLocks].Mutex
	l.Lock()
	return l
}

// find returns the count of a key. Without one, it makes one in the place of the least important.
func (t *Table) find(hash uint64, p pace, at int64) *count {
	set := &t.sets[hash%tableSets]
	tag := uint32(hash>>32) | 1
	var least *count
	var debt float32
	for i := range set {
		c := &set[i]
		if c.tag == tag {
			return c
		}
		d := float32(0)
		if c.tag != 0 && c.full > at {
			d = float32(c.full-at) / c.room
		}
		if least == nil || d < debt {
			least, debt = c, d
		}
	}
	*least = count{full: at, tag: tag, room: float32(p.tolerance)}
	return least
}
