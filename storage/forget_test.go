package storage

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
)

// What an origin says to a question from before a purge is not stored as new, however long it takes
// and whatever else is forgotten meanwhile.
func TestAnswerAfterItsPurgeIsForgotten(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir, Disk: 64 << 20})
	began := s.Epoch()
	if _, err := s.Purge(Purge{URLs: []string{"/a"}}); err != nil {
		t.Fatal(err)
	}
	put(t, s, "/other", []byte("x"))
	s.forgetPurges()
	if n := s.Stats().Purges; n != 0 {
		t.Fatalf("%d records are kept", n)
	}
	w := s.Create(Header{Key: "/a", URL: "/a", Epoch: began})
	_, _ = w.Write([]byte("old"))
	if _, err := w.Commit(nil, nil); err == nil {
		t.Error("an old response is stored")
	} else if !errors.Is(err, ErrOvertaken) {
		t.Fatal(err)
	}
	if _, err := s.Update(s.Get("/other"), began, nil, nil); !errors.Is(err, ErrOvertaken) {
		t.Errorf("an old response is updated: %v", err)
	}
	for range 2 { // and after a start
		if s.Get("/a") != nil {
			t.Error("an old response is found")
		}
		closeStore(t, s)
		s = open(t, Options{Dir: dir, Disk: 64 << 20})
	}
	closeStore(t, s)
}

// A purge is remembered while a fetch is under way that began before it.
func TestHoldKeepsPurges(t *testing.T) {
	s := open(t, Options{Disk: 64 << 20})
	defer closeStore(t, s)
	began := s.Epoch()
	hold := s.Hold(began)
	if _, err := s.Purge(Purge{URLs: []string{"/a"}}); err != nil {
		t.Fatal(err)
	}
	s.forgetPurges()
	if !s.Overtaken(began, "/a", nil) || s.Overtaken(began, "/b", nil) {
		t.Errorf("of two fetches /a was overtaken: %v, /b: %v", s.Overtaken(began, "/a", nil),
			s.Overtaken(began, "/b", nil))
	}
	hold.Release()
	s.forgetPurges()
	if s.Stats().Purges != 0 || s.Hold(began) != nil {
		t.Errorf("%d records are kept; a hold is given for what nobody knows any more", s.Stats().Purges)
	}
	if s.Hold(s.Epoch()) == nil {
		t.Error("no hold is given for now")
	}
}

// A segment that a power loss brings back, or an old copy of the disk, has nothing that was purged.
func TestSegmentThatComesBack(t *testing.T) {
	dir, aside := t.TempDir(), t.TempDir()
	s := open(t, Options{Dir: dir, Disk: 64 << 20})
	o := put(t, s, "/a", []byte("old"))
	closeStore(t, s)
	segment := s.segmentDir(o.Segment(), probation)
	copyFolder(t, segment, aside)

	s = open(t, Options{Dir: dir, Disk: 64 << 20})
	if _, err := s.Purge(Purge{URLs: []string{"/a"}}); err != nil {
		t.Fatal(err)
	}
	s.remove(s.segment(o.Segment()), true)
	for c := range classes {
		if err := s.begin(c); err != nil {
			t.Fatal(err)
		}
	}
	s.forgetPurges()
	closeStore(t, s)
	copyFolder(t, aside, filepath.Join(dir, "segments", filepath.Base(segment)))
	s = open(t, Options{Dir: dir, Disk: 64 << 20})
	defer closeStore(t, s)
	if s.Get("/a") != nil {
		t.Error("what was purged is there again")
	}
}

// Fetches, purges and the forgetting of purges at the same time: nothing is found that is older
// than a purge that is done.
func TestForgettingWhileFetching(t *testing.T) {
	t.Parallel()
	s := open(t, Options{Disk: 32 << 20, Memory: 4 << 20})
	defer closeStore(t, s)
	const urls = 4
	var versions, least [urls]atomic.Int64
	var fetches, forgetting sync.WaitGroup
	over := make(chan struct{})
	forgetting.Go(func() {
		for {
			select {
			case <-over:
				return
			default:
				s.forgetPurges()
			}
		}
	})
	var stored atomic.Int64
	for g := range 4 {
		fetches.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(g), 6))
			body := make([]byte, 150_000) // so that segments go by
			for range 60 {
				i := rng.IntN(urls)
				url := fmt.Sprint("/", i)
				if rng.IntN(3) == 0 {
					v := versions[i].Add(1)
					if err := s.Apply([]Purge{{URLs: []string{url}}}, Position{Log: 1, Seq: uint64(v)}); err != nil {
						t.Error(err)
					}
					for have := least[i].Load(); have < v && !least[i].CompareAndSwap(have, v); have = least[i].Load() {
					}
				}
				h := Header{Key: url, URL: url, Epoch: s.Epoch()}
				hold := s.Hold(h.Epoch)
				v := versions[i].Load()
				w := s.Create(h)
				_, err := w.Write(body[:rng.IntN(len(body))])
				if err == nil {
					_, err = w.Commit(nil, strconv.AppendInt(nil, v, 10))
				}
				w.Close()
				hold.Release()
				if err == nil {
					stored.Add(1)
				} else if hold != nil || !errors.Is(err, ErrOvertaken) {
					t.Errorf("store: %v", err)
				}
				want := least[i].Load()
				if o := s.Get(url); o != nil {
					if got, _ := strconv.ParseInt(string(o.Data()), 10, 64); got < want {
						t.Errorf("%s has version %d, %d was purged", url, got, want)
					}
				}
			}
		})
	}
	fetches.Wait()
	close(over)
	forgetting.Wait()
	if stored.Load() == 0 {
		t.Error("nothing was stored")
	}
}
