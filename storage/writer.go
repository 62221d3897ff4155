package storage

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"time"
)

// Header identifies an object that is to be written.
type Header struct {
	Key string // by which Get finds it
	URL string // by which purges of URLs and prefixes find it
	// Epoch is Store.Epoch before the request was sent to the origin. Later purges cover the
	// object.
	Epoch uint64
}

// Writer stores one object. Write, Commit and Close are for one goroutine. Any number of goroutines
// may call ReadAt, at any time.
type Writer struct {
	store *Store
	class class
	id    objectID
	hold  *Hold // nil after the end, or if purges were forgotten before

	// mu guards the following fields against ReadAt. The first written bytes of buf don't change
	// while their chunk is the current one.
	mu      sync.RWMutex
	meta    meta
	buf     *buffer
	flushed uint32 // number of chunks that are in segments
}

// Create begins an object. Get doesn't find it before Commit. The caller must close the Writer,
// whether it commits or not.
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

// Close ends the writing. ReadAt can still read the written bytes, even without Commit. Until
// Close, the store forgets no purge made since Create.
func (w *Writer) Close() {
	w.hold.Release()
	w.hold = nil
}

// Write appends to the body. After an error (ErrTooLarge, ErrFull or an error of the disk) the
// object can't be stored any more, but ReadAt can still read the bytes written before.
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

// flush writes the current, full chunk to the open segment.
func (w *Writer) flush() error {
	p, err := w.store.putOne(w.class, 1, math.MaxUint64, false,
		record{chunkKey(w.id, w.meta.fill, w.flushed), w.buf[:valueHeader+chunkSize]})
	if err != nil {
		return err
	}
	w.store.counts.stored.Add(chunkSize)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.meta.extents = grow(w.meta.extents, p.segment, w.flushed)
	w.flushed++
	return nil
}

// Size returns the number of bytes written.
func (w *Writer) Size() int64 {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.meta.size
}

// ReadAt copies written bytes into p, beginning at off. It returns 0 if there are none at off yet.
// It stops at the end of a chunk, so it may return fewer bytes than were written.
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
	// All chunks before the current one are full, except the last one after Commit.
	return w.store.readChunk(&m, chunk, from, p)
}

// Body is the whole body of a small object, with space before it for the header of its record.
type Body struct{ value []byte }

// MaxBody is the size in bytes of the largest Body.
const MaxBody = 64 << 10

// NewBody makes a body of size bytes, at most MaxBody.
func NewBody(size int) Body { return Body{make([]byte, valueHeader+size)} }

// Bytes returns the bytes of the body. They must not be changed after CommitBody.
func (b Body) Bytes() []byte { return b.value[valueHeader:] }

// CommitBody is Write and Commit for a whole body. It copies nothing.
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

// Commit stores the object with its tags and data. Afterwards only ReadAt and Close may be called.
// Commit returns ErrOvertaken if purges after the Header's epoch were forgotten before Create.
func (w *Writer) Commit(tags []string, data []byte) (*Object, error) {
	if rest := int(w.meta.size - int64(w.flushed)*chunkSize); rest > 0 {
		return w.commit(w.buf[:valueHeader+rest], tags, data)
	}
	return w.commit(nil, tags, data)
}

// commit stores the last chunk, whose data begins at valueHeader of rest, and the metadata. rest is
// nil if all chunks are stored.
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

// putObject is putMeta that also writes the last chunk, unless rest is nil. Both become durable
// together. A small chunk that is the whole body becomes part of the metadata. The data of the
// chunk begins at valueHeader of rest.
func (s *Store) putObject(c class, m *meta, id objectID, rest []byte) (*Object, error) {
	hold := s.Hold(m.epoch)
	if hold == nil {
		return nil, fmt.Errorf("store %s: %w", m.key, ErrOvertaken)
	}
	defer hold.Release()
	if rest != nil && m.size <= maxMetaBody {
		m.body, rest = bytes.Clone(rest[valueHeader:]), nil
	}
	version, extents := s.version.Add(1), m.extents
	p, err := s.put(c, version, m.epoch, false, func(g *segment) []record {
		if rest == nil {
			return []record{m.record(id)}
		}
		chunk := uint32((m.size - 1) / chunkSize)
		m.extents = grow(extents[:len(extents):len(extents)], g.id, chunk)
		return []record{{chunkKey(id, m.fill, chunk), rest}, m.record(id)}
	})
	if err != nil {
		return nil, fmt.Errorf("store %s: %w", m.key, err)
	}
	if _, had := s.index.get(id.slot()); !had {
		s.whatIf.request(id.slot(), m.size) // otherwise Get has counted it
	}
	s.index.put(id.slot(), p)
	return &Object{store: s, meta: m, place: p}, nil
}
