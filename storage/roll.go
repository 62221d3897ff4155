package storage

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"syscall"
	"time"
)

// This file begins, writes, seals and drops segments. The keeper, a goroutine, drops them, and
// writes the objects that stay to another segment.

func (s *Store) segment(id uint32) *segment {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.segments[id]
}

func (s *Store) opened(c class) *segment {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.open[c]
}

// put writes records to the open segment of a class, and returns their place. It first lowers the
// epoch of the segment to the given one. records makes the records for a segment; put calls it
// again if that segment was sealed meanwhile. When the segment has its size, put begins a new one.
// If the budget is exceeded, callers other than the keeper wait for the keeper. The version of the
// keeper's records is the given one; for others it may be higher.
func (s *Store) put(c class, version, epoch uint64, keeper bool, records func(*segment) []record) (place, error) {
	if s.checkFloor() {
		s.counts.refused.Add(1)
		return place{}, ErrFull
	}
	for {
		g := s.opened(c)
		if g.written.Load() >= s.segmentSize() {
			if err := s.roll(g, keeper); err != nil {
				return place{}, err
			}
			continue
		}
		at, err := uint64(0), g.lower(epoch)
		if err == nil {
			at, err = g.put(version, keeper, records(g)...)
		}
		if err != nil && s.opened(c) != g {
			continue // sealed meanwhile
		}
		return place{segment: g.id, version: uint32(at)}, err
	}
}

// putOne is put for a record that is the same in each segment.
func (s *Store) putOne(c class, version, epoch uint64, keeper bool, r record) (place, error) {
	return s.put(c, version, epoch, keeper, func(*segment) []record { return []record{r} })
}

// roll begins a new segment in place of g, unless another writer has done so. The keeper seals g.
func (s *Store) roll(g *segment, keeper bool) error {
	if !keeper {
		if err := s.awaitKeeper(); err != nil {
			return err
		}
	}
	s.rolling.Lock()
	defer s.rolling.Unlock()
	if s.opened(g.class) != g {
		return nil
	}
	g.size.Store(max(g.size.Load(), g.written.Load()))
	if err := s.begin(g.class); err != nil {
		return err
	}
	s.wake()
	return nil
}

// awaitKeeper waits while a new segment would exceed the budget by more than half a segment, and
// the keeper can drop segments. The other half is for records that are written meanwhile to a
// segment that already has its size.
func (s *Store) awaitKeeper() error {
	for {
		s.mu.RLock()
		round := s.round
		s.mu.RUnlock()
		if s.used() <= s.opt.Disk-s.segmentSize()/2 || s.oldest(probation) == nil {
			return nil
		}
		s.wake()
		select {
		case <-round:
		case <-s.base.Done():
			return errGone
		}
	}
}

// wake wakes the keeper.
func (s *Store) wake() {
	select {
	case s.look <- struct{}{}:
	default: // it was woken already
	}
}

// begin opens a new segment for writing.
func (s *Store) begin(c class) error {
	s.mu.Lock()
	s.lastID++
	id := s.lastID
	s.mu.Unlock()
	if id > maxSegmentID {
		return errors.New("all segment numbers are used up: begin with an empty data folder")
	}
	g, err := openSegment(id, c, s.segmentDir(id, c), s.segmentSize(), s.opt.Log)
	if err != nil {
		return fmt.Errorf("begin a segment: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.segments[id], s.open[c] = g, g
	return nil
}

// used returns how many bytes of the budget the segments use. An open segment counts as full.
func (s *Store) used() int64 {
	n := int64(0)
	for _, v := range s.usedBy() {
		n += v
	}
	return n + s.purges.size.Load()
}

func (s *Store) usedBy() (used [classes]int64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, g := range s.segments {
		n := g.size.Load()
		if g == s.open[g.class] {
			n = max(n, g.written.Load(), s.segmentSize())
		}
		used[g.class] += n
	}
	return used
}

// keep is the keeper. It seals segments that are not written any more, and drops the oldest
// segments over budget.
func (s *Store) keep(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.look:
		}
		s.sealAll()
		// The keeper frees a whole segment in advance, so that it has time to rewrite the objects
		// that stay.
		for s.used() > s.opt.Disk-s.segmentSize() && ctx.Err() == nil {
			g := s.oldest(overfull(s.usedBy(), s.opt.Disk))
			if g == nil {
				break
			}
			s.drop(ctx, g, true)
		}
		s.forgetPurges()
		s.mu.Lock()
		close(s.round)
		s.round = make(chan struct{})
		s.mu.Unlock()
	}
}

// sealAll seals the segments that are not open and not sealed yet.
func (s *Store) sealAll() {
	s.mu.RLock()
	var todo []*segment
	for _, g := range s.segments {
		if g != s.open[g.class] && !g.isSealed() {
			todo = append(todo, g)
		}
	}
	s.mu.RUnlock()
	for _, g := range todo {
		if s.checkFloor() {
			s.remove(g, false) // closing it would need free space
			continue
		}
		if err := g.seal(); err != nil {
			s.opt.Log.Warn("segment can't be sealed and is dropped", "segment", g.id, "error", err)
			s.remove(g, true)
		}
	}
}

// oldest returns the oldest sealed segment of a class, or else of the other class, or nil.
func (s *Store) oldest(c class) *segment {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, c := range []class{c, 1 - c} {
		var first *segment
		for _, g := range s.segments {
			if g.class == c && g != s.open[c] && (first == nil || g.id < first.id) {
				first = g
			}
		}
		if first != nil {
			return first
		}
	}
	return nil
}

// drop removes a segment. With rewrite, it first writes the objects that the policy keeps to main.
// Without, the segment is dropped because of the free-space floor.
func (s *Store) drop(ctx context.Context, g *segment, rewrite bool) {
	s.dropping.Lock()
	defer s.dropping.Unlock()
	if s.segment(g.id) != g {
		return
	}
	evicted := &s.counts.evicted
	if !rewrite {
		evicted = &s.counts.evictedFloor
	}
	for _, o := range g.objects() {
		p, hits := s.index.hits(o.id.slot())
		m, version := s.current(o.id, p)
		if m == nil || len(m.extents) > 0 && m.extents[0].segment != g.id {
			continue // the body is in other segments too; Get finds out if a chunk is missing
		}
		now := s.purges.current() // before covers, so that a later purge covers the copy
		gone, stale, _ := s.purges.covers(m.epoch, m.url, m.tags)
		if gone {
			continue
		}
		if rewrite && g.class.keeps(hits) && ctx.Err() == nil &&
			s.counts.rewritten.Load()*100 < s.counts.stored.Load()*maxRewrite {
			if err := s.rewrite(o.id, m, version, p, stale, now); err == nil {
				continue
			} else if !errors.Is(err, errGone) && !errors.Is(err, ErrFull) {
				s.opt.Log.Warn("object can't be written again", "key", m.key, "error", err)
			}
		}
		if s.index.remove(o.id.slot(), p) {
			evicted.Add(1)
			s.ghostMu.Lock()
			s.ghosts.add(o.id.slot(), m.size)
			s.ghostMu.Unlock()
		}
	}
	s.remove(g, rewrite)
}

// heldSegments is how many dropped segments are kept for their Readers. The number is small,
// because clients may read slowly.
const heldSegments = 2

// remove removes a segment and its objects. With keep, Readers of the segment can go on.
func (s *Store) remove(g *segment, keep bool) {
	s.counts.evicted.Add(uint64(s.index.forget(g.id)))
	s.counts.dropped.Add(1)
	s.mu.Lock()
	s.held = append(s.held, g)
	s.mu.Unlock()
	g.drop(keep, func(err error) {
		if err != nil {
			s.opt.Log.Warn("segment can't be removed", "segment", g.id, "error", err)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.held = slices.DeleteFunc(s.held, func(h *segment) bool { return h == g })
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.segments, g.id) // after its space is free, because used counts it
	limit := heldSegments
	if !keep {
		limit = 0
	}
	for _, h := range s.held[:max(0, len(s.held)-limit)] {
		h.revoked.Store(true)
	}
}

// segmentFrom returns the segment with the lowest number that is at least id, or nil.
func (s *Store) segmentFrom(id uint32) (first *segment) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, g := range s.segments {
		if g.id >= id && (first == nil || g.id < first.id) {
			first = g
		}
	}
	return first
}

// current returns the metadata that the index has for an object, and its version.
func (s *Store) current(id objectID, p place) (m *meta, version uint64) {
	g := s.segment(p.segment)
	if g == nil {
		return nil, 0
	}
	err := g.getVersion(metaKey(id), func(data []byte, v uint64) (err error) {
		version = v
		m, err = parseMeta(data)
		return err
	})
	if err != nil || uint32(version) != p.version {
		return nil, 0
	}
	return m, version
}

// rewrite copies an object to main. The metadata keeps its version, so that an object which is
// stored meanwhile for the same key stays newer. The epoch becomes now, because no purge up to now
// covers the object.
func (s *Store) rewrite(id objectID, m *meta, version uint64, from place, stale bool, now uint64) error {
	if !stale {
		m.epoch = now
	}
	buf := buffers.Get().(*buffer)
	defer buffers.Put(buf)
	var extents []extent
	for chunk := uint32(0); m.body == nil && int64(chunk)*chunkSize < m.size; chunk++ {
		n, err := s.readChunk(m, chunk, 0, buf[valueHeader:])
		if err != nil {
			return err
		}
		p, err := s.putOne(main, 1, math.MaxUint64, true, record{chunkKey(id, m.fill, chunk), buf[:valueHeader+n]})
		if err != nil {
			return err
		}
		extents = grow(extents, p.segment, chunk)
	}
	m.extents = extents
	to, err := s.putOne(main, version, m.epoch, true, m.record(id))
	if err != nil {
		return err
	}
	s.counts.rewritten.Add(uint64(m.size))
	s.counts.rewrites.Add(1)
	s.index.move(id.slot(), from, to) // unless something newer came meanwhile
	return nil
}

// grow adds a chunk to the extents before it.
func grow(e []extent, segment, chunk uint32) []extent {
	if len(e) == 0 || e[len(e)-1].segment != segment {
		e = append(e, extent{segment: segment, first: chunk})
	}
	return e
}

// syncLoop syncs every second, so that a power loss loses no older data, and watches free space.
func (s *Store) syncLoop(ctx context.Context) {
	tick := time.NewTicker(syncInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := s.purges.sync(); err != nil { // before objects that were fetched later
			s.opt.Log.Warn("purge log can't be synced", "error", err)
		}
		for c := range classes {
			g := s.opened(c)
			if err := g.settle(); err != nil {
				s.opt.Log.Warn("open segment can't be synced", "segment", g.id, "error", err)
			}
		}
		s.purges.measure()
		if g := s.oldest(probation); s.checkFloor() && g != nil {
			s.drop(ctx, g, false) // one segment a second
		}
	}
}

// checkFloor reports whether the file system has less free space than the floor. It is called
// before each write, because Badger writes to mapped files, and a full disk would end the process.
func (s *Store) checkFloor() bool {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(s.opt.Dir, &fs); err != nil {
		return s.full.Load()
	}
	floor := s.opt.Floor
	if floor == 0 {
		floor = min(int64(fs.Blocks)*int64(fs.Bsize)/20, defaultFreeDisk)
	}
	free := int64(fs.Bavail) * int64(fs.Bsize)
	full := free < floor
	if s.full.Swap(full) != full {
		s.logFloor(full, free, floor)
	}
	return full
}

// logFloor logs a change, once a minute at most.
func (s *Store) logFloor(full bool, free, floor int64) {
	now := time.Now().Unix()
	if last := s.told.Load(); now-last < 60 || !s.told.CompareAndSwap(last, now) {
		return
	}
	if full {
		s.opt.Log.Warn("disk is at its free-space floor: nothing is stored until there is room", "free", free, "floor",
			floor)
	} else {
		s.opt.Log.Info("disk has room again: storing", "free", free, "floor", floor)
	}
}
