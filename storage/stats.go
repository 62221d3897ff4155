package storage

import "sync/atomic"

// counts are the counters of Stats.
type counts struct {
	evicted, evictedFloor, dropped, damaged, refused, refusedLarge, rewrites atomic.Uint64
	stored, rewritten                                                        atomic.Uint64 // bytes
}

// Stats is what a Store has, and what it did since it was opened.
type Stats struct {
	Objects   int    `json:"objects"`
	Bytes     int64  `json:"bytes"` // allocated by segments
	Disk      int64  `json:"disk"`  // budget in bytes
	Segments  int    `json:"segments"`
	Memory    uint64 `json:"memory"`    // bytes in the RAM tier
	Purges    int    `json:"purges"`    // purge records
	Stored    uint64 `json:"stored"`    // bytes of bodies
	Rewrites  uint64 `json:"rewrites"`  // objects written again because they were hit
	Rewritten uint64 `json:"rewritten"` // bytes of those
	Evicted   uint64 `json:"evicted"`   // objects dropped with their segment because of the budget
	// EvictedFloor counts objects dropped with their segment because the disk was at its floor.
	EvictedFloor uint64 `json:"evicted_floor"`
	Dropped      uint64 `json:"dropped"` // segments
	Damaged      uint64 `json:"damaged"` // objects whose checksum failed or whose chunk was missing
	Refused      uint64 `json:"refused"` // writes refused because the disk was at its floor
	// RefusedLarge counts bodies that were not stored because they were larger than MaxObject.
	RefusedLarge uint64 `json:"refused_large"`
}

// Stats returns the present statistics.
func (s *Store) Stats() Stats {
	st := Stats{
		Objects: s.index.len(), Disk: s.opt.Disk,
		EvictedFloor: s.counts.evictedFloor.Load(), RefusedLarge: s.counts.refusedLarge.Load(),
		Evicted: s.counts.evicted.Load(), Dropped: s.counts.dropped.Load(),
		Damaged: s.counts.damaged.Load(), Refused: s.counts.refused.Load(),
		Stored: s.counts.stored.Load(), Rewrites: s.counts.rewrites.Load(), Rewritten: s.counts.rewritten.Load(),
		Purges: s.purges.len(),
	}
	st.Memory = s.MemoryUsed()
	s.mu.RLock()
	defer s.mu.RUnlock()
	st.Segments = len(s.segments)
	for _, g := range s.segments {
		st.Bytes += g.size.Load()
	}
	return st
}

// MemoryUsed returns the bytes of the objects in the RAM tier.
func (s *Store) MemoryUsed() uint64 {
	if s.ram == nil {
		return 0
	}
	return s.ram.WeightedSize()
}
