package storage

import (
	"cmp"
	"fmt"
	"reflect"
	"sync/atomic"
	"unsafe"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/ristretto/v2/z"
	"golang.org/x/sys/unix"
)

// A window keeps Badger's writes off the mapped file. Badger copies each entry into its mapping of
// the value log. There, each first write to a page is a page fault, in which the kernel finds room
// on the disk, and each sync makes the written pages fault again. The faults hold a processor of
// Go's scheduler, and cost several times what pwrite(2) does.
//
// So the part of the mapping where Badger writes next is anonymous memory, in huge pages if there
// are any. After each commit, the window writes the new bytes to the file with pwrite. When Badger
// is past a part, that part is mapped to the file again. The file has the same bytes as without a
// window. Each change of the mapping is one system call, which other goroutines can't observe,
// since anonymous memory and file have the same bytes by then.
//
// If a field of Badger that the window needs is missing, or if the system has no memory for it,
// Badger writes to the mapped file as ever.

// windowStep is the size in bytes of a part: that of a huge page.
const windowStep = 2 << 20

// window is for the value log that a segment writes to. Its methods are called by one goroutine at
// a time, while nothing is written to Badger. sync may be called at any time.
type window struct {
	number uint32 // of the value log; 0 before the first commit
	data   []byte // Badger's mapping of it
	fd     int
	done   bool // it isn't used for this value log any more
	// data[from:to] is anonymous memory. Badger has written data[:end], and data[:written] is in
	// the file.
	from, to, written, end int
	syncing                atomic.Int64 // fd and 1, for sync; 0 means none
}

// logFields are the unexported fields of badger.DB that tell where Badger writes.
var logFields = func() (f struct{ number, files, offset, mapped []int }) {
	field := func(t reflect.Type, name string, want reflect.Type) []int {
		if s, ok := t.FieldByName(name); ok && (want == nil || s.Type == want) {
			return s.Index
		}
		return nil
	}
	vlog, ok := reflect.TypeFor[badger.DB]().FieldByName("vlog")
	if !ok || vlog.Type.Kind() != reflect.Struct {
		return f
	}
	files, ok := vlog.Type.FieldByName("filesMap")
	if !ok || files.Type.Kind() != reflect.Map || files.Type.Key() != reflect.TypeFor[uint32]() ||
		files.Type.Elem().Kind() != reflect.Pointer || files.Type.Elem().Elem().Kind() != reflect.Struct {
		return f
	}
	mapped := field(files.Type.Elem().Elem(), "MmapFile", reflect.TypeFor[*z.MmapFile]())
	number := field(vlog.Type, "maxFid", reflect.TypeFor[uint32]())
	offset := field(vlog.Type, "writableLogOffset", reflect.TypeFor[atomic.Uint32]())
	if mapped == nil || number == nil || offset == nil {
		return f
	}
	join := func(index []int) []int { return append(vlog.Index[:len(vlog.Index):len(vlog.Index)], index...) }
	f.number, f.files, f.offset, f.mapped = join(number), join(files.Index), join(offset), mapped
	return f
}()

// logOf returns the number of the value log that Badger writes to, and the offset of the next
// entry. Nothing may be written meanwhile.
func logOf(db *badger.DB) (number uint32, offset int, ok bool) {
	if logFields.mapped == nil {
		return 0, 0, false
	}
	v := reflect.ValueOf(db).Elem()
	at := (*atomic.Uint32)(v.FieldByIndex(logFields.offset).Addr().UnsafePointer())
	return uint32(v.FieldByIndex(logFields.number).Uint()), int(at.Load()), true
}

// mappingOf returns Badger's mapping of a value log. Nothing may be written meanwhile.
func mappingOf(db *badger.DB, number uint32) *z.MmapFile {
	file := reflect.ValueOf(db).Elem().FieldByIndex(logFields.files).MapIndex(reflect.ValueOf(number))
	if !file.IsValid() || file.IsNil() {
		return nil
	}
	return (*z.MmapFile)(file.Elem().FieldByIndex(logFields.mapped).UnsafePointer())
}

// before prepares the window for a commit of at most size bytes. After an error, bytes of an
// earlier commit are not in the file, and nothing may be written.
func (w *window) before(db *badger.DB, size int) error {
	if err := w.flush(); err != nil {
		return err
	}
	number, offset, ok := logOf(db)
	if !ok {
		return nil
	}
	if number != w.number {
		m := mappingOf(db, number)
		if m == nil || m.Fd == nil || len(m.Data) == 0 {
			return nil
		}
		w.number, w.data, w.fd, w.done = number, m.Data, int(m.Fd.Fd()), false
		w.from, w.to, w.written, w.end = 0, 0, offset, offset
		w.syncing.Store(int64(w.fd) + 1)
	}
	switch {
	case w.done:
		return nil
	case offset+size > valueLogSize: // Badger may end this value log, and cuts it to its length
		return w.close()
	}
	return w.move(offset, size)
}

// after writes the entries of a commit to the file.
func (w *window) after(db *badger.DB) error {
	if number, offset, ok := logOf(db); ok && number == w.number {
		w.end = offset
	}
	return w.flush()
}

// flush writes to the file what isn't there yet.
func (w *window) flush() error {
	for from, to := max(w.written, w.from), min(w.end, w.to); from < to; {
		n, err := unix.Pwrite(w.fd, w.data[from:to], int64(from))
		if n <= 0 && err != unix.EINTR {
			return fmt.Errorf("write value log %d at %d: %w", w.number, from, cmp.Or(err, error(unix.EIO)))
		}
		from += max(n, 0)
		w.written = from
	}
	w.written = w.end
	return nil
}

// move moves the window to size bytes from an offset.
func (w *window) move(offset, size int) error {
	if first := w.partOf(offset); first > w.from {
		if err := w.restore(min(first, w.to)); err != nil {
			return err
		}
		if w.to <= w.from {
			w.from, w.to = first, first
		}
	}
	if last := min(w.partOf(offset+size)+windowStep, len(w.data)); last > w.to {
		w.extend(last)
	}
	return nil
}

// partOf returns where the part with an offset begins. Only the first part may not begin at a
// huge page.
func (w *window) partOf(offset int) int {
	base := uintptr(unsafe.Pointer(unsafe.SliceData(w.data)))
	return max(0, int((base+uintptr(offset))&^(windowStep-1)-base))
}

// extend replaces data[w.to:end] by anonymous memory with the same bytes. It ends the window if the
// system has no memory.
func (w *window) extend(end int) {
	size := end - w.to
	spare, err := unix.MmapPtr(-1, 0, nil, uintptr(size+windowStep), unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		w.done = true
		return
	}
	at := unsafe.Pointer(&w.data[w.to])
	// Huge pages are moved as such only between places that are alike.
	skip := int((uintptr(at) - uintptr(spare)) & (windowStep - 1))
	part := unsafe.Add(spare, skip)
	b := unsafe.Slice((*byte)(part), size)
	// The calls are advice. The kernel makes the pages here, and not while Badger writes.
	_ = unix.Madvise(b, unix.MADV_HUGEPAGE)
	_ = unix.Madvise(b, unix.MADV_POPULATE_WRITE)
	if w.to < w.end {
		copy(b, w.data[w.to:w.end])
	}
	_, err = unix.MremapPtr(part, uintptr(size), at, uintptr(size), unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED)
	if err != nil {
		w.done = true
		_ = unix.MunmapPtr(part, uintptr(size))
	} else {
		w.to = end
	}
	if skip > 0 {
		_ = unix.MunmapPtr(spare, uintptr(skip))
	}
	_ = unix.MunmapPtr(unsafe.Add(part, size), uintptr(windowStep-skip))
}

// restore maps data[w.from:end] to the file again.
func (w *window) restore(end int) error {
	if end <= w.from {
		return nil
	}
	_, err := unix.MmapPtr(w.fd, int64(w.from), unsafe.Pointer(&w.data[w.from]), uintptr(end-w.from),
		unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_FIXED)
	if err != nil {
		return fmt.Errorf("map value log %d: %w", w.number, err)
	}
	w.from = end
	return nil
}

// close ends the window: the whole value log is mapped again, and Badger syncs it.
func (w *window) close() error {
	w.done = true
	w.syncing.Store(0)
	if err := w.flush(); err != nil {
		return err
	}
	return w.restore(w.to)
}

// sync writes the value log to the disk. It may be called at any time before Badger is closed.
func (w *window) sync() error {
	if fd := w.syncing.Load(); fd > 0 {
		return unix.Fdatasync(int(fd - 1))
	}
	return nil
}
