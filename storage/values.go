package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/dgraph-io/badger/v4"
)

// This file finds the places of chunks in a segment's value logs, so that they can be sent from
// there.
//
// Badger appends entries to a value log (NUMBER.vlog) and never changes them. An entry has a
// header, the key, the value and a checksum. Badger's tables have the place of each key's entry.
// The bytes there count as the value only if they have the checksums that sealValue made for this
// key. So a wrong place has the same effect as a damaged value.

const (
	// minPlaced is the size in bytes of the smallest value that is sent from its file.
	minPlaced = 16 << 10
	// placeGrain is the smallest distance in a file between the beginnings of two such values.
	placeGrain = minPlaced
	// entryHead is the maximum size of an entry before the value of a chunk: Badger's header (22
	// bytes), the chunk's key and a version (8 bytes).
	entryHead = 22 + chunkKeySize + 8
)

// valueFiles are the value logs of a segment, opened beside Badger when they are first used.
type valueFiles struct {
	mu    sync.Mutex
	dir   string
	files map[uint32]*valueFile // by Badger's number
}

// valueFile is a value log.
type valueFile struct {
	number uint32
	file   *os.File
	fd     int

	mapping sync.Once
	mapped  []byte // set by memory; nil if the file can't be mapped

	// good has a bit for each place, in units of placeGrain: whether the value that begins there
	// was checked since the segment was opened.
	good []atomic.Uint64
	// seen has a number for each such place: the round of the scrubber in which the page cache last
	// had the whole value; 0 means never.
	seen []atomic.Uint32
	mu   sync.Mutex
	list []checked // the checked values, for the scrubber
}

// checked has the places where an entry and its value begin.
type checked struct{ entry, value uint32 }

// get returns the value log with a number.
func (f *valueFiles) get(number uint32) (*valueFile, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if v := f.files[number]; v != nil {
		return v, nil
	}
	file, err := os.Open(filepath.Join(f.dir, fmt.Sprintf("%06d.vlog", number)))
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	v := &valueFile{number: number, file: file, fd: int(file.Fd()),
		good: make([]atomic.Uint64, info.Size()/placeGrain/64+1),
		seen: make([]atomic.Uint32, info.Size()/placeGrain+1)}
	if f.files == nil {
		f.files = map[uint32]*valueFile{}
	}
	f.files[number] = v
	return v, nil
}

// move records the new name of the folder.
func (f *valueFiles) move(dir string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dir = dir
}

// from returns the open value log with the lowest number that is at least number, or nil.
func (f *valueFiles) from(number uint32) (first *valueFile) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for n, v := range f.files {
		if n >= number && (first == nil || n < first.number) {
			first = v
		}
	}
	return first
}

// close closes all value logs. They must not be in use.
func (f *valueFiles) close() (err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, v := range f.files {
		err = errors.Join(err, unmap(v.mapped), v.file.Close())
	}
	f.files = nil
	return err
}

// bit returns the word and the bit of good for a value that begins at a place. The word is nil if
// the file was shorter when it was opened.
func (v *valueFile) bit(at int64) (*atomic.Uint64, uint64) {
	n := at / placeGrain
	if n/64 >= int64(len(v.good)) {
		return nil, 0
	}
	return &v.good[n/64], 1 << (n % 64)
}

// seenAt returns the element of seen for the value whose data begins at a place, or nil if seen is
// too short.
func (v *valueFile) seenAt(at int64) *atomic.Uint32 {
	if n := (at - valueHeader) / placeGrain; n < int64(len(v.seen)) {
		return &v.seen[n]
	}
	return nil
}

// isChecked reports whether the value that begins at a place was checked.
func (v *valueFile) isChecked(at int64) bool {
	word, bit := v.bit(at)
	return word != nil && word.Load()&bit != 0
}

// setChecked records that a value was checked. It reports false if good is too short.
func (v *valueFile) setChecked(c checked) bool {
	word, bit := v.bit(int64(c.value))
	if word == nil {
		return false
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if word.Load()&bit == 0 {
		v.list = append(v.list, c)
	}
	word.Or(bit)
	return true
}

// setUnchecked records that a value has to be checked again.
func (v *valueFile) setUnchecked(c checked) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if word, bit := v.bit(int64(c.value)); word != nil {
		word.And(^bit)
	}
	if i := slices.Index(v.list, c); i >= 0 {
		v.list = slices.Delete(v.list, i, i+1)
	}
}

// entry is an entry of a value log.
type entry struct {
	key   []byte
	value int64 // where the value begins in the file
	size  int   // of the value in bytes
}

// readEntry reads the head of an entry. The key must be that of a chunk.
func (v *valueFile) readEntry(at uint32) (e entry, err error) {
	var head [entryHead]byte
	n, err := v.file.ReadAt(head[:], int64(at))
	if n < len(head) {
		return e, errors.Join(errDamaged, err)
	}
	d := decoder{b: head[2:]}
	klen, vlen := d.uvarint(), d.uvarint()
	d.uvarint() // the time of expiry
	if d.bad || klen != chunkKeySize+8 || vlen > valueHeader+chunkSize {
		return e, errDamaged
	}
	begin := len(head) - len(d.b)
	e.key = slices.Clone(head[begin : begin+chunkKeySize])
	e.value, e.size = int64(at)+int64(begin)+int64(klen), int(vlen)
	return e, nil
}

// check reads a value into buf and checks all of it.
func (v *valueFile) check(key []byte, e entry, buf *buffer) error {
	if e.size < valueHeader || e.size > len(buf) {
		return errDamaged
	}
	b := buf[:e.size]
	if n, err := v.file.ReadAt(b, e.value); n < len(b) {
		return errors.Join(errDamaged, err)
	}
	_, err := openValue(key, b)
	return err
}

// spot is where the data of a chunk begins: the number of the value log in the upper half, and the
// offset in the lower. Zero means unknown.
type spot uint64

// find finds the chunk of a key, which must have want bytes. It checks the chunk if it was not
// checked yet.
func (g *segment) find(key []byte, want int) (spot, *valueFile, error) {
	number, at, err := g.pointer(key)
	if err != nil {
		return 0, nil, err
	}
	v, err := g.files.get(number)
	if err != nil {
		return 0, nil, fmt.Errorf("segment %d: %w", g.id, err)
	}
	e, err := v.readEntry(at)
	if err != nil || string(e.key) != string(key) || e.size != valueHeader+want {
		return 0, nil, fmt.Errorf("segment %d: entry at %d of value log %d: %w", g.id, at, number,
			errors.Join(errDamaged, err))
	}
	if !v.isChecked(e.value) {
		buf := buffers.Get().(*buffer)
		defer buffers.Put(buf)
		if err := v.check(key, e, buf); err != nil {
			return 0, nil, fmt.Errorf("segment %d: value at %d of value log %d: %w", g.id, e.value, number, err)
		}
		if !v.setChecked(checked{at, uint32(e.value)}) {
			return 0, nil, errNoPlace
		}
	}
	return spot(uint64(number)<<32 | uint64(e.value+valueHeader)), v, nil
}

// at returns the value log of a spot that find returned, or nil if the value is no longer checked.
func (g *segment) at(s spot) *valueFile {
	g.files.mu.Lock()
	v := g.files.files[uint32(s>>32)]
	g.files.mu.Unlock()
	if v == nil || !v.isChecked(int64(uint32(s))-valueHeader) {
		return nil
	}
	return v
}

var errNoPlace = errors.New("the place of a value is not known")

// pointer returns the number of the value log with a key's entry, and where the entry begins.
func (g *segment) pointer(key []byte) (number, at uint32, err error) {
	defer func() {
		if p := recover(); p != nil { // of Badger, if a file was damaged since it was opened
			err = fmt.Errorf("segment %d: %v: %w", g.id, p, errDamaged)
		}
	}()
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.db == nil {
		return 0, 0, errGone
	}
	txn := g.db.NewTransactionAt(math.MaxUint64, false)
	defer txn.Discard()
	item, err := txn.Get(key)
	if err != nil {
		return 0, 0, fmt.Errorf("segment %d: %w", g.id, err)
	}
	return pointerOf(item)
}

// itemFields are the unexported fields of badger.Item that have the place of the value. Badger has
// no method for that.
var itemFields = func() (f struct{ vptr, meta []int }) {
	t := reflect.TypeFor[badger.Item]()
	vptr, ok1 := t.FieldByName("vptr")
	meta, ok2 := t.FieldByName("meta")
	if ok1 && ok2 && vptr.Type == reflect.TypeFor[[]byte]() && meta.Type == reflect.TypeFor[byte]() {
		f.vptr, f.meta = vptr.Index, meta.Index
	}
	return f
}()

// pointerOf returns the place of an item's value. In memory, Badger has it as three numbers of 4
// bytes: the number of the value log, the length of the entry, and its offset.
func pointerOf(item *badger.Item) (number, at uint32, err error) {
	const inValueLog = 1 << 1 // in meta
	if itemFields.vptr == nil {
		return 0, 0, errNoPlace
	}
	v := reflect.ValueOf(item).Elem()
	b := v.FieldByIndex(itemFields.vptr).Bytes()
	if v.FieldByIndex(itemFields.meta).Uint()&inValueLog == 0 || len(b) != 12 {
		return 0, 0, errNoPlace
	}
	return binary.NativeEndian.Uint32(b), binary.NativeEndian.Uint32(b[8:]), nil
}
