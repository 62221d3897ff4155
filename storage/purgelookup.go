package storage

import "slices"

// This file has the records in memory, and finds those that cover an object.

// epochs are the sequences of the newest hard and the newest soft purge with the same purgeKey.
type epochs struct{ hard, soft uint64 }

// raise sets each sequence to the newer of e and f.
func (e *epochs) raise(f epochs) {
	e.hard = max(e.hard, f.hard)
	e.soft = max(e.soft, f.soft)
}

// set stores a record in memory. The caller holds mu, or nobody else uses p yet.
func (p *purges) set(kind byte, value string, e epochs) {
	switch kind {
	case purgeURL:
		if _, ok := p.urls[value]; !ok {
			p.urlBytes += recordSize(value)
		}
		p.urls[value] = e
	case purgeTag:
		p.tags[value] = e
	case purgePrefix:
		p.prefixes[value] = e
		p.hashes[hashOn(hashBegin, value)] = struct{}{}
		if i, ok := slices.BinarySearch(p.lengths, len(value)); !ok {
			p.lengths = slices.Insert(p.lengths, i, len(value))
		}
	case purgeAll:
		p.all = e
	case purgeSuspect:
		p.suspect = e.soft
	}
}

func (p *purges) get(kind byte, value string) epochs {
	switch kind {
	case purgeURL:
		return p.urls[value]
	case purgeTag:
		return p.tags[value]
	case purgePrefix:
		return p.prefixes[value]
	case purgeSuspect:
		return epochs{soft: p.suspect}
	}
	return p.all
}

// current returns the newest sequence: the epoch of a fetch that begins now.
func (p *purges) current() uint64 {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.seq
}

// covers reports whether purges after an epoch cover an object: gone after a hard purge, stale
// after a soft one, and suspect. If such purges are forgotten, the object counts as gone, because
// they may have covered it.
func (p *purges) covers(epoch uint64, url string, tags []string) (gone, stale, suspect bool) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if epoch >= p.seq {
		return false, false, false
	}
	if epoch < p.floor {
		return true, true, false
	}
	e := p.all
	e.raise(p.urls[url])
	for _, t := range tags {
		e.raise(p.tags[t])
	}
	h, at := hashBegin, 0
	for _, n := range p.lengths {
		if n > len(url) {
			break
		}
		h, at = hashOn(h, url[at:n]), n
		if _, ok := p.hashes[h]; ok {
			e.raise(p.prefixes[url[:n]])
		}
	}
	return e.hard > epoch, max(e.soft, p.suspect) > epoch, p.suspect > epoch
}

// hashOn continues an FNV-1a hash with s. So one pass over a URL gives the hashes of all its
// prefixes.
func hashOn(h uint64, s string) uint64 {
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return h
}

const hashBegin = uint64(14695981039346656037)

// recordSize returns the approximate size in memory of a record of a URL, with its entries in the
// map and in Badger.
func recordSize(url string) int { return len(url) + 200 }

// crowded reports whether records of these URLs would exceed limit bytes of memory.
func (p *purges) crowded(urls []string, limit int) bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	more := 0
	for _, u := range urls {
		if _, ok := p.urls[u]; !ok {
			more += recordSize(u)
		}
	}
	return more > 0 && p.urlBytes+more > limit
}

// len returns the number of records.
func (p *purges) len() int {
	p.mu.RLock()
	defer p.mu.RUnlock()
	n := len(p.urls) + len(p.tags) + len(p.prefixes)
	if p.all != (epochs{}) {
		n++
	}
	return n
}
