// Package ttlset is keys that are remembered for two minutes, each with a text.
package ttlset

import (
	"hash/maphash"
	"sync"
	"time"
)

const (
	// TTL is how long a key is remembered.
	TTL = 2 * time.Minute
	// Max is how many keys a Set holds.
	Max = 1 << 16
)

// Set remembers a text about each of its keys for TTL. It keeps hashes of keys, which clients
// choose, so that Max of them take some 8 MB at most. Two keys of one hash, which nobody can look
// for without the seed, would share a text. The zero value is ready.
type Set struct {
	mu   sync.Mutex
	seed maphash.Seed // set with m
	m    map[uint64]entry
}

type entry struct {
	until time.Time
	text  string
}

// Get returns what is remembered of a key, or "".
func (s *Set) Get(key string, now time.Time) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m == nil {
		return ""
	}
	hash := maphash.String(s.seed, key)
	v, ok := s.m[hash]
	if ok && now.After(v.until) {
		delete(s.m, hash)
		return ""
	}
	return v.text
}

// Put remembers a text; "" forgets.
func (s *Set) Put(key, text string, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m == nil {
		if text == "" {
			return
		}
		s.seed, s.m = maphash.MakeSeed(), map[uint64]entry{}
	}
	hash := maphash.String(s.seed, key)
	if text == "" {
		delete(s.m, hash)
		return
	}
	for k, v := range s.m {
		if len(s.m) < Max && now.Before(v.until) {
			break
		}
		delete(s.m, k) // expired, or one of too many
	}
	s.m[hash] = entry{now.Add(TTL), text}
}

// Reset forgets all.
func (s *Set) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.m)
}
