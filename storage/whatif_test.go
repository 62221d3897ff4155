package storage

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"runtime"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
)

// The simulation of a sample is within 1.5 points of that of all objects.
func TestWhatIfIsNearTheWhole(t *testing.T) {
	for _, alpha := range []float64{0.8} {
		requests := trace(uint64(alpha*10), alpha, 100_000, 500_000)
		footprint, seen := int64(0), map[uint64]bool{}
		for _, r := range requests {
			if !seen[r.key] {
				seen[r.key] = true
				footprint += r.size
			}
		}
		disk := footprint / 12
		w := newWhatIf(disk, 0, time.Now())
		var whole tiers
		for i, f := range whatIfFactors {
			whole.sims[i] = NewSimulation(int64(f * float64(disk)))
		}
		total := 0.0
		for _, r := range requests {
			total += float64(r.size)
			var key [8]byte
			binary.LittleEndian.PutUint64(key[:], r.key)
			slot := xxhash.Sum64(key[:])
			w.request(slot, r.size)
			whole.request(pending{slot, r.size, 1})
		}
		w.simulate(time.Now())
		for i, got := range w.results(&w.onDisk, disk) {
			want := whole.hits[i].requests / float64(len(requests))
			if math.Abs(got.Hits-want) > 0.015 {
				t.Errorf("Zipf %.1f, %g times the disk: %.4f hits, all objects %.4f", alpha, whatIfFactors[i], got.Hits,
					want)
			}
			if want := whole.hits[i].bytes / total; math.Abs(got.Saved-want) > 0.06 {
				t.Errorf("Zipf %.1f, %g times the disk: %.4f of bytes, all objects %.4f", alpha, whatIfFactors[i],
					got.Saved, want)
			}
			t.Logf("Zipf %.1f, %g times the disk: %.4f hits (all objects %.4f), %.4f of bytes (%.4f)", alpha,
				whatIfFactors[i],
				got.Hits, want, got.Saved, whole.hits[i].bytes/total)
		}
	}
}

// However many objects there are, the simulations stay small.
func TestWhatIfIsSmall(t *testing.T) {
	before := heapInUse()
	w := newWhatIf(1<<40, 1<<34, time.Now())
	for i := range uint64(3_000_000) {
		var key [8]byte
		binary.LittleEndian.PutUint64(key[:], i)
		w.request(xxhash.Sum64(key[:]), 4000)
	}
	if n := w.onDisk.largest(); n > maxSimulated || n < maxSimulated/4 {
		t.Errorf("%d objects are simulated", n)
	}
	if got := heapInUse() - before; got > 8<<20 {
		t.Errorf("the simulations take %d bytes", got)
	}
	runtime.KeepAlive(w)
}

func heapInUse() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// The store counts a fetch and each hit once.
func TestWhatIfCountsRequests(t *testing.T) {
	s := open(t, Options{Dir: t.TempDir(), Memory: 1 << 20})
	const objects, hits = 640, 3
	for i := range objects {
		url := fmt.Sprint("https://www.example/", i)
		w := s.Create(Header{Key: url, URL: url, Epoch: s.Epoch()})
		if _, err := io.WriteString(w, "hello"); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Commit(nil, nil); err != nil {
			t.Fatal(err)
		}
		w.Close()
		for range hits {
			if s.Get(url) == nil {
				t.Fatalf("%s is not stored", url)
			}
		}
	}
	got := s.WhatIf()
	if got.Requests != objects*(hits+1) {
		t.Fatalf("%g requests, want %d", got.Requests, objects*(hits+1))
	}
	if n := int(s.whatIf.sampled.requests); n == 0 || n%(hits+1) != 0 {
		t.Fatalf("%d requests are simulated: want a multiple of %d", n, hits+1)
	}
	for i, b := range append(got.Disk, got.Memory...) {
		if want := float64(hits) / (hits + 1); math.Abs(b.Hits-want) > 0.05 {
			t.Errorf("budget %d: %.4f hits, want %.4f", i, b.Hits, want)
		}
	}
}

// The counts of an hour ago are worth half.
func TestWhatIfForgets(t *testing.T) {
	now := time.Now()
	w := newWhatIf(1<<30, 0, now)
	w.request(0, 1000)
	w.simulate(now)
	w.decay(now.Add(whatIfHalf + time.Second))
	if got := w.counted(); got != (sum{0.5, 500}) || w.sampled != (sum{0.5, 500}) {
		t.Errorf("%+v of all, %+v of the sample", got, w.sampled)
	}
}

func BenchmarkWhatIf(b *testing.B) {
	for _, objects := range []uint64{1, 100_000} {
		b.Run(fmt.Sprint(objects), func(b *testing.B) {
			w := newWhatIf(1<<30, 1<<28, time.Now())
			slots := make([]uint64, objects)
			for i := range slots {
				slots[i] = xxhash.Sum64(binary.LittleEndian.AppendUint64(nil, uint64(i)))
			}
			if objects == 1 {
				slots[0] = 0 // it is simulated
			}
			n := 0
			for b.Loop() {
				w.request(slots[n], 4000)
				if n++; n == len(slots) {
					n = 0
				}
			}
		})
	}
}
