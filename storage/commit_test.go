package storage

import (
	"fmt"
	"runtime"
	"sync"
	"testing"
)

// Puts that come while one is committed become one group, in their order, with one version. A key
// is in a group once, and an exact version has a group of its own.
func TestGroups(t *testing.T) {
	t.Parallel()
	s := open(t, Options{Disk: 64 << 20})
	defer closeStore(t, s)
	g := s.opened(probation)
	puts := []struct {
		key     string
		version uint64
		exact   bool
		want    uint64
	}{
		{"a", 101, false, 103},
		{"b", 103, false, 103},
		{"c", 102, false, 103},
		{"a", 104, false, 104},
		{"d", 105, true, 105},
		{"e", 106, false, 107},
		{"f", 107, false, 107},
	}
	q := &g.commits
	leader := &commit{}
	if !q.enter(leader) {
		t.Fatal("the first put doesn't lead")
	}
	q.group()
	var work sync.WaitGroup
	for i, p := range puts {
		work.Go(func() {
			value := append(make([]byte, valueHeader), fmt.Sprint(p.version)...)
			if got, err := g.put(p.version, p.exact, record{[]byte(p.key), value}); err != nil || got != p.want {
				t.Errorf("put %d of %s at %d: %d, %v; want %d", i, p.key, p.version, got, err, p.want)
			}
		})
		for waiting := 0; waiting <= i; runtime.Gosched() {
			q.mu.Lock()
			waiting = len(q.waiting)
			q.mu.Unlock()
		}
	}
	q.leave([]*commit{leader})
	work.Wait()
	newest := map[string]string{"a": "104", "b": "103", "c": "102", "d": "105", "e": "106", "f": "107"}
	for key, want := range newest {
		err := g.get([]byte(key), func(data []byte) error {
			if string(data) != want {
				t.Errorf("%s has %s, want %s", key, data, want)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	if q.busy || len(q.waiting) > 0 {
		t.Error("somebody still waits")
	}
}
