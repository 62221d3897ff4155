package storage

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"testing"
)

// dropIt drops the segment of an object for the budget.
func dropIt(t *testing.T, s *Store, o *Object) {
	t.Helper()
	g := s.segment(o.Segment())
	if err := s.roll(g, true); err != nil {
		t.Fatal(err)
	}
	for !g.isSealed() {
		runtime.Gosched()
	}
	g.mu.RLock() // until it is open again
	again := g.db != nil
	g.mu.RUnlock()
	if !again {
		t.Fatal("the segment is not open")
	}
	s.drop(t.Context(), g, true)
}

// A send goes on when its segment is dropped, and the segment's room is given back when it is over.
func TestSendOutlivesItsSegment(t *testing.T) {
	t.Parallel()
	s := open(t, Options{Disk: segmentCount << 20})
	defer closeStore(t, s)
	const size = 3*chunkSize + 1000
	body := bodyOf("/a", size)
	put(t, s, "/a", body)
	readers := make([]*Reader, 2)
	for i := range readers {
		var err error
		if readers[i], err = s.Get("/a").Open(0, size); err != nil {
			t.Fatal(err)
		}
	}
	g := readers[0].pinned[0]
	dropIt(t, s, s.Get("/a"))
	if _, err := os.Stat(g.dir + ".dropped"); err != nil {
		t.Fatalf("what is read is gone: %v", err)
	}
	var b bytes.Buffer
	if _, err := readers[0].WriteTo(&b); err != nil || !bytes.Equal(b.Bytes(), body) {
		t.Errorf("%d of %d bytes, %v", b.Len(), size, err)
	}
	readers[0].Close()
	near, far := socket(t)
	var wg sync.WaitGroup
	wg.Go(func() {
		if got, err := io.ReadAll(far); err != nil || !bytes.Equal(got, body) {
			t.Errorf("%d of %d bytes came, %v", len(got), size, err)
		}
	})
	if err := send(readers[1], near); err != nil {
		t.Error(err)
	}
	near.Close()
	wg.Wait()
	readers[1].Close()
	if _, err := os.Stat(g.dir + ".dropped"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what nobody reads any more is there: %v", err)
	}
	if s.mu.Lock(); len(s.held) != 0 {
		t.Errorf("%d segments are held", len(s.held))
	}
	s.mu.Unlock()
}

// Slow readers hold two dropped segments at most, and none when the disk is at its floor.
func TestHeldSegmentsAreBounded(t *testing.T) {
	t.Parallel()
	s := open(t, Options{Disk: segmentCount << 20})
	defer closeStore(t, s)
	var readers []*Reader
	for i := range heldSegments + 1 {
		key := fmt.Sprint("/", i)
		o := put(t, s, key, bodyOf(key, 2*chunkSize))
		r, err := s.Get(key).Open(0, o.Size())
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		readers = append(readers, r)
		dropIt(t, s, o)
	}
	end := func(r *Reader) error {
		_, err := r.WriteTo(io.Discard)
		return err
	}
	if err := end(readers[0]); !errors.Is(err, errGone) {
		t.Errorf("the third oldest goes on: %v", err)
	}
	if err := end(readers[1]); err != nil {
		t.Errorf("the second oldest: %v", err)
	}
	o := put(t, s, "/last", bodyOf("/last", chunkSize))
	s.drop(t.Context(), s.segment(o.Segment()), false)
	if err := end(readers[2]); !errors.Is(err, errGone) {
		t.Errorf("with a full disk it goes on: %v", err)
	}
}

// Readers, writers, drops, the scrubber and the end of the store at the same time.
func TestSendsUnderDrops(t *testing.T) {
	t.Parallel()
	s := open(t, Options{Disk: segmentCount << 20, Memory: 1 << 20})
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 12 {
				key := fmt.Sprintf("/%d/%d", w, i)
				put(t, s, key, bodyOf(key, minPlaced+rand.IntN(2*chunkSize)))
				other := fmt.Sprintf("/%d/%d", rand.IntN(4), rand.IntN(i+1))
				o := s.Get(other)
				if o == nil {
					continue
				}
				off := rand.Int64N(o.Size())
				r, err := o.Open(off, o.Size()-off)
				if err != nil {
					continue // its segment went
				}
				var b bytes.Buffer
				write := r.WriteTo
				if i%2 == 0 {
					write = r.WriteMapped
				}
				if _, err := write(&b); err == nil && !bytes.Equal(b.Bytes(), bodyOf(other, int(o.Size()))[off:]) {
					t.Errorf("%s: wrong bytes", other)
				}
				if g := s.oldest(probation); i%3 == 0 && g != nil {
					s.drop(t.Context(), g, true)
				}
				s.scrub(scrubPlace{}, 1<<20)
				r.Close()
			}
		})
	}
	wg.Wait()
	closeStore(t, s)
}

// A Reader that is open when the store closes ends with an error, or right.
func TestReaderOutlivesTheStore(t *testing.T) {
	t.Parallel()
	s := open(t, Options{Disk: segmentCount << 20})
	body := bodyOf("/a", 3*chunkSize)
	put(t, s, "/a", body)
	r, err := s.Get("/a").Open(0, 3*chunkSize)
	if err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	var b bytes.Buffer
	if _, err := r.WriteTo(&b); !bytes.Equal(b.Bytes(), body[:b.Len()]) || err == nil && b.Len() != len(body) {
		t.Errorf("%d bytes, %v", b.Len(), err)
	}
	r.Close()
}
