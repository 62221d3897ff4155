package storage

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strconv"
)

// Open returns the n bytes of the body from off on, which must lie inside it. The first chunk is
// found and checked before it returns: on an error the object is gone from the store and nothing
// was sent to anybody yet.
//
// A Reader goes on to its end when segments of the object are dropped meanwhile, unless that keeps
// more than heldSegments of them. It is to be closed.
func (o *Object) Open(off, n int64) (*Reader, error) {
	if off < 0 || n < 0 || off > o.meta.size-n {
		return nil, fmt.Errorf("range %d+%d of an object of %d bytes", off, n, o.meta.size)
	}
	r := &Reader{o: o, off: off, left: n}
	if n == 0 {
		return r, nil
	}
	if o.body != nil {
		r.have, r.off, r.left = o.body[off:off+n], off+n, 0
		return r, nil
	}
	if err := r.pin(); err != nil {
		r.Close()
		o.store.discard(o, err)
		return nil, err
	}
	if err := r.next(); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// Reader streams a part of an object's body. It is for one goroutine. What comes next lies in
// memory, or in a file: Bytes and Discard, Read, WriteTo and WriteMapped have it in memory, SendTo
// has the kernel take it from the file.
type Reader struct {
	o    *Object
	off  int64 // of the byte after what is current
	left int64 // bytes after what is current

	// What is current: have, or size bytes of file from at on.
	have []byte
	file *valueFile
	at   int64
	size int
	// mapped is those bytes as they are mapped, once they were asked for in memory; else nil.
	mapped []byte
	// value is where the value begins that it belongs to, and whole how many bytes that has.
	value int64
	whole int

	buf    *buffer    // that have is in, if it is in one
	pinned []*segment // of the extents of the object; nil for those that nothing is read of
	first  [1]*segment
}

// pin keeps the segments that have what is to be read.
func (r *Reader) pin() error {
	extents := r.o.meta.extents
	if r.pinned = r.first[:0]; len(extents) > 1 {
		r.pinned = make([]*segment, 0, len(extents))
	}
	end := r.off + r.left
	for i, e := range extents {
		var g *segment
		if int64(e.first)*chunkSize < end && (i == len(extents)-1 || int64(extents[i+1].first)*chunkSize > r.off) {
			if g = r.o.store.segment(e.segment); g == nil || !g.pin() {
				return errGone
			}
		}
		r.pinned = append(r.pinned, g)
	}
	return nil
}

// segmentOf is that of a chunk; nil if it isn't pinned.
func (r *Reader) segmentOf(chunk uint32) *segment {
	extents := r.o.meta.extents
	for i := len(extents) - 1; i >= 0; i-- {
		if extents[i].first <= chunk {
			return r.pinned[i]
		}
	}
	return nil
}

// next makes the chunk at off, or what is to be read of it, the current one.
func (r *Reader) next() error {
	chunk, from := uint32(r.off/chunkSize), int(r.off%chunkSize)
	want := int(min(chunkSize, r.o.meta.size-int64(chunk)*chunkSize))
	g := r.segmentOf(chunk)
	var err error
	switch {
	case g == nil:
		err = errDamaged
	case g.revoked.Load():
		err = errGone
	default:
		n := int(min(r.left, int64(want-from)))
		if !r.place(g, chunk, from, n, want) {
			err = r.copy(g, chunk, from, n, want)
		}
		if err == nil {
			r.off, r.left = r.off+int64(n), r.left-int64(n)
			return nil
		}
	}
	r.o.store.discard(r.o, err)
	return err
}

// place makes n bytes of a chunk in a file the current ones. It reports false if the chunk has to
// be copied.
func (r *Reader) place(g *segment, chunk uint32, from, n, want int) bool {
	if !canPlace || want < minPlaced {
		return false
	}
	var s spot
	var v *valueFile
	if r.o.spots != nil {
		if s = spot(r.o.spots[chunk].Load()); s != 0 {
			v = g.at(s)
		}
	}
	if v == nil {
		var err error
		if s, v, err = g.find(chunkKey(idOf(r.o.meta.key), r.o.meta.fill, chunk), want); err != nil {
			return false // to read it in the other way tells whether it is damaged
		}
		if r.o.spots != nil {
			r.o.spots[chunk].Store(uint64(s))
		}
	}
	r.have, r.file, r.at, r.size, r.mapped = nil, v, int64(uint32(s))+int64(from), n, nil
	r.value, r.whole = int64(uint32(s)), want
	return true
}

// copy makes n bytes of a chunk, copied and checked, the current ones.
func (r *Reader) copy(g *segment, chunk uint32, from, n, want int) error {
	if r.buf == nil {
		r.buf = buffers.Get().(*buffer)
	}
	key := chunkKey(idOf(r.o.meta.key), r.o.meta.fill, chunk)
	err := g.value(key, func(v []byte, _ uint64) error {
		_, err := copyValue(key, v, want, from, r.buf[:n])
		return err
	})
	r.have, r.file, r.size, r.mapped = r.buf[:n], nil, 0, nil
	return err
}

// Len is how many bytes are left.
func (r *Reader) Len() int64 { return r.left + int64(len(r.have)+r.size) }

// Bytes returns what comes next, 256 KiB at most but for what the RAM tier has, and nothing at the
// end only. It is not to be changed, and it is there until Discard or Close: who is told of an end
// before it is done with it must have a copy. A damaged chunk is an error.
func (r *Reader) Bytes() ([]byte, error) {
	if err := r.advance(); err != nil || r.file == nil {
		return r.have, err
	}
	if b := r.inMemory(); b != nil {
		return b, nil
	}
	return r.copied()
}

// inMemory is what is current, which lies in a file, as it is mapped; nil if that can't be.
func (r *Reader) inMemory() []byte {
	if r.mapped == nil {
		r.mapped = r.file.mem(r.at, r.size)
	}
	return r.mapped
}

// copied has what is current in memory of its own.
func (r *Reader) copied() ([]byte, error) {
	if r.buf == nil {
		r.buf = buffers.Get().(*buffer)
	}
	if n, err := r.file.file.ReadAt(r.buf[:r.size], r.at); n < r.size {
		err = errors.Join(errDamaged, err)
		r.o.store.discard(r.o, err)
		return nil, err
	}
	r.have, r.file, r.size, r.mapped = r.buf[:r.size], nil, 0, nil
	return r.have, nil
}

// advance goes on to the next chunk when the current one is over.
func (r *Reader) advance() error {
	if len(r.have) == 0 && r.size == 0 && r.left > 0 {
		return r.next()
	}
	return nil
}

// Discard goes n bytes on, which Bytes returned.
func (r *Reader) Discard(n int) {
	if r.file == nil {
		r.have = r.have[n:]
		return
	}
	r.at, r.size = r.at+int64(n), r.size-n
	if r.mapped != nil {
		r.mapped = r.mapped[n:]
	}
	if r.size == 0 {
		r.file, r.mapped = nil, nil
	}
}

// Read copies what comes next into p.
func (r *Reader) Read(p []byte) (n int, err error) {
	if err := r.advance(); err != nil {
		return 0, err
	}
	switch {
	case r.Len() == 0:
		return 0, io.EOF
	case r.file == nil:
		n = copy(p, r.have)
	default:
		if n, err = r.readFile(p[:min(len(p), r.size)]); err != nil {
			r.o.store.discard(r.o, err)
		}
	}
	r.Discard(n)
	return n, err
}

// readFile copies from the file into p. A copy of what is mapped costs less than a system call.
func (r *Reader) readFile(p []byte) (int, error) {
	if b := r.inMemory(); b != nil {
		err := guard(func() error {
			copy(p, b)
			return nil
		})
		if err != nil {
			return 0, err
		}
		return len(p), nil
	}
	if n, err := r.file.file.ReadAt(p, r.at); n < len(p) {
		return 0, errors.Join(errDamaged, err)
	}
	return len(p), nil
}

// WriteTo writes what is left to w, chunk by chunk and never with a lock of the store held. A
// damaged chunk ends it with an error.
func (r *Reader) WriteTo(w io.Writer) (int64, error) { return r.writeTo(w, r.own) }

// WriteMapped is WriteTo without a copy, for a w that is done with what it was given when its Write
// returns. That of HTTP/2 is not: it may write what belongs to a stream that was reset meanwhile,
// and what was mapped is gone after Close.
func (r *Reader) WriteMapped(w io.Writer) (int64, error) { return r.writeTo(w, r.Bytes) }

// own is Bytes for who may use them longer.
func (r *Reader) own() ([]byte, error) {
	if err := r.advance(); err != nil || r.file == nil {
		return r.have, err
	}
	return r.copied()
}

func (r *Reader) writeTo(w io.Writer, next func() ([]byte, error)) (int64, error) {
	var total int64
	for {
		b, err := next()
		if err != nil || len(b) == 0 {
			return total, err
		}
		n := 0
		err = guard(func() (err error) {
			n, err = w.Write(b)
			return err
		})
		total += int64(n)
		r.Discard(n)
		if errors.Is(err, errDamaged) {
			r.o.store.discard(r.o, err)
		}
		if err != nil {
			return total, err
		}
	}
}

// guard calls f, which reads mapped files. Where the disk fails under it, that is an error in place
// of the end of the process.
func guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		if fault, ok := p.(interface{ Addr() uintptr }); ok {
			err = fmt.Errorf("a mapped file can't be read at %#x: %w", fault.Addr(), errDamaged)
			return
		}
		panic(p)
	}()
	return f()
}

// cached reports whether the page cache has what is current, or had it a moment ago.
func (r *Reader) cached() bool {
	if strconv.IntSize < 64 {
		return false // the calls that are made directly have offsets of 64 bits
	}
	now, seen := r.o.store.rounds.Load(), r.file.seenAt(r.value)
	if seen != nil && now-seen.Load() < seenRounds {
		return true
	}
	if r.file.cached(r.value, r.whole) {
		if seen != nil {
			seen.Store(now)
		}
		return true
	}
	return r.size < r.whole && r.file.cached(r.at, r.size)
}

// AppendHead appends to a header block the bytes of what comes next that lie before the first whole
// page of their file, if the header block has room for them. The kernel sends 16 pages of a file at
// once. 64 KiB that don't begin with a page lie in 17, and the last one is a packet of its own.
func (r *Reader) AppendHead(b []byte) []byte {
	n := int(-r.at & int64(os.Getpagesize()-1))
	if r.file == nil || n == 0 || n >= r.size || n > cap(b)-len(b) || !r.cached() {
		return b
	}
	n = r.file.read(b[len(b):len(b)+n], r.at)
	r.Discard(n)
	return b[:len(b)+n]
}

// SendTo has a socket take what comes next, up to the end of a chunk, without waiting: by
// sendfile(2) where that lies in a file. It returns 0 and no error at the end only, and the
// socket's error (EAGAIN) where that takes no more. A damaged chunk is an error that wraps none of
// the socket's.
func (r *Reader) SendTo(socket int) (int, error) {
	if err := r.advance(); err != nil || r.Len() == 0 {
		return 0, err
	}
	if r.file == nil {
		n, err := write(socket, r.have[:min(len(r.have), chunkSize)])
		r.Discard(n)
		return n, err
	}
	n, err := r.file.sendfile(socket, r.at, r.size, r.cached())
	switch {
	case n > 0:
		r.Discard(n)
		return n, nil
	case isRefusal(err): // the file system has none
		if _, err := r.copied(); err != nil {
			return 0, err
		}
		return r.SendTo(socket)
	case err == nil || isDiskError(err):
		err = fmt.Errorf("value log %d ends or fails at %d: %v: %w", r.file.number, r.at, err, errDamaged)
		r.o.store.discard(r.o, err)
	}
	return 0, err
}

// Close gives back what the Reader has; it is not used after it.
func (r *Reader) Close() {
	if r.buf != nil {
		buffers.Put(r.buf)
		r.buf = nil
	}
	r.have, r.file, r.size, r.left, r.mapped = nil, nil, 0, 0, nil
	for _, g := range r.pinned {
		if g != nil {
			g.unpin()
		}
	}
	r.pinned = nil
}
