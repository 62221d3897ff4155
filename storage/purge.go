package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"

	"github.com/dgraph-io/badger/v4"
)

// Purge is a purge of the objects that match any of its fields.
type Purge struct {
	URLs     []string // objects whose Header.URL is one of these
	Prefixes []string // objects whose Header.URL begins with one of these
	Tags     []string // objects with one of these tags
	All      bool     // all objects
	Soft     bool     // make objects stale instead of removing them
	// Suspect, with All, marks all objects as stale and suspect: the store may have missed a purge
	// of them, so they must not be used before the origin has validated them.
	Suspect bool
}

// MaxPurgeValue bounds each URL, prefix and tag of a purge, in bytes. A key of Badger has 65,000.
const MaxPurgeValue = 16 << 10

// Kinds of purge records.
const (
	purgeURL     = 'u'
	purgePrefix  = 'p'
	purgeTag     = 't'
	purgeAll     = 'a'
	purgeSeq     = 's' // the newest sequence
	purgeSuspect = 'd' // of everything
	purgeLog     = 'l' // the Position
	purgeClean   = 'c' // the log was closed; while it is open there is none
	purgeFloor   = 'f' // the newest sequence of a record that was forgotten
	purgeMark    = 'm' // the Position's Mark, see markKey
)

// lostSequences is how many sequences are skipped if the log was not closed. Purges that did not
// reach the disk may have had some of them, and stored objects may have these as epochs.
const lostSequences = 1 << 20

// Position is a place in a log of purges that several stores follow. The zero value is before all
// logs.
type Position struct {
	Log  uint64 // identifies the log
	Seq  uint64 // sequence of the newest purge that was applied
	Mark uint64 // tells that purge from another with the same sequence; 0 means unknown
}

// markKey returns the key of the record of a Mark. The mark is in the key because earlier versions
// take the numbers in a record's value for sequences. They ignore the key.
func (p Position) markKey() string {
	return string(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, p.Seq), p.Mark))
}

// purges is the log of purge records. It is durable in a Badger of its own, and all of it is in
// memory.
type purges struct {
	db *badger.DB

	writing sync.Mutex // held over a whole add, so that sequences reach the disk in order
	marked  string     // markKey that is on disk; guarded by writing

	mu       sync.RWMutex
	seq      uint64
	floor    uint64 // the newest sequence of a forgotten record; older objects count as gone
	position Position
	all      epochs
	suspect  uint64
	urls     map[string]epochs
	urlBytes int // approximate size of urls in memory
	tags     map[string]epochs
	prefixes map[string]epochs
	lengths  []int               // the distinct lengths of prefixes, ascending
	hashes   map[uint64]struct{} // of prefixes; a look-up skips most lengths by them

	dir     string
	size    atomic.Int64 // allocated bytes
	witness *witness     // records what has reached the disk

	// When the log was opened: its newest sequence, the sequence that the witness expected, and
	// whether records were lost.
	known, expected uint64
	lost            bool
}

// openPurges opens the log in dir. Records count as lost if lost is set, or if the witness knows of
// newer ones. Then all stored objects are suspect.
func openPurges(dir string, w *witness, lost bool, log *slog.Logger) (*purges, error) {
	if err := checkTables(dir); err != nil {
		return nil, fmt.Errorf("open the purge log: %w", err)
	}
	o := badgerOptions(dir, 0, log)
	o.SyncWrites = false // add syncs where it promises to
	o.ValueLogFileSize = 1 << 20
	o.NumCompactors = 2
	o.NumLevelZeroTables = 5
	o.NumLevelZeroTablesStall = 15
	db, err := openBadger(o)
	if err != nil {
		return nil, fmt.Errorf("open the purge log: %w", err)
	}
	p := &purges{db: db, dir: dir, witness: w, expected: w.newest(), lost: lost,
		urls: map[string]epochs{}, tags: map[string]epochs{}, prefixes: map[string]epochs{},
		hashes: map[uint64]struct{}{}}
	if err := p.begin(); err != nil {
		return nil, errors.Join(fmt.Errorf("read the purge log: %w", err), db.Close())
	}
	return p, nil
}

// begin reads the log and marks it as open.
func (p *purges) begin() error {
	clean, err := p.load()
	if err != nil {
		return err
	}
	p.known = p.seq
	p.lost = p.lost || p.expected > p.known
	if p.seq = max(p.known, p.expected); p.lost || p.seq > 0 && !clean {
		p.seq += lostSequences
	}
	if p.lost { // before anything records that the log has this sequence
		p.seq++
		p.suspect = p.seq
		if err := p.write(p.seq, map[purgeKey]epochs{{purgeSuspect, ""}: {soft: p.seq}}); err != nil {
			return err
		}
	}
	if p.seq == 0 {
		return nil
	}
	return p.mark(false) // and the sequence
}

// mark records on the disk whether the log is closed, and the sequence. There must be no other
// writer.
func (p *purges) mark(clean bool) error {
	p.mu.Lock()
	p.seq++ // each version of a key has one value
	seq := p.seq
	p.mu.Unlock()
	value := epochs{}
	if clean {
		value.hard = seq
	}
	err := p.write(seq, map[purgeKey]epochs{{purgeSeq, ""}: {hard: seq}, {purgeClean, ""}: value})
	if err != nil {
		return err
	}
	return p.settle(seq)
}

// settle syncs all records up to a sequence to the disk, and records that in the witness.
func (p *purges) settle(seq uint64) error {
	if err := p.db.Sync(); err != nil {
		return fmt.Errorf("sync the purge log: %w", err)
	}
	return p.witness.note(seq)
}

// sync is settle for all records. It does nothing if none were added since the last call.
func (p *purges) sync() error {
	seq := p.current()
	if p.witness.newest() >= seq {
		return nil
	}
	return p.settle(seq)
}

// close closes the log.
func (p *purges) close() error {
	p.writing.Lock()
	defer p.writing.Unlock()
	var err error
	if p.current() > 0 {
		err = p.mark(true)
	}
	return errors.Join(err, p.db.Close())
}

func setRecord(batch *badger.WriteBatch, r purgeKey, e epochs) error {
	key := append([]byte{r.kind}, r.value...)
	v := make([]byte, valueHeader, valueHeader+16)
	v = binary.BigEndian.AppendUint64(v, e.hard)
	v = binary.BigEndian.AppendUint64(v, e.soft)
	sealValue(key, v)
	return batch.Set(key, v)
}

// load reads the records, and reports whether the log was closed cleanly.
func (p *purges) load() (clean bool, err error) {
	closed := uint64(0)
	defer func() { clean = closed > 0 && closed == p.seq }()
	txn := p.db.NewTransactionAt(math.MaxUint64, false)
	defer txn.Discard()
	it := txn.NewIterator(badger.DefaultIteratorOptions)
	defer it.Close()
	marked := uint64(0) // sequence of the mark
	for it.Rewind(); it.Valid(); it.Next() {
		key := it.Item().KeyCopy(nil)
		err := it.Item().Value(func(v []byte) error {
			data, err := openValue(key, v)
			if err != nil || len(data) != 16 {
				return errDamaged
			}
			e := epochs{binary.BigEndian.Uint64(data), binary.BigEndian.Uint64(data[8:])}
			switch key[0] {
			case purgeSeq:
				p.seq = max(p.seq, e.hard)
			case purgeLog:
				p.position = Position{Log: e.hard, Seq: e.soft}
			case purgeMark:
				if e.hard > marked {
					p.marked, marked = string(key[1:]), e.hard
				}
			case purgeClean:
				closed = e.hard
			case purgeFloor:
				p.floor = e.hard
			default:
				p.set(key[0], string(key[1:]), e)
				p.seq = max(p.seq, e.hard, e.soft) // which is written after them
			}
			return nil
		})
		if err != nil {
			return false, err
		}
	}
	// The mark is of another position if an earlier version has applied purges meanwhile.
	if m := []byte(p.marked); len(m) == 16 && binary.BigEndian.Uint64(m) == p.position.Seq {
		p.position.Mark = binary.BigEndian.Uint64(m[8:])
	}
	return false, nil
}

// purgeKey identifies a record.
type purgeKey struct {
	kind  byte
	value string
}

// collect returns the records of purges that all get the sequence seq. The caller holds mu for
// reading.
func (p *purges) collect(list []Purge, seq uint64) map[purgeKey]epochs {
	records := map[purgeKey]epochs{}
	for _, g := range list {
		one := func(kind byte, values ...string) {
			for _, v := range values {
				e, ok := records[purgeKey{kind, v}]
				if !ok {
					e = p.get(kind, v)
				}
				if g.Soft {
					e.soft = seq
				} else {
					e.hard = seq
				}
				records[purgeKey{kind, v}] = e
			}
		}
		one(purgeURL, g.URLs...)
		one(purgePrefix, g.Prefixes...)
		one(purgeTag, g.Tags...)
		if g.All && g.Suspect {
			one(purgeSuspect, "")
		} else if g.All {
			one(purgeAll, "")
		}
	}
	return records
}

// add appends purges with a common sequence, and returns that. With at, it also stores the
// position. The purges are in effect when add returns. With sync, they are also on the disk.
func (p *purges) add(list []Purge, at *Position, sync bool) (uint64, error) {
	p.writing.Lock()
	defer p.writing.Unlock()
	p.mu.RLock()
	seq := p.seq + 1
	records := p.collect(list, seq)
	p.mu.RUnlock()
	if err := p.write(seq, records); err != nil {
		return 0, err
	}
	// After the records, which may take several transactions of Badger: if the position were stored
	// first, a crash could make the store skip records.
	if err := p.writePosition(seq, at); err != nil {
		return 0, err
	}
	if sync {
		if err := p.settle(seq); err != nil {
			return 0, err
		}
	}

	p.mu.Lock()
	defer p.mu.Unlock()
	for r, e := range records {
		p.set(r.kind, r.value, e)
	}
	p.seq = seq
	if at != nil {
		p.position = *at
	}
	return seq, nil
}

// write writes records, and removes those with some keys.
func (p *purges) write(seq uint64, records map[purgeKey]epochs, remove ...[]byte) error {
	batch := p.db.NewWriteBatchAt(2 * seq)
	defer batch.Cancel()
	for _, key := range remove {
		if err := batch.Delete(key); err != nil {
			return fmt.Errorf("remove a purge record: %w", err)
		}
	}
	for r, e := range records {
		if err := setRecord(batch, r, e); err != nil {
			return fmt.Errorf("write a purge record: %w", err)
		}
	}
	if err := batch.Flush(); err != nil {
		return fmt.Errorf("write a purge record: %w", err)
	}
	return nil
}

// writePosition stores the sequence, and a position unless that is nil. The caller holds writing.
func (p *purges) writePosition(seq uint64, at *Position) error {
	last := map[purgeKey]epochs{{purgeSeq, ""}: {hard: seq}}
	if at == nil {
		return p.write(seq, last)
	}
	key := at.markKey()
	last[purgeKey{purgeLog, ""}] = epochs{at.Log, at.Seq}
	last[purgeKey{purgeMark, key}] = epochs{hard: seq}
	var before [][]byte
	if p.marked != "" && p.marked != key {
		before = append(before, append([]byte{purgeMark}, p.marked...))
	}
	if err := p.write(seq, last, before...); err != nil {
		return err
	}
	p.marked = key
	return nil
}

// measure counts the allocated bytes of the log's folder.
func (p *purges) measure() {
	if n, err := allocated(p.dir); err == nil {
		p.size.Store(n)
	}
}
