package storage

import (
	"errors"
	"fmt"
	"slices"
)

// This file is the life of purge records. A record is kept while anything is older that it may be
// of: an object of a segment, or a fetch whose answer may still be stored. When it goes, its
// sequence becomes the floor, and what is older than the floor counts as gone. So a record that is
// forgotten too early makes misses, and never brings back what it was of.

// ErrOvertaken says that what was to be stored is older than purges that are forgotten, so that
// nobody knows any more whether they were of it.
var ErrOvertaken = errors.New("purges that came since it was asked for are forgotten")

// Hold is a fetch whose answer may be stored: purges after its epoch are remembered until it is
// released.
type Hold struct {
	store *Store
	epoch uint64
}

// Hold notes that what is fetched may be stored with an epoch. It returns nil if purges since are
// forgotten already: the look that the epoch was taken for has to be repeated.
func (s *Store) Hold(epoch uint64) *Hold {
	s.holdMu.Lock()
	defer s.holdMu.Unlock()
	if epoch < s.purges.forgotten() {
		return nil
	}
	s.holds[epoch]++
	return &Hold{s, epoch}
}

// Release ends a hold, once. It does nothing to nil.
func (h *Hold) Release() {
	if h == nil {
		return
	}
	s := h.store
	s.holdMu.Lock()
	defer s.holdMu.Unlock()
	if s.holds[h.epoch]--; s.holds[h.epoch] == 0 {
		delete(s.holds, h.epoch)
	}
}

// forgetPurges lets go of the records that nothing older is left for.
func (s *Store) forgetPurges() {
	p := s.purges
	p.writing.Lock()
	defer p.writing.Unlock()
	// Holds before segments, and none is given meanwhile: a writer that ends has told its segment.
	s.holdMu.Lock()
	oldest := p.current()
	for epoch := range s.holds {
		oldest = min(oldest, epoch)
	}
	s.mu.RLock()
	for _, g := range s.segments {
		oldest = min(oldest, g.epoch.Load())
	}
	s.mu.RUnlock()
	old, floor := p.raise(oldest)
	s.holdMu.Unlock()
	if len(old) == 0 {
		return
	}
	if err := p.forget(old, floor); err != nil {
		s.opt.Log.Warn("purge records can't be forgotten", "error", err)
	}
}

// forgotten is the newest sequence of a record that was forgotten.
func (p *purges) forgotten() uint64 {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.floor
}

// raise finds the records that are no newer than seq, which are to be forgotten, and makes the
// newest of them the floor.
func (p *purges) raise(seq uint64) (old []purgeKey, floor uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	find := func(kind byte, m map[string]epochs) {
		for v, e := range m {
			if newest := max(e.hard, e.soft); newest <= seq {
				old, p.floor = append(old, purgeKey{kind, v}), max(p.floor, newest)
			}
		}
	}
	find(purgeURL, p.urls)
	find(purgeTag, p.tags)
	find(purgePrefix, p.prefixes)
	if p.all != (epochs{}) {
		find(purgeAll, map[string]epochs{"": p.all})
	}
	return old, p.floor
}

// forget deletes records, once the floor is written. The caller holds writing.
func (p *purges) forget(old []purgeKey, floor uint64) error {
	p.mu.Lock()
	p.seq++ // each version of a key has one value
	seq := p.seq
	p.mu.Unlock()
	if err := p.write(seq, map[purgeKey]epochs{{purgeFloor, ""}: {hard: floor},
		{purgeSeq, ""}: {hard: seq}}); err != nil {
		return err
	}
	batch := p.db.NewWriteBatchAt(2*seq + 1)
	defer batch.Cancel()
	for _, k := range old {
		if err := batch.Delete(append([]byte{k.kind}, k.value...)); err != nil {
			return fmt.Errorf("delete a purge record: %w", err)
		}
	}
	if err := batch.Flush(); err != nil {
		return fmt.Errorf("delete purge records: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, k := range old {
		p.drop(k)
	}
	p.lengths = p.lengths[:0]
	clear(p.hashes)
	for v := range p.prefixes {
		p.hashes[hashOn(hashBegin, v)] = struct{}{}
		if i, ok := slices.BinarySearch(p.lengths, len(v)); !ok {
			p.lengths = slices.Insert(p.lengths, i, len(v))
		}
	}
	return nil
}

// drop forgets a record in memory; the caller holds mu.
func (p *purges) drop(k purgeKey) {
	switch k.kind {
	case purgeURL:
		if _, ok := p.urls[k.value]; ok {
			p.urlBytes -= recordSize(k.value)
		}
		delete(p.urls, k.value)
	case purgeTag:
		delete(p.tags, k.value)
	case purgePrefix:
		delete(p.prefixes, k.value)
	case purgeAll:
		p.all = epochs{}
	}
}
