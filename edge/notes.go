package edge

import (
	"hash/maphash"
	"sync"
	"time"
)

const (
	noteTime = 2 * time.Minute
	maxNotes = 1 << 16
)

// notes remember something about keys for noteTime. They keep hashes of keys, which clients choose,
// so that maxNotes of them are some 8 MB at most. Two keys of one hash, which nobody can look for
// without the seed, would share a note. The zero value is ready.
type notes struct {
	mu   sync.Mutex
	seed maphash.Seed // set with m
	m    map[uint64]note
}

type note struct {
	until time.Time
	text  string
}

// get returns what is remembered of a key, or "".
func (n *notes) get(key string, now time.Time) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.m == nil {
		return ""
	}
	hash := maphash.String(n.seed, key)
	v, ok := n.m[hash]
	if ok && now.After(v.until) {
		delete(n.m, hash)
		return ""
	}
	return v.text
}

// set remembers a text; "" forgets.
func (n *notes) set(key, text string, now time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.m == nil {
		if text == "" {
			return
		}
		n.seed, n.m = maphash.MakeSeed(), map[uint64]note{}
	}
	hash := maphash.String(n.seed, key)
	if text == "" {
		delete(n.m, hash)
		return
	}
	for k, v := range n.m {
		if len(n.m) < maxNotes && now.Before(v.until) {
			break
		}
		delete(n.m, k) // expired, or one of too many
	}
	n.m[hash] = note{now.Add(noteTime), text}
}
