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

// This file finds where in a segment's value logs the chunks of bodies lie, so that they can be
// sent from there.
//
// Badger appends an entry to a value log (NUMBER.vlog) and never changes it: a header, the key, the
// value, a sum. Where the entry of a key begins is in Badger's tables. What is read there is taken
// for the value only if it has the sums that sealValue made of this key, so that a place that is
// wrong, for whatever reason, is a value that is damaged.

const (
	// minPlaced is how many bytes of data a value has to have to be sent from its file.
	minPlaced = 16 << 10
	// placeGrain is how far apart in a file the values of minPlaced bytes begin at least.
	placeGrain = minPlaced
	// entryHead is how long what stands before the value of a chunk is at most: Badger's header
	// (22 bytes), the chunk's key and a version (8 bytes).
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
	mapped  []byte // by memory; nil if it can't be

	// good has a bit for each value that was checked since the segment was opened, at its beginning
	// in grains.
	good []atomic.Uint64
	// seen has for each value, at its beginning in grains, the round of the clock in which the page
	// cache had all of it; 0 is never.
	seen []atomic.Uint32
	mu   sync.Mutex
	list []checked // those, for the scrubber
}

// checked is where the entry of a value begins, and the value in it.
type checked struct{ entry, value uint32 }

// get returns the value log of a number.
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

// move notes that the folder has another name.
func (f *valueFiles) move(dir string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dir = dir
}

// from returns the one with the lowest number from a number on, of those that are open; nil if
// there is none.
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

// close closes all; nobody uses them any more.
func (f *valueFiles) close() (err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, v := range f.files {
		err = errors.Join(err, unmap(v.mapped), v.file.Close())
	}
	f.files = nil
	return err
}

// bit returns the word and the bit for a value that begins at a place; nil if the file was shorter
// when it was opened.
func (v *valueFile) bit(at int64) (*atomic.Uint64, uint64) {
	n := at / placeGrain
	if n/64 >= int64(len(v.good)) {
		return nil, 0
	}
	return &v.good[n/64], 1 << (n % 64)
}

// seenAt returns where it is noted when the page cache had the value whose data begins at a place;
// nil if there is no room for that.
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

// setChecked records that a value was checked. It reports false if there is no room for that.
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

// entry is one of a value log.
type entry struct {
	key   []byte
	value int64 // where the value begins in the file
	size  int   // bytes of it
}

// readEntry reads the head of an entry whose key is one of a chunk.
func (v *valueFile) readEntry(at uint32) (e entry, err error) {
	var head [entryHead]byte
	n, err := v.file.ReadAt(head[:], int64(at))
	if n < len(head) {
		return e, errors.Join(errDamaged, err)
	}
	d := decoder{b: head[2:]}
	klen, vlen := d.uvarint(), d.uvarint()
	d.uvarint() // when it expires
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

// spot is where the data of a chunk begins: the number of a value log in the upper half, the offset
// in the lower. Zero is none.
type spot uint64

// find finds the chunk of a key that has want bytes, and checks it unless it was.
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

// at returns the value log of a spot that find returned, if the value is still known to be good.
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

// pointer asks Badger in which value log, and where, the entry of a key begins.
func (g *segment) pointer(key []byte) (number, at uint32, err error) {
	defer func() {
		if p := recover(); p != nil { // Badger, at something that was damaged since it was opened
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

// itemFields are the fields of badger.Item that say where a value lies. It does not tell otherwise.
var itemFields = func() (f struct{ vptr, meta []int }) {
	t := reflect.TypeFor[badger.Item]()
	vptr, ok1 := t.FieldByName("vptr")
	meta, ok2 := t.FieldByName("meta")
	if ok1 && ok2 && vptr.Type == reflect.TypeFor[[]byte]() && meta.Type == reflect.TypeFor[byte]() {
		f.vptr, f.meta = vptr.Index, meta.Index
	}
	return f
}()

// pointerOf is what an item says of the place of its value. Badger has it in memory as three
// numbers of 4 bytes: of the value log, the length of the entry, and its offset.
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
