// Package ttlset remembers keys for two minutes, each with a text.
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

// Set remembers a text for each of its keys for TTL. Clients choose the keys, so it stores hashes,
// and Max of them take at most about 8 MB. Two keys with the same hash would share a text, but
// nobody can find such keys without the seed. The zero value is ready to use.
type Set struct {
	mu   sync.Mutex
	seed maphash.Seed // set with m
	m    map[uint64]entry
}

type entry struct {
	until time.Time
	text  string
}

// Get returns the text of a key, or "".
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

// Put sets the text of a key; "" removes the key.
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
		delete(s.m, k) // it has expired, or there are too many
	}
	s.m[hash] = entry{now.Add(TTL), text}
}

// Reset removes all keys.
func (s *Set) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.m)
}
