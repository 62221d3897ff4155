package storage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"
)

const (
	minSegment      = 1 << 20
	syncInterval    = time.Second
	openTries       = 2 // a segment is deleted after it has ended the process so often while being opened
	defaultDisk     = 10 << 30
	defaultFreeDisk = 1 << 30
	defaultRecords  = 32 << 20
)

// Options are the options of a Store.
type Options struct {
	Dir    string // the data folder; made if missing
	Disk   int64  // budget in bytes of allocated disk; 0 means 10 GiB
	Memory int64  // bytes of bodies in the RAM tier; 0 means none
	Floor  int64  // free bytes below which nothing is stored; 0 means 5 % of the file system, at most 1 GiB
	// Records bounds the memory in bytes of the purge records of URLs, which clients can cause; 0
	// means 32 MiB.
	Records int
	Log     *slog.Logger // nil means slog.Default
}

// Store is the object store. Its methods may be called from any goroutine.
type Store struct {
	opt     Options
	index   *index
	purges  *purges
	ram     *otter.Cache[string, *Object] // nil without memory
	version atomic.Uint64                 // of the newest metadata record
	full    atomic.Bool                   // the disk is at its floor
	told    atomic.Int64                  // when full was last logged, in seconds since 1970
	rounds  atomic.Uint32                 // rounds of the scrubber, one a second, counted from seenRounds
	counts  counts
	lock    *os.File

	rolling  sync.Mutex // held while a new segment is begun
	dropping sync.Mutex // held while a segment is dropped

	// mu guards the following fields. Segments have locks of their own.
	mu       sync.RWMutex
	segments map[uint32]*segment
	held     []*segment // dropped and still read, the oldest first
	open     [classes]*segment
	lastID   uint32
	round    chan struct{} // closed and replaced after each round of the keeper

	ghostMu sync.Mutex
	ghosts  *ghosts
	whatIf  *whatIf

	witness *witness

	holdMu sync.Mutex     // locked before the mutex of purges
	holds  map[uint64]int // number of fetches and writers by epoch

	look chan struct{} // wakes the keeper
	base context.Context
	stop context.CancelFunc
	work sync.WaitGroup // the sync loop and the keeper
}

// Open opens the store in opt.Dir. It fails if another process has that store open.
func Open(opt Options) (*Store, error) {
	if opt.Disk == 0 {
		opt.Disk = defaultDisk
	}
	if opt.Log == nil {
		opt.Log = slog.Default()
	}
	if err := makeFolder(opt.Dir); err != nil {
		return nil, fmt.Errorf("make the data folder: %w", err)
	}
	lock, err := lockDir(opt.Dir)
	if err != nil {
		return nil, err
	}
	s := &Store{opt: opt, index: newIndex(), lock: lock, segments: map[uint32]*segment{}, ghosts: newGhosts(opt.Disk),
		holds: map[uint64]int{}, look: make(chan struct{}, 1), round: make(chan struct{}),
		whatIf: newWhatIf(opt.Disk, opt.Memory, time.Now())}
	if err := s.start(); err != nil {
		return nil, errors.Join(fmt.Errorf("open the store in %s: %w", opt.Dir, err), s.release())
	}
	s.rounds.Store(seenRounds)
	s.base, s.stop = context.WithCancel(context.Background())
	s.work.Go(func() { s.syncLoop(s.base) })
	s.work.Go(func() { s.keep(s.base) })
	s.work.Go(func() { s.scrubLoop(s.base) })
	s.wake()
	return s, nil
}

func (s *Store) start() error {
	if err := checkFormat(s.opt.Dir, s.opt.Log); err != nil {
		return err
	}
	if s.opt.Memory > 0 {
		ram, err := otter.New(&otter.Options[string, *Object]{
			MaximumWeight: uint64(s.opt.Memory),
			Weigher: func(k string, o *Object) uint32 {
				// the value of Memo takes memory too
				return uint32(len(o.body) + 8*len(o.spots) + 6*len(o.meta.data) + 2*len(k) + 512)
			},
		})
		if err != nil {
			return err
		}
		s.ram = ram
	}
	if err := s.openRecords(); err != nil {
		return err
	}
	if err := s.openSegments(); err != nil {
		return err
	}
	for c := range classes {
		if s.open[c] == nil {
			if err := s.begin(c); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Store) segmentDir(id uint32, c class) string {
	return filepath.Join(s.opt.Dir, "segments", fmt.Sprintf("%08d.%s", id, c))
}

func (s *Store) segmentSize() int64 { return max(s.opt.Disk/segmentCount, minSegment) }

// MaxObject returns the size in bytes of the largest body that can be stored: a quarter of the
// budget.
func (s *Store) MaxObject() int64 { return s.opt.Disk / 4 }

// Close closes the store. All committed objects are on the disk then.
func (s *Store) Close() error {
	s.stop()
	s.work.Wait()
	return s.release()
}

func (s *Store) release() error {
	var errs []error
	s.mu.Lock()
	held := slices.Clone(s.held)
	s.mu.Unlock()
	for _, g := range held {
		_ = g.close() // as in removeFolder
	}
	for _, g := range s.segments {
		if !g.isSealed() && s.checkFloor() {
			continue // closing needs free space; the next start opens it as after a crash
		}
		errs = append(errs, g.close())
	}
	if s.purges != nil {
		errs = append(errs, s.purges.close())
	}
	if s.witness != nil {
		errs = append(errs, s.witness.close())
	}
	if s.ram != nil {
		s.ram.StopAllGoroutines()
	}
	return errors.Join(append(errs, s.lock.Close())...)
}

// Epoch returns the sequence of the newest purge. Callers get it before they send a request to the
// origin.
func (s *Store) Epoch() uint64 { return s.purges.current() }

// Purge removes all matching objects, or makes them stale if the purge is soft. When it returns the
// purge's sequence, the purge is on the disk.
func (s *Store) Purge(p Purge) (uint64, error) { return s.purges.add([]Purge{p}, nil, true) }

// Purged reports whether a hard purge after epoch covers a URL or a tag.
func (s *Store) Purged(epoch uint64, url string, tags []string) bool {
	gone, _, _ := s.purges.covers(epoch, url, tags)
	return gone
}

// Overtaken reports whether a hard or soft purge after epoch covers a URL or a tag.
func (s *Store) Overtaken(epoch uint64, url string, tags []string) bool {
	gone, stale, _ := s.purges.covers(epoch, url, tags)
	return gone || stale
}

// Invalidate is Purge for requests of clients. It doesn't wait for the disk, so a power loss may
// undo it. The records of URLs stay until all older objects are gone, so Options.Records bounds
// them. Over that bound, Invalidate removes only the objects with these keys: other objects of the
// URLs, and fetches under way, are not covered.
func (s *Store) Invalidate(p Purge, keys ...string) error {
	if s.purges.crowded(p.URLs, cmp.Or(s.opt.Records, defaultRecords)) {
		for _, key := range keys {
			if err := s.writeTombstone(key); err != nil {
				return err
			}
		}
		if p.URLs = nil; len(p.Tags)+len(p.Prefixes) == 0 && !p.All {
			return nil
		}
	}
	_, err := s.purges.add([]Purge{p}, nil, false)
	return err
}

// writeTombstone replaces the object of a key by an object without data, which counts as missing.
// It stays so after a restart.
func (s *Store) writeTombstone(key string) error {
	o := s.Get(key)
	if o == nil {
		return nil
	}
	_, err := s.Create(Header{Key: key, URL: o.meta.url, Epoch: s.Epoch()}).Commit(nil, nil)
	if errors.Is(err, ErrOvertaken) { // between the epoch and the hold
		_, err = s.Create(Header{Key: key, URL: o.meta.url, Epoch: s.Epoch()}).Commit(nil, nil)
	}
	s.Forget(key)
	if err != nil {
		return fmt.Errorf("remove %s: %w", key, err)
	}
	return nil
}

// Apply is Purge for purges of a log that other stores follow too. The purges and the position
// after them become durable together, but not at once. If a power loss undoes both, the log still
// has the purges.
func (s *Store) Apply(purges []Purge, after Position) error {
	_, err := s.purges.add(purges, &after, false)
	return err
}

// Position returns the position that Apply set last.
func (s *Store) Position() Position {
	s.purges.mu.RLock()
	defer s.purges.mu.RUnlock()
	return s.purges.position
}

// Forget removes the object of a key. A restart may bring the object back, so Forget is for useless
// objects, and not for purges.
func (s *Store) Forget(key string) {
	slot := idOf(key).slot()
	if p, ok := s.index.get(slot); ok {
		s.index.remove(slot, p)
	}
}

// Get returns the object of a key, or nil if it is missing or damaged.
func (s *Store) Get(key string) *Object {
	id := idOf(key)
	p, hits, ok := s.index.hit(id.slot())
	if !ok {
		return nil
	}
	o := s.cached(key, p)
	if o == nil {
		if o = s.read(key, id, p, hits); o == nil {
			return nil
		}
	}
	gone, stale, suspect := s.purges.covers(o.meta.epoch, o.meta.url, o.meta.tags)
	if gone {
		s.index.remove(id.slot(), p)
		return nil
	}
	s.whatIf.request(id.slot(), o.meta.size)
	if stale {
		o = &Object{Stale: true, Suspect: suspect, store: s, meta: o.meta, place: p, body: o.body, memo: o.memo,
			spots: o.spots}
	}
	return o
}

// Hits returns the number of hits of a key's object since the object was written, counted up to a
// small maximum. Hits doesn't count as a hit.
func (s *Store) Hits(key string) uint8 {
	_, hits := s.index.hits(idOf(key).slot())
	return hits
}

// Hot is Get for objects of the RAM tier. It returns nil for others. It doesn't count a hit,
// because the caller may call Get next; Object.Hit does.
func (s *Store) Hot(key string) *Object {
	slot := idOf(key).slot()
	p, ok := s.index.get(slot)
	if !ok {
		return nil
	}
	o := s.cached(key, p)
	if o == nil {
		return nil
	}
	gone, stale, _ := s.purges.covers(o.meta.epoch, o.meta.url, o.meta.tags)
	if gone || stale {
		return nil
	}
	return o
}

// cached returns the object of a key from the RAM tier, if it is still the newest, or nil.
func (s *Store) cached(key string, p place) *Object {
	if s.ram == nil {
		return nil
	}
	if o, ok := s.ram.GetIfPresent(key); ok && o.place == p {
		return o
	}
	return nil
}

// maxCopied is the size in bytes of the largest body of the RAM tier on systems that send bodies
// from their files. Sending a larger body from the page cache costs less, because nothing is
// copied.
const maxCopied = 64 << 10

// maxInRAM returns the size in bytes of the largest body of the RAM tier. It is a small part of the
// tier, so that one body doesn't displace many others.
func (s *Store) maxInRAM() int64 {
	limit := max(min(chunkSize, s.opt.Memory/64), min(8<<20, s.opt.Memory/256))
	if canPlace {
		limit = min(limit, maxCopied)
	}
	return limit
}

// ramHits is the number of hits after which an object goes to the RAM tier.
const ramHits = 2

// read reads an object's metadata. After ramHits hits, the object goes to the RAM tier, with its
// body if that is small enough.
func (s *Store) read(key string, id objectID, p place, hits uint8) *Object {
	o := &Object{store: s, place: p, meta: &meta{key: key}}
	g := s.segment(p.segment)
	if g == nil {
		s.index.remove(id.slot(), p)
		return nil
	}
	err := g.get(metaKey(id), func(data []byte) (err error) {
		o.meta, err = parseMeta(data)
		return err
	})
	if err != nil {
		o.meta = &meta{key: key}
		s.discard(o, err)
		return nil
	}
	if o.meta.key != key {
		return nil
	}
	for _, e := range o.meta.extents {
		if s.segment(e.segment) == nil {
			s.index.remove(id.slot(), p)
			return nil
		}
	}
	if s.ram == nil || hits < ramHits {
		return o
	}
	if o.meta.body != nil {
		o.body = o.meta.body
	} else if o.meta.size <= s.maxInRAM() {
		body := make([]byte, o.meta.size)
		for off := int64(0); off < o.meta.size; off += chunkSize {
			if _, err := o.readChunk(uint32(off/chunkSize), 0, body[off:min(off+chunkSize, o.meta.size)]); err != nil {
				return nil
			}
		}
		o.body = body
	} else {
		o.spots = make([]atomic.Uint64, (o.meta.size+chunkSize-1)/chunkSize)
	}
	o.memo, o.slot = new(atomic.Value), id.slot()
	s.ram.Set(key, o)
	return o
}

// discard removes an object that could not be read.
func (s *Store) discard(o *Object, err error) {
	s.index.remove(idOf(o.meta.key).slot(), o.place)
	if errors.Is(err, errGone) {
		return
	}
	s.counts.damaged.Add(1)
	s.opt.Log.Warn("object is damaged and forgotten", "key", o.meta.key, "segment", o.place.segment, "error", err)
}

// Update replaces an object's data, tags and epoch. It doesn't write the body again, unless that is
// part of the metadata. It returns the updated object.
func (s *Store) Update(o *Object, epoch uint64, tags []string, data []byte) (*Object, error) {
	m := *o.meta
	m.epoch, m.tags, m.data, m.stored = epoch, tags, data, time.Now()
	c := probation
	if g := s.segment(o.place.segment); g != nil {
		c = g.class
	}
	return s.putMeta(c, &m)
}

// putMeta writes the record that makes an object exist. It returns ErrOvertaken if purges are
// forgotten that may cover the object.
func (s *Store) putMeta(c class, m *meta) (*Object, error) {
	return s.putObject(c, m, idOf(m.key), nil)
}
