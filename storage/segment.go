package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
)

// sealedName is the file that shows that a segment was closed cleanly.
const sealedName = "SEALED"

// epochName is the file that holds the lowest epoch of a segment's objects, in decimal.
const epochName = "EPOCH"

var errGone = errors.New("segment was dropped")

// recordOverhead is how many bytes Badger adds to a record on the disk: headers, index, Bloom
// filter, and the log of records that are not in a table yet.
const recordOverhead = 96

// valueLogSize is the size in bytes at which Badger begins another value log.
const valueLogSize = 128 << 20

// segment is a small Badger that is written, sealed and dropped as a whole.
type segment struct {
	id    uint32
	class class
	dir   string
	log   *slog.Logger

	written atomic.Int64 // bytes put since it was opened for writing
	size    atomic.Int64 // allocated bytes at the last measurement
	settled int64        // value of written at the last sync; for the sync loop

	lowering sync.Mutex    // held while epoch is lowered
	epoch    atomic.Uint64 // the lowest of its objects; purges up to it don't cover them

	commits commits
	window  window // of the leading put, and of who holds mu alone
	files   valueFiles

	pinMu   sync.Mutex  // guards the following fields except revoked
	pins    int         // number of Readers that use it
	closed  bool        // its value logs may still be open
	dropped bool        // it is removed when pins becomes 0
	onGone  func(error) // called then
	revoked atomic.Bool // Readers must end

	// mu guards db. It is held shared by each read and write and alone to seal or drop, because a
	// read of a closed Badger hangs.
	mu sync.RWMutex
	db *badger.DB // nil once dropped
}

// badgerOptions returns the options of a Badger for about size bytes.
func badgerOptions(dir string, size int64, log *slog.Logger) badger.Options {
	o := badger.DefaultOptions(dir)
	o.Logger = badgerLog{log.With("badger", filepath.Base(dir))}
	o.MetricsEnabled = false
	o.SyncWrites = false // the store syncs every second
	o.MemTableSize = max(1<<20, min(8<<20, size/2))
	o.NumMemtables = 2
	o.NumCompactors = 0 // compacting doesn't pay in the short life of a segment
	o.NumLevelZeroTables = 1 << 20
	o.NumLevelZeroTablesStall = 1 << 21 // must be above the other, or Badger ends the process
	o.ValueThreshold = 64               // larger values go to a value log, and not to a table too
	o.ValueLogFileSize = valueLogSize
	o.ValueLogMaxEntries = math.MaxUint32
	o.Compression = options.None
	o.BlockCacheSize = 0
	o.IndexCacheSize = 0
	o.DetectConflicts = false
	return o
}

// openBadger opens a Badger in managed mode. If Badger panics because of a damaged file, openBadger
// returns an error.
func openBadger(o badger.Options) (db *badger.DB, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("badger panicked: %v", p)
		}
	}()
	return badger.OpenManaged(o)
}

// openSegment opens the segment in dir; a sealed one read-only.
func openSegment(id uint32, c class, dir string, size int64, log *slog.Logger) (*segment, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	g := &segment{id: id, class: c, dir: dir, log: log, files: valueFiles{dir: dir}}
	g.epoch.Store(math.MaxUint64)
	if b, err := os.ReadFile(filepath.Join(dir, epochName)); err == nil {
		var epoch uint64 // stays 0 if the file is damaged; then no purge record is forgotten
		_, _ = fmt.Sscan(string(b), &epoch)
		g.epoch.Store(epoch)
	}
	if err := checkTables(dir); err != nil {
		return nil, fmt.Errorf("open segment %d: %w", id, err)
	}
	db, err := openBadger(badgerOptions(dir, size, log).WithReadOnly(g.isSealed()))
	if err != nil {
		return nil, fmt.Errorf("open segment %d: %w", id, err)
	}
	g.db = db
	if err := g.measure(); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	g.written.Store(g.size.Load())
	return g, nil
}

func (g *segment) isSealed() bool {
	_, err := os.Stat(filepath.Join(g.dir, sealedName))
	return err == nil
}

// seal closes the segment for writing, and opens it again read-only. Reads wait meanwhile, so seal
// does as much as possible before.
func (g *segment) seal() error {
	if err := g.sync(); err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.db == nil {
		return errGone
	}
	if err := errors.Join(g.window.close(), g.db.Close()); err != nil {
		g.db = nil
		return fmt.Errorf("close segment %d: %w", g.id, err)
	}
	g.db = nil
	if err := writeSynced(filepath.Join(g.dir, sealedName), nil); err != nil {
		return err
	}
	db, err := openBadger(badgerOptions(g.dir, 0, g.log).WithReadOnly(true))
	if err != nil {
		return fmt.Errorf("open sealed segment %d: %w", g.id, err)
	}
	g.db = db
	return g.measure()
}

// close closes the segment. Its value logs stay open while a Reader pins it.
func (g *segment) close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	var err error
	if g.db != nil {
		err = errors.Join(g.window.close(), g.db.Close())
		g.db = nil
	}
	g.pinMu.Lock()
	defer g.pinMu.Unlock()
	g.closed = true
	if g.pins == 0 {
		err = errors.Join(err, g.files.close())
	}
	return err
}

// pin keeps the segment until unpin. It reports false if the segment is dropped or closed.
func (g *segment) pin() bool {
	g.pinMu.Lock()
	defer g.pinMu.Unlock()
	if g.dropped || g.closed {
		return false
	}
	g.pins++
	return true
}

// unpin ends a pin. The last unpin of a dropped segment removes it.
func (g *segment) unpin() {
	g.pinMu.Lock()
	g.pins--
	last, gone := g.pins == 0 && (g.dropped || g.closed), g.onGone
	g.pinMu.Unlock()
	switch {
	case !last:
	case gone != nil:
		gone(g.removeFolder())
	default:
		_ = g.files.close() // they were read only
	}
}

// drop takes the segment out of use, and calls gone when the folder is removed. With keep, a sealed
// segment is removed when its last Reader unpins it. drop renames the folder first, so that a crash
// leaves no incomplete segment.
func (g *segment) drop(keep bool, gone func(error)) {
	g.pinMu.Lock()
	g.dropped = true // it can't be pinned any more
	held := g.pins > 0
	g.pinMu.Unlock()
	var err error
	if !held || !keep || !g.isSealed() {
		g.revoked.Store(true)
		err = g.close()
	}
	to := g.dir + ".dropped"
	err = errors.Join(err, os.Rename(g.dir, to))
	g.files.move(to)
	g.pinMu.Lock()
	if held = g.pins > 0; held {
		g.onGone = func(e error) { gone(errors.Join(err, e)) }
	}
	g.pinMu.Unlock()
	if !held {
		gone(errors.Join(err, g.removeFolder()))
	}
}

// removeFolder closes a dropped segment, and removes its folder.
func (g *segment) removeFolder() error {
	_ = g.close() // an error doesn't matter: a Badger that is still open doesn't find its folder
	return os.RemoveAll(g.dir + ".dropped")
}

func (g *segment) sync() error {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.db == nil {
		return nil
	}
	return errors.Join(g.window.sync(), g.db.Sync())
}

// settle syncs the written bytes to the disk, and measures the folder. It does nothing if nothing
// was written since the last call.
func (g *segment) settle() error {
	n := g.written.Load()
	if n == g.settled {
		return nil
	}
	if err := errors.Join(g.sync(), g.measure()); err != nil {
		return err
	}
	g.settled = n
	return nil
}

// get calls use with the checked data of a value, which it must not keep or write to a network.
func (g *segment) get(key []byte, use func(data []byte) error) error {
	return g.getVersion(key, func(data []byte, _ uint64) error { return use(data) })
}

// getVersion is get with the value's version.
func (g *segment) getVersion(key []byte, use func(data []byte, version uint64) error) error {
	return g.value(key, func(v []byte, version uint64) error {
		data, err := openValue(key, v)
		if err != nil {
			return err
		}
		return use(data, version)
	})
}

// value calls use with a value as it is, unchecked.
func (g *segment) value(key []byte, use func(v []byte, version uint64) error) (err error) {
	defer func() {
		if p := recover(); p != nil { // of Badger, if a file was damaged since it was opened
			err = fmt.Errorf("segment %d: %v: %w", g.id, p, errDamaged)
		}
	}()
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.db == nil {
		return errGone
	}
	txn := g.db.NewTransactionAt(math.MaxUint64, false)
	defer txn.Discard()
	item, err := txn.Get(key)
	if err != nil {
		return fmt.Errorf("segment %d: %w", g.id, err)
	}
	return item.Value(func(v []byte) error {
		if err := populate(v); err != nil {
			return fmt.Errorf("segment %d: %w: %w", g.id, err, errDamaged)
		}
		if err := use(v, item.Version()); err != nil {
			return fmt.Errorf("segment %d: %w", g.id, err)
		}
		return nil
	})
}

// load puts every object of the segment into x, and returns the highest version found.
func (g *segment) load(x *index) uint64 {
	var newest uint64
	for _, o := range g.objects() {
		x.put(o.id.slot(), place{segment: g.id, version: uint32(o.version)})
		newest = max(newest, o.version)
	}
	return newest
}

// lower lowers the epoch of the segment to that of an object. When it returns, the epoch is on the
// disk, so that a start need not read every object.
func (g *segment) lower(epoch uint64) error {
	if g.epoch.Load() <= epoch {
		return nil
	}
	g.lowering.Lock()
	defer g.lowering.Unlock()
	if g.epoch.Load() <= epoch {
		return nil
	}
	name := filepath.Join(g.dir, epochName)
	if err := writeSynced(name, fmt.Appendf(nil, "%d\n", epoch)); err != nil {
		return err
	}
	g.epoch.Store(epoch)
	return nil
}

// written is an object whose metadata was written to a segment.
type written struct {
	id      objectID
	version uint64
}

// objects lists every object whose metadata was ever written here, by a scan of the keys.
func (g *segment) objects() []written {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.db == nil {
		return nil
	}
	txn := g.db.NewTransactionAt(math.MaxUint64, false)
	defer txn.Discard()
	it := txn.NewIterator(badger.IteratorOptions{Prefix: []byte{'m'}})
	defer it.Close()
	var out []written
	for it.Rewind(); it.Valid(); it.Next() {
		if k := it.Item().Key(); len(k) == 1+len(objectID{}) {
			out = append(out, written{objectID(k[1:]), it.Item().Version()})
		}
	}
	return out
}

// measure counts the allocated bytes of the folder.
func (g *segment) measure() error {
	n, err := allocated(g.dir)
	g.size.Store(n)
	return err
}

// allocated counts the allocated bytes of a folder. Badger's files are sparse, so their lengths say
// little.
func allocated(dir string) (n int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return ignoreMissing(err)
		}
		info, err := d.Info()
		if err != nil {
			return ignoreMissing(err)
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			n += st.Blocks * 512
		}
		return nil
	})
	return n, err
}

// ignoreMissing returns nil for the error of a missing file, because Badger may have removed the
// file while the folder was read.
func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// badgerLog logs the messages of Badger. It logs Badger's errors as warnings, because the store
// handles and logs each failure itself.
type badgerLog struct{ log *slog.Logger }

func (l badgerLog) Errorf(f string, a ...any)   { l.log.Warn(fmt.Sprintf(f, a...)) }
func (l badgerLog) Warningf(f string, a ...any) { l.log.Debug(fmt.Sprintf(f, a...)) }
func (l badgerLog) Infof(string, ...any)        {}
func (l badgerLog) Debugf(string, ...any)       {}
