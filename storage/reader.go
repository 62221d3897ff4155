package storage

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strconv"
)

// Open returns a Reader of n bytes of the body from off, which must lie inside the body. Open finds
// and checks the first chunk. If that fails, it removes the object and returns an error, before
// anything was sent.
//
// If segments of the object are dropped meanwhile, the Reader keeps them, up to heldSegments for
// all Readers. The caller must close the Reader.
func (o *Object) Open(off, n int64) (*Reader, error) {
	if off < 0 || n < 0 || off > o.meta.size-n {
		return nil, fmt.Errorf("range %d+%d of an object of %d bytes", off, n, o.meta.size)
	}
	r := &Reader{o: o, off: off, left: n}
	if n == 0 {
		return r, nil
	}
	body := o.body
	if body == nil {
		body = o.meta.body
	}
	if body != nil {
		r.have, r.off, r.left = body[off:off+n], off+n, 0
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

// Reader reads a part of an object's body. It is for one goroutine. The next bytes are in memory or
// in a file. Bytes, Discard, Read, WriteTo and WriteMapped use them in memory. With SendTo the
// kernel sends them from the file.
type Reader struct {
	o    *Object
	off  int64 // of the first byte after the current ones
	left int64 // number of bytes after the current ones

	// The current bytes: have, or size bytes of file from at.
	have []byte
	file *valueFile
	at   int64
	size int
	// mapped is the current bytes of file in mapped memory; nil until they are needed there.
	mapped []byte
	// value is where the value of the current bytes begins in file, and whole is its size.
	value int64
	whole int

	buf    *buffer    // of have, if that is in one
	pinned []*segment // by extent of the object; nil for extents that are not read
	first  [1]*segment
}

// pin pins the segments that the Reader needs.
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

// segmentOf returns the segment of a chunk, or nil if it isn't pinned.
func (r *Reader) segmentOf(chunk uint32) *segment {
	extents := r.o.meta.extents
	for i := len(extents) - 1; i >= 0; i-- {
		if extents[i].first <= chunk {
			return r.pinned[i]
		}
	}
	return nil
}

// next makes the bytes at off current, up to the end of their chunk.
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

// place makes n bytes of a chunk in a file current. It reports false if the chunk has to be copied.
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
			return false // copy finds out whether the chunk is damaged
		}
		if r.o.spots != nil {
			r.o.spots[chunk].Store(uint64(s))
		}
	}
	r.have, r.file, r.at, r.size, r.mapped = nil, v, int64(uint32(s))+int64(from), n, nil
	r.value, r.whole = int64(uint32(s)), want
	return true
}

// copy copies and checks n bytes of a chunk, and makes them current.
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

// Len returns the number of bytes that are left.
func (r *Reader) Len() int64 { return r.left + int64(len(r.have)+r.size) }

// Bytes returns the next bytes: the whole body if it is in the RAM tier, otherwise at most 256 KiB.
// It returns no bytes only at the end. The bytes must not be changed. They are valid until Discard
// or Close, so a caller that may use them longer needs a copy. A damaged chunk is an error.
func (r *Reader) Bytes() ([]byte, error) {
	if err := r.advance(); err != nil || r.file == nil {
		return r.have, err
	}
	if b := r.inMemory(); b != nil {
		return b, nil
	}
	return r.copied()
}

// inMemory returns the current bytes of file in mapped memory, or nil if they can't be mapped.
func (r *Reader) inMemory() []byte {
	if r.mapped == nil {
		r.mapped = r.file.mem(r.at, r.size)
	}
	return r.mapped
}

// copied copies the current bytes to a buffer, and returns that.
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

// advance makes the next chunk current if no current bytes are left.
func (r *Reader) advance() error {
	if len(r.have) == 0 && r.size == 0 && r.left > 0 {
		return r.next()
	}
	return nil
}

// Discard skips n bytes, which Bytes has returned.
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

// Read copies the next bytes into p.
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

// readFile copies from the file into p. A copy from mapped memory costs less than a system call.
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

// WriteTo writes all bytes that are left to w, chunk by chunk. It holds no lock of the store
// meanwhile. It returns an error if a chunk is damaged.
func (r *Reader) WriteTo(w io.Writer) (int64, error) { return r.writeTo(w, r.own) }

// WriteMapped is WriteTo without a copy. It is for a w that doesn't use the bytes after its Write
// has returned, because mapped memory is gone after Close. The writer of HTTP/2 does use
// them: it may still write bytes of a stream that was reset.
func (r *Reader) WriteMapped(w io.Writer) (int64, error) { return r.writeTo(w, r.Bytes) }

// own is Bytes for callers that may use the bytes after Close.
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

// guard calls f, which reads mapped files. If the disk fails meanwhile, guard returns an error;
// without it, the process would end.
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

// cached reports whether the page cache has the current bytes, or had them a moment ago.
func (r *Reader) cached() bool {
	if strconv.IntSize < 64 {
		return false // the direct system calls need 64-bit offsets
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

// AppendHead appends the next bytes up to the first page boundary of their file to a header block,
// if that has room. The kernel sends 16 pages of a file at once. 64 KiB that don't begin at a page
// boundary lie in 17 pages, and the last page would be a packet of its own.
func (r *Reader) AppendHead(b []byte) []byte {
	n := int(-r.at & int64(os.Getpagesize()-1))
	if r.file == nil || n == 0 || n >= r.size || n > cap(b)-len(b) || !r.cached() {
		return b
	}
	n = r.file.read(b[len(b):len(b)+n], r.at)
	r.Discard(n)
	return b[:len(b)+n]
}

// SendTo sends the next bytes, up to the end of a chunk, to a socket without waiting. It uses
// sendfile(2) if they are in a file. It returns 0 without an error only at the end, and the
// socket's error (EAGAIN) if the socket takes no more. The error of a damaged chunk wraps no error
// of the socket.
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
	case isRefusal(err): // the file system doesn't support it
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

// Close releases the segments and buffers of the Reader, which must not be used afterwards.
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
