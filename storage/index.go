package storage

import (
	"fmt"
	"sync"
)

// indexShards is the number of shards, a power of two. With many shards, a sweep holds each lock
// for a short time only.
const indexShards = 64

// maxSegmentID is the highest number of a segment: the index has 24 bits for it.
const maxSegmentID = 1<<24 - 1

// place is where the newest metadata of an object is. version has the low 32 bits of the record's
// version in Badger.
type place struct {
	segment uint32
	version uint32
}

// newer reports whether p is newer than q, for one object. Versions wrap around.
func (p place) newer(q place) bool { return int32(p.version-q.version) > 0 }

// cell is a place and the number of hits since the object was written, in 8 bytes.
type cell struct {
	segmentHits uint32 // the segment's number in the low 24 bits, hits above
	version     uint32
}

func (c cell) place() place { return place{c.segmentHits & maxSegmentID, c.version} }
func (c cell) hits() uint8  { return uint8(c.segmentHits >> 24) }

func newCell(p place) cell {
	if p.segment > maxSegmentID {
		panic(fmt.Sprintf("segment number %d", p.segment)) // begin makes no such segment
	}
	return cell{p.segment, p.version}
}

// index maps the slot of an object to its place, with 16 bytes an object plus the map's overhead.
// If two keys have the same slot, each replaces the other. That makes misses, but never a wrong
// response, because the metadata has the whole key.
type index struct {
	shards [indexShards]shard
}

type shard struct {
	mu sync.RWMutex
	m  map[uint64]cell
}

func newIndex() *index {
	x := &index{}
	for i := range x.shards {
		x.shards[i].m = make(map[uint64]cell)
	}
	return x
}

func (x *index) shard(slot uint64) *shard { return &x.shards[slot%indexShards] }

func (x *index) get(slot uint64) (place, bool) {
	s := x.shard(slot)
	s.mu.RLock()
	defer s.mu.RUnlock()
	c, ok := s.m[slot]
	return c.place(), ok
}

// hit is get. It also counts a hit, and returns the number of hits.
func (x *index) hit(slot uint64) (p place, hits uint8, ok bool) {
	s := x.shard(slot)
	s.mu.RLock()
	c, ok := s.m[slot]
	s.mu.RUnlock()
	if !ok || c.hits() >= maxHits {
		return c.place(), c.hits(), ok
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if now, ok := s.m[slot]; ok && now == c {
		now.segmentHits += 1 << 24
		s.m[slot] = now
	}
	return c.place(), c.hits() + 1, true
}

// hits returns the place of a slot and the number of its hits.
func (x *index) hits(slot uint64) (place, uint8) {
	s := x.shard(slot)
	s.mu.RLock()
	defer s.mu.RUnlock()
	c := s.m[slot]
	return c.place(), c.hits()
}

// put records p unless something newer is there.
func (x *index) put(slot uint64, p place) {
	s := x.shard(slot)
	s.mu.Lock()
	defer s.mu.Unlock()
	if c, ok := s.m[slot]; !ok || p.newer(c.place()) {
		s.m[slot] = newCell(p)
	}
}

// move replaces from by to, if the slot is still at from.
func (x *index) move(slot uint64, from, to place) {
	s := x.shard(slot)
	s.mu.Lock()
	defer s.mu.Unlock()
	if c, ok := s.m[slot]; ok && c.place() == from {
		s.m[slot] = newCell(to)
	}
}

// remove removes a slot if it is still at p.
func (x *index) remove(slot uint64, p place) bool {
	s := x.shard(slot)
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.m[slot]
	if ok = ok && c.place() == p; ok {
		delete(s.m, slot)
	}
	return ok
}

// forget removes all objects of a segment, and returns their number.
func (x *index) forget(segment uint32) int {
	n := 0
	for i := range x.shards {
		s := &x.shards[i]
		s.mu.Lock()
		for slot, c := range s.m {
			if c.place().segment == segment {
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
