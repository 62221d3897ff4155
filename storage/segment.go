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

// sealedName is the file that tells that a segment was closed cleanly.
const sealedName = "SEALED"

var errGone = errors.New("segment was dropped")

// segment is one generation of the store: a small Badger that is written, sealed and dropped as a whole.
type segment struct {
	id  uint32
	dir string

	written atomic.Int64 // bytes put since it was opened for writing
	size    atomic.Int64 // allocated bytes when it was measured last

	// mu guards db. It is held shared by each read and write and alone to seal or drop, because a read of a
	// closed Badger hangs.
	mu sync.RWMutex
	db *badger.DB // nil once dropped
}

func badgerOptions(dir string, log *slog.Logger) badger.Options {
	o := badger.DefaultOptions(dir)
	o.Logger = badgerLog{log.With("badger", filepath.Base(dir))}
	o.MetricsEnabled = false
	o.SyncWrites = false // the store syncs every second
	o.MemTableSize = 8 << 20
	o.NumMemtables = 2
	o.NumCompactors = 0 // a segment lives too shortly to be worth compacting
	o.NumLevelZeroTables = 1 << 20
	o.NumLevelZeroTablesStall = 1 << 21 // must be above the other, or Badger ends the process
	o.ValueThreshold = 1 << 10
	o.ValueLogFileSize = 128 << 20
	o.Compression = options.None
	o.BlockCacheSize = 0
	o.IndexCacheSize = 0
	o.DetectConflicts = false
	return o
}

// openBadger opens a Badger in managed mode. Badger panics on some damaged files: that comes back as an error.
func openBadger(o badger.Options) (db *badger.DB, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("badger panicked: %v", p)
		}
	}()
	return badger.OpenManaged(o)
}

// openSegment opens the segment in dir; a sealed one read-only.
func openSegment(id uint32, dir string, log *slog.Logger) (*segment, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	g := &segment{id: id, dir: dir}
	db, err := openBadger(badgerOptions(dir, log).WithReadOnly(g.isSealed()))
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

// seal closes the segment for writing and opens it again read-only. Reads wait meanwhile, so everything that can be done before, is.
func (g *segment) seal(log *slog.Logger) error {
	if err := g.sync(); err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.db == nil {
		return errGone
	}
	if err := g.db.Close(); err != nil {
		g.db = nil
		return fmt.Errorf("close segment %d: %w", g.id, err)
	}
	g.db = nil
	if err := os.WriteFile(filepath.Join(g.dir, sealedName), nil, 0o644); err != nil {
		return err
	}
	db, err := openBadger(badgerOptions(g.dir, log).WithReadOnly(true))
	if err != nil {
		return fmt.Errorf("open sealed segment %d: %w", g.id, err)
	}
	g.db = db
	return g.measure()
}

func (g *segment) close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.db == nil {
		return nil
	}
	err := g.db.Close()
	g.db = nil
	return err
}

// drop closes the segment and removes its folder. The folder is renamed first, so that a crash midway leaves no half segment.
func (g *segment) drop() error {
	err := g.close()
	gone := g.dir + ".dropped"
	if e := os.Rename(g.dir, gone); e != nil {
		return errors.Join(err, e)
	}
	return errors.Join(err, os.RemoveAll(gone))
}

func (g *segment) sync() error {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.db == nil {
		return nil
	}
	return g.db.Sync()
}

// put writes a value, whose data begins at valueHeader; v may be used again after it returns.
func (g *segment) put(key, v []byte, version uint64) error {
	sealValue(key, v)
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.db == nil {
		return errGone
	}
	txn := g.db.NewTransactionAt(math.MaxUint64, true)
	defer txn.Discard()
	if err := txn.SetEntry(badger.NewEntry(key, v)); err != nil {
		return fmt.Errorf("segment %d: %w", g.id, err)
	}
	if err := txn.CommitAt(version, nil); err != nil {
		return fmt.Errorf("segment %d: %w", g.id, err)
	}
	g.written.Add(int64(len(key) + len(v)))
	return nil
}

// get calls use with the checked data of a value, which it must not keep or write to a network.
func (g *segment) get(key []byte, use func(data []byte) error) error {
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
		data, err := openValue(key, v)
		if err != nil {
			return fmt.Errorf("segment %d: %w", g.id, err)
		}
		return use(data)
	})
}

// load puts every object of the segment into x, by a scan of the keys alone, and returns the highest version found.
func (g *segment) load(x *index) uint64 {
	g.mu.RLock()
	defer g.mu.RUnlock()
	txn := g.db.NewTransactionAt(math.MaxUint64, false)
	defer txn.Discard()
	it := txn.NewIterator(badger.IteratorOptions{Prefix: []byte{'m'}})
	defer it.Close()
	for it.Rewind(); it.Valid(); it.Next() {
		k := it.Item().Key()
		if len(k) != 1+len(objectID{}) {
			continue
		}
		x.put(objectID(k[1:]).slot(), place{segment: g.id, version: uint32(it.Item().Version())})
	}
	return g.db.MaxVersion()
}

// measure counts the allocated bytes of the folder. Badger's files are sparse, so their lengths say little.
func (g *segment) measure() error {
	var n int64
	err := filepath.WalkDir(g.dir, func(_ string, d fs.DirEntry, err error) error {
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
	g.size.Store(n)
	return err
}

// ignoreMissing lets a file go that Badger removed while the folder was read.
func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// badgerLog passes on what Badger has to say: its errors as warnings, because the store handles each failure itself and says so.
type badgerLog struct{ log *slog.Logger }

func (l badgerLog) Errorf(f string, a ...any)   { l.log.Warn(fmt.Sprintf(f, a...)) }
func (l badgerLog) Warningf(f string, a ...any) { l.log.Debug(fmt.Sprintf(f, a...)) }
func (l badgerLog) Infof(string, ...any)        {}
func (l badgerLog) Debugf(string, ...any)       {}
