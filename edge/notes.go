package edge

import (
	"sync"
	"time"
)

const (
	noteTime = 2 * time.Minute
	maxNotes = 1 << 16
)

// notes remember something about keys for noteTime. The zero value is ready.
type notes struct {
	mu sync.Mutex
	m  map[string]note
}

type note struct {
	until time.Time
	text  string
}

// get returns what is remembered of a key, or "".
func (n *notes) get(key string, now time.Time) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	v, ok := n.m[key]
	if ok && now.After(v.until) {
		delete(n.m, key)
		return ""
	}
	return v.text
}

// set remembers a text; "" forgets.
func (n *notes) set(key, text string, now time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if text == "" {
		delete(n.m, key)
		return
	}
	if n.m == nil {
		n.m = map[string]note{}
	}
	for k, v := range n.m {
		if len(n.m) < maxNotes && now.Before(v.until) {
			break
		}
		delete(n.m, k) // expired, or one of too many
	}
	n.m[key] = note{now.Add(noteTime), text}
}
