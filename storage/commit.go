package storage

import (
	"bytes"
	"fmt"
	"math"
	"sync"

	"github.com/dgraph-io/badger/v4"
)

// record is a key and a value, whose data begins at valueHeader.
type record struct{ key, value []byte }

const (
	// maxGroup is how many puts are committed together at most.
	maxGroup = 64
	// maxGroupBytes is how many bytes a group has at most, unless it is a single put.
	maxGroupBytes = 1 << 20
	// entryOverhead is how many bytes Badger adds to a key and a value in a value log at most: a
	// header, a version and a checksum.
	entryOverhead = 22 + 8 + 4
)

// commits are the puts of a segment that wait to be committed. The first one leads: it commits all
// that wait as one transaction, and hands over to the next.
type commits struct {
	mu      sync.Mutex
	waiting []*commit
	busy    bool // a put leads
}

// commit is a put.
type commit struct {
	records []record
	version uint64
	exact   bool
	size    int       // bytes in the value log at most
	lead    chan bool // true if the put leads now, false if it was committed
	err     error
}

// enter adds a put, and waits until it leads or was committed. It reports whether it leads.
func (q *commits) enter(c *commit) bool {
	q.mu.Lock()
	q.waiting = append(q.waiting, c)
	if !q.busy {
		q.busy = true
		q.mu.Unlock()
		return true
	}
	c.lead = make(chan bool, 1)
	q.mu.Unlock()
	return <-c.lead
}

// group takes the puts that are committed now, the leading one first.
func (q *commits) group() []*commit {
	q.mu.Lock()
	defer q.mu.Unlock()
	n, size := 1, q.waiting[0].size
	for n < min(len(q.waiting), maxGroup) && !q.waiting[0].exact {
		c := q.waiting[n]
		size += c.size
		if c.exact || size > maxGroupBytes || c.repeats(q.waiting[:n]) {
			break
		}
		n++
	}
	group := append([]*commit(nil), q.waiting[:n]...)
	rest := copy(q.waiting, q.waiting[n:])
	clear(q.waiting[rest:])
	q.waiting = q.waiting[:rest]
	return group
}

// repeats reports whether a put has a key that one of others has too. A transaction has one value
// for a key.
func (c *commit) repeats(others []*commit) bool {
	for _, r := range c.records {
		for _, o := range others {
			for _, s := range o.records {
				if bytes.Equal(r.key, s.key) {
					return true
				}
			}
		}
	}
	return false
}

// leave ends a group, which has been committed, and lets the next put lead.
func (q *commits) leave(group []*commit) {
	q.mu.Lock()
	if len(q.waiting) > 0 {
		q.waiting[0].lead <- true
	} else {
		q.busy = false
	}
	q.mu.Unlock()
	for _, c := range group[1:] {
		c.lead <- false
	}
}

// put writes all records, or none, and returns their version. Puts that come at the same time are
// committed together, all with the highest of their versions, unless exact is set. The caller may
// reuse the values afterwards.
func (g *segment) put(version uint64, exact bool, records ...record) (uint64, error) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.db == nil {
		return 0, errGone
	}
	c := &commit{records: records, version: version, exact: exact}
	written := int64(0)
	for _, r := range records {
		sealValue(r.key, r.value)
		c.size += len(r.key) + len(r.value) + entryOverhead
		written += int64(len(r.key)+len(r.value)) + recordOverhead
	}
	if g.commits.enter(c) {
		g.commitGroup()
	}
	if c.err != nil {
		return 0, fmt.Errorf("segment %d: %w", g.id, c.err)
	}
	g.written.Add(written)
	return c.version, nil
}

// commitGroup commits the puts that wait as one transaction.
func (g *segment) commitGroup() {
	group := g.commits.group()
	defer g.commits.leave(group)
	size, version := 0, uint64(0)
	for _, c := range group {
		size += c.size
		version = max(version, c.version)
	}
	err := g.window.before(g.db, size)
	if err == nil {
		err = g.commit(group, version)
		if e := g.window.after(g.db); err == nil {
			err = e
		}
	}
	for _, c := range group {
		c.version, c.err = version, err
	}
}

func (g *segment) commit(group []*commit, version uint64) error {
	txn := g.db.NewTransactionAt(math.MaxUint64, true)
	defer txn.Discard()
	for _, c := range group {
		for _, r := range c.records {
			if err := txn.SetEntry(badger.NewEntry(r.key, r.value)); err != nil {
				return err
			}
		}
	}
	return txn.CommitAt(version, nil)
}
