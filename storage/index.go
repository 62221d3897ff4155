package storage

import "sync"

// indexShards is a power of two, so that a drop's sweep holds each lock for a short time only.
const indexShards = 64

// place is where the newest metadata of an object is. version holds the low 32 bits of its Badger version.
type place struct {
	segment uint32
	version uint32
}

// newer orders versions of one object; they wrap around.
func (p place) newer(q place) bool { return int32(p.version-q.version) > 0 }

// index maps the slot of an object to its place: 16 bytes an object before the map's own overhead. Two keys of one slot push each other
// out, which makes a miss, never a wrong answer: the metadata holds the whole key.
type index struct {
	shards [indexShards]struct {
		mu sync.RWMutex
		m  map[uint64]place
	}
}

func newIndex() *index {
	x := &index{}
	for i := range x.shards {
		x.shards[i].m = make(map[uint64]place)
	}
	return x
}

func (x *index) get(slot uint64) (place, bool) {
	s := &x.shards[slot%indexShards]
	s.mu.RLock()
	defer s.mu.RUnlock()
	p, ok := s.m[slot]
	return p, ok
}

// put records p unless something newer is there.
func (x *index) put(slot uint64, p place) {
	s := &x.shards[slot%indexShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	if q, ok := s.m[slot]; !ok || p.newer(q) {
		s.m[slot] = p
	}
}

// remove forgets a slot if it is still at p.
func (x *index) remove(slot uint64, p place) {
	s := &x.shards[slot%indexShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m[slot] == p {
		delete(s.m, slot)
	}
}

// forget removes everything in a segment and tells how many objects that was.
func (x *index) forget(segment uint32) int {
	n := 0
	for i := range x.shards {
		s := &x.shards[i]
		s.mu.Lock()
		for slot, p := range s.m {
			if p.segment == segment {
				delete(s.m, slot)
				n++
			}
		}
		s.mu.Unlock()
	}
	return n
}

func (x *index) len() int {
	n := 0
	for i := range x.shards {
		s := &x.shards[i]
		s.mu.RLock()
		n += len(s.m)
		s.mu.RUnlock()
	}
	return n
}
