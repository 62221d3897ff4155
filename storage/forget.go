package storage

import (
	"errors"
	"fmt"
	"slices"
)

// This file decides how long purge records are kept. A record stays while anything that it may
// cover is older: an object of a segment, or a fetch whose response may still be stored. When the
// store forgets a record, the record's sequence becomes the floor, and objects older than the floor
// count as gone. So a record that is forgotten too early makes misses, and never brings back a
// purged object.

// ErrOvertaken means that an object is older than purges that are forgotten. It can't be stored,
// because those purges may cover it.
var ErrOvertaken = errors.New("purges that came since it was asked for are forgotten")

// Hold is a fetch whose response may be stored. The store remembers all purges after the fetch's
// epoch until Release.
type Hold struct {
	store *Store
	epoch uint64
}

// Hold holds the purges after an epoch for a fetch. It returns nil if such purges are forgotten
// already; then the caller has to look up again with a new epoch.
func (s *Store) Hold(epoch uint64) *Hold {
	s.holdMu.Lock()
	defer s.holdMu.Unlock()
	if epoch < s.purges.forgotten() {
		return nil
	}
	s.holds[epoch]++
	return &Hold{s, epoch}
}

// Release ends a hold. It must be called once. For nil it does nothing.
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

// forgetPurges forgets the records that are older than all objects and fetches.
func (s *Store) forgetPurges() {
	p := s.purges
	p.writing.Lock()
	defer p.writing.Unlock()
	// Holds before segments, with holdMu locked: a writer that has ended has set the epoch of its
	// segment.
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

// forgotten returns the newest sequence of a forgotten record.
func (p *purges) forgotten() uint64 {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.floor
}

// raise returns the records with sequences up to seq, which are to be forgotten, and makes the
// newest of their sequences the floor.
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

// drop removes a record from memory. The caller holds mu.
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
