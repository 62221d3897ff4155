package storage

import (
	"math"
	"math/rand/v2"
	"sync"
	"time"
)

// Header names an object that is to be written.
type Header struct {
	Key string // what Get finds it by
	URL string // what purges of URLs and prefixes know it by
	// Epoch is Store.Epoch from before the object was asked of its origin: a purge after that
	// covers the object.
	Epoch uint64
}

// Writer stores one object. Write, Commit and Close are for one goroutine; ReadAt may be called by
// any number meanwhile and after.
type Writer struct {
	store *Store
	class class
	id    objectID
	hold  *Hold // nil once it is done, or if it came too late

	// mu guards what follows against ReadAt. The bytes of buf below written are not changed while
	// their chunk is the current one.
	mu      sync.RWMutex
	meta    meta
	buf     *buffer
	flushed uint32 // whole chunks that are in segments
}

// Create begins an object. Nothing of it is found before Commit. The Writer is to be closed in the
// end, committed or not.
func (s *Store) Create(h Header) *Writer {
	w := &Writer{store: s, id: idOf(h.Key), meta: meta{fill: rand.Uint64(), key: h.Key, url: h.URL, epoch: h.Epoch}}
	s.ghostMu.Lock()
	if s.ghosts.take(w.id.slot()) {
		w.class = main
	}
	s.ghostMu.Unlock()
	w.hold = s.Hold(h.Epoch)
	return w
}

// Close ends the writing; what was written and not committed can still be read by ReadAt. Purges
// that came since Create are remembered until then.
func (w *Writer) Close() {
	w.hold.Release()
	w.hold = nil
}

// Write appends to the body. After an error (ErrTooLarge, ErrFull or the disk's own) the object
// can't be stored any more, but what was written before can still be read by ReadAt.
func (w *Writer) Write(p []byte) (int, error) {
	if w.meta.size+int64(len(p)) > w.store.MaxObject() {
		w.store.counts.refusedLarge.Add(1)
		return 0, ErrTooLarge
	}
	total := 0
	for len(p) > 0 {
		w.mu.Lock()
		if w.buf == nil {
			w.buf = buffers.Get().(*buffer)
		}
		at := int(w.meta.size - int64(w.flushed)*chunkSize)
		n := copy(w.buf[valueHeader+at:], p)
		w.meta.size += int64(n)
		w.mu.Unlock()
		p = p[n:]
		total += n
		if at+n == chunkSize {
			if err := w.flush(); err != nil {
				return total, err
			}
		}
	}
	return total, nil
}

// flush writes the current chunk, which is full, to the open segment.
func (w *Writer) flush() error {
	g, err := w.store.putOne(w.class, 1, math.MaxUint64, false,
		record{chunkKey(w.id, w.meta.fill, w.flushed), w.buf[:valueHeader+chunkSize]})
	if err != nil {
		return err
	}
	w.store.counts.stored.Add(chunkSize)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.meta.extents = grow(w.meta.extents, g.id, w.flushed)
	w.flushed++
	return nil
}

// Size returns how many bytes were written.
func (w *Writer) Size() int64 {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.meta.size
}

// ReadAt copies from what was written so far, beginning at off; it returns 0 where nothing is there
// yet. It returns less than there is at the end of a chunk.
func (w *Writer) ReadAt(p []byte, off int64) (int, error) {
	w.mu.RLock()
	if off >= w.meta.size {
		w.mu.RUnlock()
		return 0, nil
	}
	chunk, from := uint32(off/chunkSize), int(off%chunkSize)
	if chunk >= w.flushed {
		defer w.mu.RUnlock()
		return copy(p, w.buf[valueHeader+from:valueHeader+int(w.meta.size-int64(w.flushed)*chunkSize)]), nil
	}
	m := w.meta // its slices only grow
	w.mu.RUnlock()
	// A chunk before the current one is as long as a chunk gets, but for the last one after Commit.
	return w.store.readChunk(&m, chunk, from, p)
}

// Body is the whole body of a small object, with the room before it that its record needs.
type Body struct{ value []byte }

// MaxBody is the size in bytes of the largest Body.
const MaxBody = 64 << 10

// NewBody makes a body of size bytes, at most MaxBody.
func NewBody(size int) Body { return Body{make([]byte, valueHeader+size)} }

// Bytes are those of the body. They are not to be changed after CommitBody was called.
func (b Body) Bytes() []byte { return b.value[valueHeader:] }

// CommitBody is Write and Commit for a body of which nothing was written before. It copies nothing.
func (w *Writer) CommitBody(b Body, tags []string, data []byte) (*Object, error) {
	size := len(b.Bytes())
	if int64(size) > w.store.MaxObject() {
		w.store.counts.refusedLarge.Add(1)
		w.Close()
		return nil, ErrTooLarge
	}
	w.mu.Lock()
	w.meta.size = int64(size)
	w.mu.Unlock()
	if size == 0 {
		return w.commit(nil, tags, data)
	}
	return w.commit(b.value, tags, data)
}

// Commit stores the object: its tags, and data that comes back with it. The Writer is then done,
// but for ReadAt. It fails with ErrOvertaken if purges after the Header's epoch were forgotten
// before Create.
func (w *Writer) Commit(tags []string, data []byte) (*Object, error) {
	if rest := int(w.meta.size - int64(w.flushed)*chunkSize); rest > 0 {
		return w.commit(w.buf[:valueHeader+rest], tags, data)
	}
	return w.commit(nil, tags, data)
}

// commit stores the last chunk, which begins at valueHeader of rest, and the metadata. rest is nil
// if all chunks are stored.
func (w *Writer) commit(rest []byte, tags []string, data []byte) (*Object, error) {
	defer w.Close()
	m := w.meta // only this goroutine changes it
	m.tags, m.data, m.stored = tags, data, time.Now()
	o, err := w.store.putObject(w.class, &m, w.id, rest)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.meta = m
	if rest != nil {
		w.store.counts.stored.Add(uint64(len(rest) - valueHeader))
		w.flushed++
	}
	if w.buf != nil {
		buffers.Put(w.buf)
		w.buf = nil
	}
	return o, nil
}
