package cache

import (
	"hash/maphash"
	"sync"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
	"github.com/kaiku-cdn/kaiku/edge/ttlset"
)

// How many bytes the edge requests from the origin for a range that is not stored:
//
// A range shows little of how much the client is going to read. A player requests one byte, or all
// bytes up to the end, and then disconnects. So the edge requests the range in whole blocks. How
// much more it requests depends on how much clients have read of the same object before. A client
// that reads on soon gets large slices. The origin never sends more than ReadAhead times what
// clients were sent, plus a block or two for each request. A range up to the end counts as
// openLength bytes.
//
// A client that gets a 304 has read nothing, while the whole response is being fetched. It counts
// as if it had read a block.
//
// Only the edge that serves the client reads ahead. The owner and the shield request just the bytes
// that they are asked for, so that tiers don't multiply the read-ahead.
const (
	Block      = 64 << 10  // slices begin and end at multiples of it
	openLength = 256 << 10 // assumed length of a range up to the end
	ReadAhead  = 4
)

// maxReads bounds the keys in a readers, which then takes about 5 MB.
const maxReads = 1 << 16

// readers counts what clients read of objects by ranges, by the hash of the key. The zero value is
// ready to use.
type readers struct {
	mu   sync.Mutex
	seed maphash.Seed // set with m
	m    map[uint64]reads
}

// reads is what clients read of one object.
type reads struct {
	sent    int64 // bytes that clients were sent
	fetched int64 // bytes that were requested in slices
	// size is the length of a representation whose parts can't be joined, because it has no strong
	// validator. It counts until the time until.
	size   int64
	until  time.Time
	server int // that sent the last slice, as returned by origin.ServerOf
}

// earned returns how many bytes may be requested beyond those that clients want. It is negative if
// more was requested than ReadAhead allows.
func (r reads) earned() int64 { return ReadAhead*r.sent - r.fetched }

// get returns the counters of a key.
func (t *readers) get(key httpcache.Key) reads {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.m == nil {
		return reads{}
	}
	return t.m[maphash.String(t.seed, string(key))]
}

// change changes the counters of a key. If there are too many keys, it drops another one.
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

// cantJoin records for a while that the parts of a representation of size bytes can't be joined.
func (t *readers) cantJoin(key httpcache.Key, size int64, now time.Time) {
	t.change(key, func(r *reads) { r.size, r.until = size, now.Add(ttlset.TTL) })
}

// unjoinable returns the size of a representation whose parts can't be joined, or 0 if they can as
// far as is known.
func (r reads) unjoinable(now time.Time) int64 {
	if now.After(r.until) {
		return 0
	}
	return r.size
}

// reset removes all counters.
func (t *readers) reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.m)
}
