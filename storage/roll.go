package storage

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"
)

// This file is the life of segments: begun, written, sealed, dropped.

func (s *Store) segment(id uint32) *segment {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.segments[id]
}

func (s *Store) opened() *segment {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.open
}

// put writes a value to the open segment and returns its number. It begins a new segment when this one has its size.
func (s *Store) put(key, v []byte, version uint64) (uint32, error) {
	if s.full.Load() {
		s.counts.refused.Add(1)
		return 0, ErrFull
	}
	for {
		g := s.opened()
		if g.written.Load() >= s.segmentSize() {
			if err := s.roll(g); err != nil {
				return 0, err
			}
			continue
		}
		err := g.put(key, v, version)
		if err != nil && s.segment(g.id) != s.opened() {
			continue // sealed or dropped meanwhile
		}
		return g.id, err
	}
}

// roll begins a new segment in place of g, unless another writer did so already, and seals g in the background.
func (s *Store) roll(g *segment) error {
	s.rolling.Lock()
	defer s.rolling.Unlock()
	if s.opened() != g {
		return nil
	}
	g.size.Store(g.written.Load())
	s.enforce(s.segmentSize())
	if err := s.begin(); err != nil {
		return err
	}
	s.work.Go(func() {
		if err := g.seal(s.opt.Log); err != nil && !errors.Is(err, errGone) {
			s.opt.Log.Warn("segment can't be sealed and is dropped", "segment", g.id, "error", err)
			s.drop(g)
		}
	})
	return nil
}

// begin opens a new segment for writing.
func (s *Store) begin() error {
	var id uint32
	s.mu.RLock()
	for have := range s.segments {
		id = max(id, have)
	}
	s.mu.RUnlock()
	id++
	g, err := openSegment(id, s.segmentDir(id), s.opt.Log)
	if err != nil {
		return fmt.Errorf("begin a segment: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.segments[id], s.open = g, g
	return nil
}

// enforce drops the oldest segments until need more bytes fit the budget.
func (s *Store) enforce(need int64) {
	for {
		s.mu.RLock()
		var oldest *segment
		used := need
		for _, g := range s.segments {
			used += g.size.Load()
			if g != s.open && (oldest == nil || g.id < oldest.id) {
				oldest = g
			}
		}
		s.mu.RUnlock()
		if used <= s.opt.Disk || oldest == nil {
			return
		}
		s.drop(oldest)
	}
}

// drop forgets a segment and all that is in it.
func (s *Store) drop(g *segment) {
	s.mu.Lock()
	delete(s.segments, g.id)
	s.mu.Unlock()
	s.counts.evicted.Add(uint64(s.index.forget(g.id)))
	s.counts.dropped.Add(1)
	if err := g.drop(); err != nil {
		s.opt.Log.Warn("segment can't be removed", "segment", g.id, "error", err)
	}
}

// syncLoop bounds what a power loss can take to a second, and watches the disk.
func (s *Store) syncLoop(ctx context.Context) {
	tick := time.NewTicker(syncInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		g := s.opened()
		if err := errors.Join(g.sync(), g.measure()); err != nil {
			s.opt.Log.Warn("open segment can't be synced", "segment", g.id, "error", err)
		}
		s.checkFloor()
	}
}

// checkFloor refuses writes while the file system has less free space than the floor.
func (s *Store) checkFloor() {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(s.opt.Dir, &fs); err != nil {
		return
	}
	floor := s.opt.Floor
	if floor == 0 {
		floor = min(int64(fs.Blocks)*int64(fs.Bsize)/20, defaultFreeDisk)
	}
	free := int64(fs.Bavail) * int64(fs.Bsize)
	full := free < floor
	if s.full.Swap(full) == full {
		return
	}
	if full {
		s.opt.Log.Warn("disk is at its free-space floor: nothing is stored until there is room", "free", free, "floor", floor)
	} else {
		s.opt.Log.Info("disk has room again: storing", "free", free, "floor", floor)
	}
}
