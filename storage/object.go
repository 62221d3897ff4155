package storage

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// Object is a whole object of the store, as it was when it was looked up.
type Object struct {
	// Stale says that a soft purge covers the object.
	Stale bool
	// Suspect means that the store may have missed a purge of the object. Such an object must not
	// be used before the origin has validated it.
	Suspect bool

	store *Store
	meta  *meta
	place place
	slot  uint64          // of an object of the RAM tier
	body  []byte          // the whole body of an object of the RAM tier, else nil
	memo  *atomic.Value   // of an object of the RAM tier, with body or without, else nil
	spots []atomic.Uint64 // of an object of the RAM tier without its body: where its chunks were found
}

// Key is what the object was stored under.
func (o *Object) Key() string { return o.meta.key }

// URL is what purges know the object by.
func (o *Object) URL() string { return o.meta.url }

// Size is the length of the body in bytes.
func (o *Object) Size() int64 { return o.meta.size }

// Stored is when the object was committed or its metadata updated.
func (o *Object) Stored() time.Time { return o.meta.stored }

// Tags are the tags that purges know the object by. They are not to be changed.
func (o *Object) Tags() []string { return o.meta.tags }

// Data is what the object's writer handed to Commit. It is not to be changed.
func (o *Object) Data() []byte { return o.meta.data }

// Epoch is the newest purge when it was fetched.
func (o *Object) Epoch() uint64 { return o.meta.epoch }

// Segment is the number of the segment that holds the metadata.
func (o *Object) Segment() uint32 { return o.place.segment }

// Newer reports whether o was stored, or its metadata updated, after p, which has the same key.
func (o *Object) Newer(p *Object) bool { return o.place.newer(p.place) }

// Memo returns what make makes of the object. For one of the RAM tier that is made once, and shared
// by all that ask: it is not to be changed, and always of one type.
func (o *Object) Memo(make func() any) any {
	if o.memo == nil {
		return make()
	}
	if v := o.memo.Load(); v != nil {
		return v
	}
	v := make()
	o.memo.Store(v)
	return v
}

// InMemory says that the body came from the RAM tier.
func (o *Object) InMemory() bool { return o.body != nil }

// Body is the whole body of an object that the RAM tier has with its body, else nil. It is not to
// be changed.
func (o *Object) Body() []byte { return o.body }

// Hit counts a hit, for an object that Hot returned.
func (o *Object) Hit() { o.store.index.hit(o.slot) }

// readChunk copies from a chunk into p and forgets the object if the chunk is not there or damaged.
func (o *Object) readChunk(chunk uint32, from int, p []byte) (int, error) {
	n, err := o.store.readChunk(o.meta, chunk, from, p)
	if err != nil {
		o.store.discard(o, err)
		return 0, err
	}
	return n, nil
}

func (s *Store) readChunk(m *meta, chunk uint32, from int, p []byte) (n int, err error) {
	id, ok := m.segmentOf(chunk)
	if !ok {
		return 0, errDamaged
	}
	g := s.segment(id)
	if g == nil {
		return 0, errGone
	}
	want := int(min(chunkSize, m.size-int64(chunk)*chunkSize))
	key := chunkKey(idOf(m.key), m.fill, chunk)
	err = g.value(key, func(v []byte, _ uint64) (err error) {
		n, err = copyValue(key, v, want, from, p)
		return err
	})
	return n, err
}

// buffer holds one value: its header and a chunk.
type buffer [valueHeader + chunkSize]byte

var buffers = sync.Pool{New: func() any { return new(buffer) }}

// ErrTooLarge says that a body outgrew what the store takes: a quarter of the budget.
var ErrTooLarge = errors.New("object is larger than a quarter of the disk budget")

// ErrFull says that the disk is at its free-space floor.
var ErrFull = errors.New("disk is at its free-space floor")
