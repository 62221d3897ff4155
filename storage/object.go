package storage

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// Object is a stored object, as it was when it was looked up.
type Object struct {
	// Stale means that a soft purge covers the object.
	Stale bool
	// Suspect means that the store may have missed a purge of the object. Such an object must not
	// be used before the origin has validated it.
	Suspect bool

	store *Store
	meta  *meta
	place place
	// The following fields are set for objects of the RAM tier only.
	slot  uint64
	body  []byte // nil if the RAM tier has the metadata only
	memo  *atomic.Value
	spots []atomic.Uint64 // without body: where the chunks were found
}

// Key returns the key of the object.
func (o *Object) Key() string { return o.meta.key }

// URL returns the URL by which purges find the object.
func (o *Object) URL() string { return o.meta.url }

// Size returns the length of the body in bytes.
func (o *Object) Size() int64 { return o.meta.size }

// Stored returns when the object was committed, or its metadata updated.
func (o *Object) Stored() time.Time { return o.meta.stored }

// Tags returns the tags by which purges find the object. The caller must not change them.
func (o *Object) Tags() []string { return o.meta.tags }

// Data returns the data that was passed to Commit. The caller must not change it.
func (o *Object) Data() []byte { return o.meta.data }

// Epoch returns the sequence of the newest purge when the object's fetch began.
func (o *Object) Epoch() uint64 { return o.meta.epoch }

// BodyID identifies the body. It stays with the body when the data is updated, and each new body
// has another one.
func (o *Object) BodyID() uint64 { return o.meta.fill }

// Segment returns the number of the segment that has the metadata.
func (o *Object) Segment() uint32 { return o.place.segment }

// Newer reports whether o was stored, or its metadata updated, after p, which has the same key.
func (o *Object) Newer(p *Object) bool { return o.place.newer(p.place) }

// Memo returns the result of make. For an object of the RAM tier, Memo calls make once and returns
// the same value to all callers. They must not change the value. It must always have the same type.
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

// InMemory reports whether the body is in the RAM tier.
func (o *Object) InMemory() bool { return o.body != nil }

// Body returns the whole body if it is in the RAM tier, otherwise nil. The caller must not change
// it.
func (o *Object) Body() []byte { return o.body }

// Hit counts a hit, for an object that Hot returned.
func (o *Object) Hit() {
	o.store.index.hit(o.slot)
	o.store.whatIf.request(o.slot, o.meta.size)
}

// readChunk copies from a chunk into p. If the chunk is missing or damaged, readChunk removes the
// object.
func (o *Object) readChunk(chunk uint32, from int, p []byte) (int, error) {
	n, err := o.store.readChunk(o.meta, chunk, from, p)
	if err != nil {
		o.store.discard(o, err)
		return 0, err
	}
	return n, nil
}

func (s *Store) readChunk(m *meta, chunk uint32, from int, p []byte) (n int, err error) {
	if m.body != nil {
		return copy(p, m.body[from:]), nil
	}
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

// ErrTooLarge means that a body is larger than MaxObject.
var ErrTooLarge = errors.New("object is larger than a quarter of the disk budget")

// ErrFull means that the disk is at its free-space floor.
var ErrFull = errors.New("disk is at its free-space floor")
