package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"sync"

	"github.com/dgraph-io/badger/v4"
)

// Purge says what is to be forgotten. An object matches if any of the parts does.
type Purge struct {
	URLs     []string // objects whose Header.URL is equal
	Prefixes []string // objects whose Header.URL begins so
	Tags     []string // objects that carry the tag
	All      bool
	Soft     bool // what matches becomes stale instead of gone
}

// Kinds of purge records.
const (
	purgeURL    = 'u'
	purgePrefix = 'p'
	purgeTag    = 't'
	purgeAll    = 'a'
	purgeSeq    = 's' // the newest sequence
)

// epochs are the sequences of the newest hard and soft purge of one thing.
type epochs struct{ hard, soft uint64 }

// purges is the log of purge records: durable in a Badger of its own, whole in memory.
type purges struct {
	db *badger.DB

	writing sync.Mutex // held over a whole add, so that sequences reach the disk in order

	mu       sync.RWMutex
	seq      uint64
	all      epochs
	urls     map[string]epochs
	tags     map[string]epochs
	prefixes map[string]epochs
	lengths  []int // the distinct lengths of prefixes, ascending
}

func openPurges(dir string, log *slog.Logger) (*purges, error) {
	o := badgerOptions(dir, log)
	o.SyncWrites = false // add syncs where it promises to
	o.MemTableSize = 2 << 20
	o.ValueLogFileSize = 1 << 20
	o.NumCompactors = 2
	o.NumLevelZeroTables = 5
	o.NumLevelZeroTablesStall = 15
	db, err := openBadger(o)
	if err != nil {
		return nil, fmt.Errorf("open the purge log: %w", err)
	}
	p := &purges{db: db, urls: map[string]epochs{}, tags: map[string]epochs{}, prefixes: map[string]epochs{}}
	if err := p.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("read the purge log: %w", err), db.Close())
	}
	return p, nil
}

func (p *purges) load() error {
	txn := p.db.NewTransactionAt(math.MaxUint64, false)
	defer txn.Discard()
	it := txn.NewIterator(badger.DefaultIteratorOptions)
	defer it.Close()
	for it.Rewind(); it.Valid(); it.Next() {
		key := it.Item().KeyCopy(nil)
		err := it.Item().Value(func(v []byte) error {
			data, err := openValue(key, v)
			if err != nil || len(data) != 16 {
				return errDamaged
			}
			e := epochs{binary.BigEndian.Uint64(data), binary.BigEndian.Uint64(data[8:])}
			if key[0] == purgeSeq {
				p.seq = max(p.seq, e.hard)
			} else {
				p.set(key[0], string(key[1:]), e)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// set records e in memory; the caller holds mu or is the only one that knows p.
func (p *purges) set(kind byte, value string, e epochs) {
	switch kind {
	case purgeURL:
		p.urls[value] = e
	case purgeTag:
		p.tags[value] = e
	case purgePrefix:
		p.prefixes[value] = e
		if i, ok := slices.BinarySearch(p.lengths, len(value)); !ok {
			p.lengths = slices.Insert(p.lengths, i, len(value))
		}
	case purgeAll:
		p.all = e
	}
}

func (p *purges) get(kind byte, value string) epochs {
	switch kind {
	case purgeURL:
		return p.urls[value]
	case purgeTag:
		return p.tags[value]
	case purgePrefix:
		return p.prefixes[value]
	}
	return p.all
}

// add appends a purge and returns its sequence. With sync it is on the disk when add returns; it is in effect either way.
func (p *purges) add(g Purge, sync bool) (uint64, error) {
	p.writing.Lock()
	defer p.writing.Unlock()

	type record struct {
		kind  byte
		value string
		e     epochs
	}
	var records []record
	p.mu.RLock()
	seq := p.seq + 1
	collect := func(kind byte, values ...string) {
		for _, v := range values {
			e := p.get(kind, v)
			if g.Soft {
				e.soft = seq
			} else {
				e.hard = seq
			}
			records = append(records, record{kind, v, e})
		}
	}
	collect(purgeURL, g.URLs...)
	collect(purgePrefix, g.Prefixes...)
	collect(purgeTag, g.Tags...)
	if g.All {
		collect(purgeAll, "")
	}
	p.mu.RUnlock()
	records = append(records, record{purgeSeq, "", epochs{hard: seq}})

	batch := p.db.NewWriteBatchAt(seq)
	defer batch.Cancel()
	for _, r := range records {
		key := append([]byte{r.kind}, r.value...)
		v := make([]byte, valueHeader, valueHeader+16)
		v = binary.BigEndian.AppendUint64(v, r.e.hard)
		v = binary.BigEndian.AppendUint64(v, r.e.soft)
		sealValue(key, v)
		if err := batch.Set(key, v); err != nil {
			return 0, fmt.Errorf("write a purge record: %w", err)
		}
	}
	if err := batch.Flush(); err != nil {
		return 0, fmt.Errorf("write a purge record: %w", err)
	}
	if sync {
		if err := p.db.Sync(); err != nil {
			return 0, fmt.Errorf("sync the purge log: %w", err)
		}
	}

	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range records {
		if r.kind != purgeSeq {
			p.set(r.kind, r.value, r.e)
		}
	}
	p.seq = seq
	return seq, nil
}

// current returns the newest sequence: the epoch of a fetch that begins now.
func (p *purges) current() uint64 {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.seq
}

// covers tells whether an object with this epoch was purged since, hard or soft.
func (p *purges) covers(epoch uint64, url string, tags []string) (gone, stale bool) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if epoch >= p.seq {
		return false, false
	}
	e := p.all
	e.raise(p.urls[url])
	for _, t := range tags {
		e.raise(p.tags[t])
	}
	for _, n := range p.lengths {
		if n > len(url) {
			break
		}
		e.raise(p.prefixes[url[:n]])
	}
	return e.hard > epoch, e.soft > epoch
}

func (e *epochs) raise(f epochs) {
	e.hard = max(e.hard, f.hard)
	e.soft = max(e.soft, f.soft)
}
