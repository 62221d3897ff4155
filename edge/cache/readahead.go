package cache

import (
	"hash/maphash"
	"sync"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
	"github.com/kaiku-cdn/kaiku/edge/ttlset"
)

// How much is asked of an origin for a range of what is not stored.
//
// A client says little of how much it is going to read: a player asks for one byte, or for all up
// to the end, and leaves. So what is asked for is what the client asked for, in whole blocks, and
// what clients have read of the same object before decides how much more. Whoever reads on soon
// gets large slices, and the origin never sends more than ReadAhead times what clients were sent,
// and a block or two for each request. A range that goes to the end counts as openLength bytes.
//
// A client that is answered with 304 has read nothing, though the whole is on its way. It counts as
// one that has read a block.
//
// Only the edge that the client speaks to reads ahead. The owner and the shield ask for what they
// are asked for, so that tiers don't multiply it.
const (
	Block      = 64 << 10  // slices begin and end at multiples of it
	openLength = 256 << 10 // that a range up to the end is taken to be for
	ReadAhead  = 4
)

// maxReads is how many keys a readers remembers, in some 5 MB.
const maxReads = 1 << 16

// readers is what was read of the objects that clients ask ranges of, by the hashes of their keys.
// The zero value is ready.
type readers struct {
	mu   sync.Mutex
	seed maphash.Seed // set with m
	m    map[uint64]reads
}

// reads is what is known of one object.
type reads struct {
	sent    int64 // bytes that clients were sent
	fetched int64 // bytes that were asked for in slices
	// size is the length of a representation whose parts can't be joined, as it has no strong
	// validator. That is known until then.
	size   int64
	until  time.Time
	server int // that the last slice came from, as origin.ServerOf tells it
}

// earned is how many bytes may be asked for beyond what clients want; it is negative if more were
// than were read.
func (r reads) earned() int64 { return ReadAhead*r.sent - r.fetched }

// get returns what is known of a key.
func (t *readers) get(key httpcache.Key) reads {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.m == nil {
		return reads{}
	}
	return t.m[maphash.String(t.seed, string(key))]
}

// change changes what is known of a key. Where too much is known, something else is forgotten.
func (t *readers) change(key httpcache.Key, change func(*reads)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.m == nil {
		t.seed, t.m = maphash.MakeSeed(), map[uint64]reads{}
	}
	hash := maphash.String(t.seed, string(key))
	r, known := t.m[hash]
	change(&r)
	for other := range t.m {
		if known || len(t.m) < maxReads {
			break
		}
		delete(t.m, other)
	}
	t.m[hash] = r
}

// add counts bytes that were sent and fetched.
func (t *readers) add(key httpcache.Key, sent, fetched int64) {
	t.change(key, func(r *reads) {
		r.sent += sent
		r.fetched += fetched
	})
}

// setServer records which server sent a slice.
func (t *readers) setServer(key httpcache.Key, server int) {
	if t.get(key).server != server {
		t.change(key, func(r *reads) { r.server = server })
	}
}

// cantJoin remembers for a while that the parts of a representation of size bytes can't be joined.
func (t *readers) cantJoin(key httpcache.Key, size int64, now time.Time) {
	t.change(key, func(r *reads) { r.size, r.until = size, now.Add(ttlset.TTL) })
}

// unjoinable is the size of a representation whose parts can't be joined; 0 if nothing says so.
func (r reads) unjoinable(now time.Time) int64 {
	if now.After(r.until) {
		return 0
	}
	return r.size
}

// reset forgets all.
func (t *readers) reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.m)
}
