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
	openTries       = 2 // a segment that ended the process so often while it was opened is deleted
	defaultDisk     = 10 << 30
	defaultFreeDisk = 1 << 30
	defaultRecords  = 32 << 20
)

// Options say where and how large a Store is.
type Options struct {
	Dir    string // the data folder; made if missing
	Disk   int64  // budget in bytes of allocated disk; 0 means 10 GiB
	Memory int64  // bytes of bodies in the RAM tier; 0 means none
	Floor  int64  // free bytes of the file system below which nothing is stored; 0 means 5 % of it, at most 1 GiB
	// Records bounds the purge records of URLs that clients can cause, in bytes of memory; 0 means
	// 32 MiB.
	Records int
	Log     *slog.Logger // nil means slog.Default
}

// Store is the object store; its methods may be called from any goroutine.
type Store struct {
	opt     Options
	index   *index
	purges  *purges
	ram     *otter.Cache[string, *Object] // nil without memory
	version atomic.Uint64                 // of the newest metadata record
	full    atomic.Bool                   // the disk is at its floor
	told    atomic.Int64                  // when that was logged last, in seconds since 1970
	rounds  atomic.Uint32                 // of the scrubber, one a second, from seenRounds on
	counts  counts
	lock    *os.File

	rolling  sync.Mutex // held while a new segment is begun
	dropping sync.Mutex // held while a segment is dropped

	// mu guards what follows; segments have locks of their own.
	mu       sync.RWMutex
	segments map[uint32]*segment
	held     []*segment // dropped, and still read; the oldest first
	open     [classes]*segment
	lastID   uint32
	round    chan struct{} // closed, and replaced, when the keeper has looked

	ghostMu sync.Mutex
	ghosts  *ghosts

	witness *witness

	holdMu sync.Mutex     // taken before that of purges
	holds  map[uint64]int // epochs of what is fetched and written, and how many have each

	look chan struct{} // wakes the keeper
	base context.Context
	stop context.CancelFunc
	work sync.WaitGroup // the sync loop and the keeper
}

// Open opens the store in opt.Dir, which one process can hold at a time.
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
		holds: map[uint64]int{}, look: make(chan struct{}, 1), round: make(chan struct{})}
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
				// its user keeps what it made of the data with it
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

// MaxObject is the size in bytes of the largest body that is stored.
func (s *Store) MaxObject() int64 { return s.opt.Disk / 4 }

// Close ends all work and closes the segments. What was committed is on the disk then.
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
			continue // to close it takes room; the next start takes it as after a crash
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

// Epoch is the sequence of the newest purge, to be taken before an origin is asked.
func (s *Store) Epoch() uint64 { return s.purges.current() }

// Purge makes all that matches gone, or stale if soft, from now on. It is on the disk when it
// returns its sequence.
func (s *Store) Purge(p Purge) (uint64, error) { return s.purges.add([]Purge{p}, nil, true) }

// Purged reports whether a purge after epoch covers a URL or a tag for good; a soft one does not.
func (s *Store) Purged(epoch uint64, url string, tags []string) bool {
	gone, _, _ := s.purges.covers(epoch, url, tags)
	return gone
}

// Overtaken reports whether a purge after epoch covers a URL or a tag, be it a soft one.
func (s *Store) Overtaken(epoch uint64, url string, tags []string) bool {
	gone, stale, _ := s.purges.covers(epoch, url, tags)
	return gone || stale
}

// Invalidate does what Purge does, but does not wait for the disk: a power loss may undo it. It is
// for what clients cause. The records of URLs stay until all older objects have gone, so that there
// is a bound to those: over it the objects with keys are removed instead, which covers neither
// other objects of the URLs nor fetches that are under way.
func (s *Store) Invalidate(p Purge, keys ...string) error {
	if s.purges.crowded(p.URLs, cmp.Or(s.opt.Records, defaultRecords)) {
		for _, key := range keys {
			if err := s.bury(key); err != nil {
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

// bury replaces the object of a key by one without data, which is none to whoever reads it, also
// after a restart.
func (s *Store) bury(key string) error {
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

// Apply is Purge for some purges of a log that other stores follow too. They and the position after
// them become durable together, but not at once: a power loss may undo both, and then the log has
// them still.
func (s *Store) Apply(purges []Purge, after Position) error {
	_, err := s.purges.add(purges, &after, false)
	return err
}

// Position is the place in such a log that was applied last.
func (s *Store) Position() Position {
	s.purges.mu.RLock()
	defer s.purges.mu.RUnlock()
	return s.purges.position
}

// Forget makes the object of a key a miss, until the next start at most: it is for what is found to
// be of no use, not for purges.
func (s *Store) Forget(key string) {
	slot := idOf(key).slot()
	if p, ok := s.index.get(slot); ok {
		s.index.remove(slot, p)
	}
}

// Get looks an object up; nil is a miss. A damaged object is a miss too.
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
	if stale {
		o = &Object{Stale: true, Suspect: suspect, store: s, meta: o.meta, place: p, body: o.body, memo: o.memo,
			spots: o.spots}
	}
	return o
}

// Hits is how often the object of a key was hit since it was written, of which only the first few
// are counted. It counts no hit itself.
func (s *Store) Hits(key string) uint8 {
	_, hits := s.index.hits(idOf(key).slot())
	return hits
}

// Hot is Get for an object of the RAM tier; it returns nil for any other. It counts no hit, so that
// Get may follow: Hit does.
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

// cached finds an object in the RAM tier, if it is still the newest of its key.
func (s *Store) cached(key string, p place) *Object {
	if s.ram == nil {
		return nil
	}
	if o, ok := s.ram.GetIfPresent(key); ok && o.place == p {
		return o
	}
	return nil
}

// maxCopied is the size in bytes of the largest body of the RAM tier where bodies can be sent from
// their files. A larger one costs less from there, as nothing is copied, and the page cache has it.
const maxCopied = 64 << 10

// maxInRAM is the size in bytes of the largest body of the RAM tier: a small part of it, so that
// none makes many others go.
func (s *Store) maxInRAM() int64 {
	limit := max(min(chunkSize, s.opt.Memory/64), min(8<<20, s.opt.Memory/256))
	if canPlace {
		limit = min(limit, maxCopied)
	}
	return limit
}

// ramHits is how often an object is hit before it goes to the RAM tier.
const ramHits = 2

// read reads an object's metadata. If it is hit again it goes to the RAM tier then, with the body
// if that is small enough.
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
	if o.meta.size <= s.maxInRAM() {
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

// discard forgets an object that could not be read.
func (s *Store) discard(o *Object, err error) {
	s.index.remove(idOf(o.meta.key).slot(), o.place)
	if errors.Is(err, errGone) {
		return
	}
	s.counts.damaged.Add(1)
	s.opt.Log.Warn("object is damaged and forgotten", "key", o.meta.key, "segment", o.place.segment, "error", err)
}

// Update replaces an object's data without its body being written again; the object counts as
// fetched at epoch. It returns what Get will find.
func (s *Store) Update(o *Object, epoch uint64, tags []string, data []byte) (*Object, error) {
	m := *o.meta
	m.epoch, m.tags, m.data, m.stored = epoch, tags, data, time.Now()
	c := probation
	if g := s.segment(o.place.segment); g != nil {
		c = g.class
	}
	return s.putMeta(c, &m)
}

// putMeta writes the record that makes an object exist. It fails with ErrOvertaken if nobody knows
// any more whether the object was purged.
func (s *Store) putMeta(c class, m *meta) (*Object, error) {
	return s.putObject(c, m, idOf(m.key), nil)
}

// putObject is putMeta for an object whose last chunk is not stored yet, if rest is not nil. Both
// become durable together. rest has the chunk's data from valueHeader on.
func (s *Store) putObject(c class, m *meta, id objectID, rest []byte) (*Object, error) {
	hold := s.Hold(m.epoch)
	if hold == nil {
		return nil, fmt.Errorf("store %s: %w", m.key, ErrOvertaken)
	}
	defer hold.Release()
	version, extents := s.version.Add(1), m.extents
	g, err := s.put(c, version, m.epoch, false, func(g *segment) []record {
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
	p := place{segment: g.id, version: uint32(version)}
	s.index.put(id.slot(), p)
	return &Object{store: s, meta: m, place: p}, nil
}
