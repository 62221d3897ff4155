package cache

import (
	"hash/maphash"
	"sync"

	"github.com/kaiku-cdn/kaiku/origin"
)

// maxFailures bounds the keys in a failures.
const maxFailures = 1024

// failures has the last failure of each of the keys that failed most recently. The zero value is
// ready to use.
type failures struct {
	mu    sync.Mutex
	seed  maphash.Seed
	slots []keyFailure
	next  int            // of slots, once all are in use
	byKey map[uint64]int // places in slots
}

// keyFailure is the failure of a key. It has a hash of the key, because keys may be long.
type keyFailure struct {
	key uint64
	origin.Failure
}

func (f *failures) set(key string, failure origin.Failure) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.byKey == nil {
		f.byKey, f.seed = map[uint64]int{}, maphash.MakeSeed()
	}
	hash := maphash.String(f.seed, key)
	at, known := f.byKey[hash]
	switch {
	case known:
	case len(f.slots) < maxFailures:
		at = len(f.slots)
		f.slots = append(f.slots, keyFailure{})
	default:
		at = f.next
		f.next = (f.next + 1) % maxFailures
		if old := f.slots[at].key; f.byKey[old] == at {
			delete(f.byKey, old)
		}
	}
	f.slots[at], f.byKey[hash] = keyFailure{hash, failure}, at
}

// get returns the last failure of a key, or nil.
func (f *failures) get(key string) *origin.Failure {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.byKey) == 0 {
		return nil
	}
	at, known := f.byKey[maphash.String(f.seed, key)]
	if !known {
		return nil
	}
	failure := f.slots[at].Failure
	return &failure
}

func (f *failures) forget(key string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.byKey) > 0 {
		delete(f.byKey, maphash.String(f.seed, key))
	}
}

// reset removes all failures.
func (f *failures) reset() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.slots, f.next = nil, 0
	clear(f.byKey)
}
