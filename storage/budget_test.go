package storage

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

// watchBudget measures the data folder again and again until the test ends, and fails it when more
// is allocated than the budget and a segment.
func watchBudget(t *testing.T, s *Store) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	var watcher sync.WaitGroup
	most := int64(0)
	watcher.Go(func() {
		for ctx.Err() == nil {
			n, err := allocated(s.opt.Dir)
			if err != nil {
				t.Errorf("measure: %v", err)
				return
			}
			most = max(most, n)
		}
	})
	t.Cleanup(func() {
		stop()
		watcher.Wait()
		t.Logf("at most %d KiB on disk, budget %d and a segment of %d", most>>10, s.opt.Disk>>10, s.segmentSize()>>10)
		if most > s.opt.Disk+s.segmentSize() {
			t.Errorf("%d bytes on disk, budget %d and a segment of %d", most, s.opt.Disk, s.segmentSize())
		}
	})
}

func TestBudget(t *testing.T) { holdBudget(t, 2) }

// holdBudget holds the budget under small and large objects, times its size in churn, purges of
// everything, and hits that have objects written again.
func holdBudget(t *testing.T, times int) {
	const disk = 96 << 20
	s := open(t, Options{Disk: disk})
	defer closeStore(t, s)
	t.Run("churn", func(t *testing.T) {
		watchBudget(t, s)
		var writers sync.WaitGroup
		for w := range 4 {
			writers.Go(func() {
				rng := rand.New(rand.NewPCG(uint64(w), 2))
				body := bodyOf("", 24<<20)
				for written := 0; written < times*disk/4; {
					n := 200
					switch x := rng.IntN(1000); {
					case x == 0:
						n = 20 << 20
					case x < 300:
						n = rng.IntN(300_000)
					}
					key := fmt.Sprintf("/%d/%d", w, rng.IntN(20_000))
					put(t, s, key, body[:n], "tag")
					written += n
					for range 3 { // so that some are hit, and written again
						s.Get(fmt.Sprintf("/%d/%d", w, rng.IntN(300)))
					}
					if rng.IntN(2000) == 0 {
						if _, err := s.Purge(Purge{All: true}); err != nil {
							t.Error(err)
						}
					}
				}
			})
		}
		writers.Wait()
	})
	st := s.Stats()
	if st.Dropped == 0 || st.Rewrites == 0 {
		t.Errorf("nothing was dropped or written again: %+v", st)
	}
	if st.Rewritten*100 > st.Stored*(maxRewrite+2) {
		t.Errorf("%d bytes written again for %d stored", st.Rewritten, st.Stored)
	}
}

func TestBudgetLoweredAtAStart(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir, Disk: 128 << 20})
	for i := range 600 {
		put(t, s, fmt.Sprint("/", i), bodyOf("", 200_000))
	}
	closeStore(t, s)
	s = open(t, Options{Dir: dir, Disk: 64 << 20})
	defer closeStore(t, s)
	for end := time.Now().Add(20 * time.Second); s.used() > s.opt.Disk; {
		if time.Now().After(end) {
			t.Fatalf("%d bytes are used, the budget is %d", s.used(), s.opt.Disk)
		}
		if err := s.awaitKeeper(); err != nil {
			t.Fatal(err)
		}
	}
	if s.Get("/0") != nil {
		t.Error("the oldest is still there")
	}
	want(t, s, "/599", bodyOf("", 200_000))
}

// TestWhatIsHitStays asks for some objects again and again while ten times the budget goes by.
func TestWhatIsHitStays(t *testing.T) {
	s := open(t, Options{Disk: 64 << 20})
	defer closeStore(t, s)
	const hot = 40
	kept := func() (n int) {
		for i := range hot {
			if s.Get(fmt.Sprint("/hot/", i)) != nil {
				n++
			}
		}
		return n
	}
	for i := range hot {
		key := fmt.Sprint("/hot/", i)
		put(t, s, key, bodyOf(key, 100_000))
	}
	for i := range 1000 {
		put(t, s, fmt.Sprint("/cold/", i), bodyOf("", 200_000))
		if i%5 == 0 {
			kept()
		}
	}
	if n := kept(); n < hot*9/10 {
		t.Errorf("%d of %d objects that were hit all the time are there", n, hot)
	}
	for i := range hot {
		if key := fmt.Sprint("/hot/", i); s.Get(key) != nil {
			want(t, s, key, bodyOf(key, 100_000))
		}
	}
	if s.Get("/cold/0") != nil {
		t.Error("what nobody asked for stayed as well")
	}
}

// TestPurgeRecordsAreForgotten once nothing is left that is older.
func TestPurgeRecordsAreForgotten(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir, Disk: 64 << 20})
	put(t, s, "/old", []byte("old"))
	held := s.Create(Header{Key: "/slow", URL: "/slow", Epoch: s.Epoch()})
	for i := range 100 {
		if _, err := s.Purge(Purge{URLs: []string{fmt.Sprint("/p", i)},
			Prefixes: []string{fmt.Sprint("/q", i)}}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Purge(Purge{URLs: []string{"/slow"}}); err != nil {
		t.Fatal(err)
	}
	through := func() {
		for i := range 500 {
			put(t, s, fmt.Sprint("/cold/", i), bodyOf("", 200_000))
		}
		if err := s.awaitKeeper(); err != nil {
			t.Fatal(err)
		}
	}
	through()
	if n := s.Stats().Purges; n != 201 {
		t.Errorf("%d records while a fill that began before them goes on, want 201", n)
	}
	if _, err := held.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := held.Commit(nil, nil); err != nil {
		t.Fatal(err)
	}
	if s.Get("/slow") != nil {
		t.Error("what was fetched before its purge is there")
	}
	through()
	through()
	if n := s.Stats().Purges; n != 0 {
		t.Errorf("%d records are left", n)
	}
	epoch := s.Epoch()
	closeStore(t, s)
	s = open(t, Options{Dir: dir, Disk: 64 << 20})
	defer closeStore(t, s)
	if s.Epoch() < epoch || s.Epoch() > epoch+10 || s.Stats().Purges != 0 {
		t.Errorf("after a start: sequence %d, want %d or a few more; %d records", s.Epoch(), epoch, s.Stats().Purges)
	}
	put(t, s, "/p1", []byte("new"))
	want(t, s, "/p1", []byte("new"))
	if _, err := s.Purge(Purge{URLs: []string{"/p1"}}); err != nil || s.Get("/p1") != nil {
		t.Errorf("a purge of what was forgotten before: %v", err)
	}
}
