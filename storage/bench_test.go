package storage

import (
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// The benchmarks compare the store with plain files in the same run, in turns, as machines are
// noisy: what counts is the ratio that they report.

func openBench(b *testing.B, opt Options) *Store {
	b.Helper()
	if opt.Dir == "" {
		opt.Dir = b.TempDir()
	}
	opt.Floor, opt.Log = 1, slog.New(slog.DiscardHandler)
	s, err := Open(opt)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	return s
}

func store(b *testing.B, s *Store, key string, body []byte) {
	b.Helper()
	w := s.Create(Header{Key: key, URL: key, Epoch: s.Epoch()})
	_, err := w.Write(body)
	if err == nil {
		_, err = w.Commit(nil, []byte("data"))
	}
	if err != nil {
		b.Fatal(err)
	}
}

// ratio runs both in turns of n operations and reports how many times as fast the first is.
func ratio(b *testing.B, name string, ours, plain func(i int)) {
	var t [2]time.Duration
	const turn = 16
	for i := 0; i < b.N; i += turn {
		for k, f := range []func(int){ours, plain} {
			began := time.Now()
			for j := i; j < i+turn; j++ {
				f(j)
			}
			t[k] += time.Since(began)
		}
	}
	b.ReportMetric(float64(t[1])/float64(t[0]), name)
	b.ReportMetric(float64(t[0].Nanoseconds())/float64(max(b.N, turn)), "ours-ns/op")
	b.ReportMetric(0, "ns/op")
}

func BenchmarkRead256KiB(b *testing.B) {
	const objects = 400
	s := openBench(b, Options{Disk: 2 << 30})
	dir := b.TempDir()
	body := bodyOf("", chunkSize)
	var files []*os.File
	for i := range objects {
		store(b, s, fmt.Sprint(i), body)
		name := filepath.Join(dir, fmt.Sprint(i))
		if err := os.WriteFile(name, body, 0o644); err != nil {
			b.Fatal(err)
		}
		f, err := os.Open(name)
		if err != nil {
			b.Fatal(err)
		}
		defer f.Close()
		files = append(files, f)
	}
	buf := make([]byte, chunkSize)
	ratio(b, "of-pread", func(i int) {
		o := s.Get(fmt.Sprint(i * 7919 % objects))
		r, err := o.Open(0, o.Size())
		if err != nil {
			b.Fatal(err)
		}
		if _, err := r.WriteTo(io.Discard); err != nil {
			b.Fatal(err)
		}
		r.Close()
	}, func(i int) {
		if _, err := files[i*7919%objects].ReadAt(buf, 0); err != nil {
			b.Fatal(err)
		}
	})
}

func BenchmarkWrite1MiB(b *testing.B) {
	s := openBench(b, Options{Disk: 1 << 30})
	dir := b.TempDir()
	body := bodyOf("", 1<<20)
	before := s.Stats()
	ratio(b, "of-plain-files", func(i int) { store(b, s, fmt.Sprint(i), body) }, func(i int) {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i%900)), body, 0o644); err != nil {
			b.Fatal(err)
		}
	})
	if st := s.Stats(); st.Stored > before.Stored {
		b.ReportMetric(float64(st.Stored+st.Rewritten)/float64(st.Stored), "write-amplification")
		n, err := allocated(s.opt.Dir)
		if err != nil {
			b.Fatal(err)
		}
		if st.Dropped == 0 {
			b.ReportMetric(float64(n)/float64(st.Stored), "disk-bytes/byte")
		}
	}
}

// BenchmarkReadersWhileWriting reports how long a read of a small object takes, at worst but one of
// a thousand, while others write, seal and drop.
func BenchmarkReadersWhileWriting(b *testing.B) {
	s := openBench(b, Options{Disk: 256 << 20})
	body := bodyOf("", 1000)
	stop := make(chan struct{})
	var writers sync.WaitGroup
	for w := range 2 {
		writers.Go(func() {
			big := bodyOf("", 1<<20)
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
					store(b, s, fmt.Sprint("w", w, i), big)
				}
			}
		})
	}
	var took []time.Duration
	for i := range b.N {
		key := fmt.Sprint(i % 100)
		began := time.Now()
		o := s.Get(key)
		if o != nil {
			if r, err := o.Open(0, o.Size()); err == nil {
				_, _ = r.WriteTo(io.Discard)
				r.Close()
			}
		}
		took = append(took, time.Since(began))
		if o == nil {
			store(b, s, key, body)
		}
	}
	close(stop)
	writers.Wait()
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)*999/1000].Microseconds())/1000, "p99.9-ms")
	b.ReportMetric(float64(took[len(took)/2].Nanoseconds())/1000, "p50-µs")
}

// BenchmarkStart reports how long a store of a million objects takes to open, after a clean end and
// after a kill, and the memory of its index.
func BenchmarkStart(b *testing.B) {
	const objects = 1_000_000
	dir := b.TempDir()
	s, err := Open(Options{Dir: dir, Disk: 8 << 30, Floor: 1, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	var writers sync.WaitGroup
	body := make([]byte, 300)
	for w := range 8 {
		writers.Go(func() {
			for i := w; i < objects; i += 8 {
				store(b, s, fmt.Sprint("https://www.example.com/objects/", i), body)
			}
		})
	}
	writers.Wait()
	// what a kill leaves: the files as they are
	killed := filepath.Join(b.TempDir(), "killed")
	for exec.Command("cp", "-r", "--sparse=always", dir, killed).Run() != nil { // a table was flushed meanwhile
		if err := os.RemoveAll(killed); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	began := time.Now()
	k, err := Open(Options{Dir: killed, Disk: 8 << 30, Floor: 1, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(time.Since(began).Seconds(), "s/start-after-kill")
	if n := k.index.len(); n != objects {
		b.Fatalf("%d objects after a kill", n)
	}
	if err := k.Close(); err != nil {
		b.Fatal(err)
	}
	for range b.N {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		began := time.Now()
		s, err := Open(Options{Dir: dir, Disk: 8 << 30, Floor: 1, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(time.Since(began).Seconds(), "s/start")
		if n := s.index.len(); n != objects {
			b.Fatalf("%d objects", n)
		}
		x := newIndex()
		runtime.GC()
		runtime.ReadMemStats(&before)
		for i := range uint64(objects) {
			x.put(rand.Uint64(), place{uint32(i % 30), uint32(i)})
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/objects, "index-B/object")
		runtime.KeepAlive(x)
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(0, "ns/op")
}

// BenchmarkPurgeLookup looks objects up under 100,000 purge records, a tenth of them prefixes of
// many lengths.
func BenchmarkPurgeLookup(b *testing.B) {
	p := &purges{urls: map[string]epochs{}, tags: map[string]epochs{}, prefixes: map[string]epochs{},
		hashes: map[uint64]struct{}{}, seq: 1 << 40}
	for i := range 45_000 {
		p.set(purgeURL, fmt.Sprintf("www.example.com/products/%d/page.html", i), epochs{hard: uint64(i)})
		p.set(purgeTag, fmt.Sprint("product-", i), epochs{hard: uint64(i)})
	}
	for i := range 10_000 {
		p.set(purgePrefix, fmt.Sprintf("www.example.com/%0*d/", 1+i%60, i), epochs{hard: uint64(i)})
	}
	url := "www.example.com/00000000000000000000000000000000000000000000000000000000/x/y/z.html?a=b"
	tags := []string{"a", "product-1", "product-200000", "front"}
	for b.Loop() {
		p.covers(1<<30, url, tags)
	}
}

// BenchmarkHotWhileCold reports by what factor the slow hits from RAM (p99) get slower while eight
// goroutines read cold objects of 1 MiB, on two processors.
func BenchmarkHotWhileCold(b *testing.B) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	dir := b.TempDir()
	opt := Options{Dir: dir, Disk: 4 << 30, Memory: 64 << 20, Floor: 1, Log: slog.New(slog.DiscardHandler)}
	s, err := Open(opt)
	if err != nil {
		b.Fatal(err)
	}
	const cold = 1000
	for i := range cold {
		store(b, s, fmt.Sprint("cold", i), bodyOf("", 1<<20))
	}
	store(b, s, "hot", bodyOf("", 1000))
	if err := s.Close(); err != nil { // the kernel keeps what is mapped
		b.Fatal(err)
	}
	dropPageCache(b, dir)
	s = openBench(b, opt)
	// measure takes hits one after another until there is nothing to wait for, and 50,000 at least.
	measure := func(until <-chan struct{}) time.Duration {
		var took []time.Duration
		for waiting := true; waiting || len(took) < 50_000; {
			select {
			case <-until:
				waiting = false
			default:
			}
			began := time.Now()
			o := s.Get("hot")
			r, err := o.Open(0, o.Size())
			if err != nil {
				b.Fatal(err)
			}
			_, _ = r.WriteTo(io.Discard)
			r.Close()
			took = append(took, time.Since(began))
			runtime.Gosched()
		}
		slices.Sort(took)
		return took[len(took)*99/100]
	}
	done := make(chan struct{})
	close(done)
	alone := measure(done)
	var readers sync.WaitGroup
	for w := range 8 {
		readers.Go(func() {
			for i := w; i < cold; i += 8 {
				o := s.Get(fmt.Sprint("cold", i))
				if o == nil {
					continue
				}
				if r, err := o.Open(0, o.Size()); err == nil {
					_, _ = r.WriteTo(io.Discard)
					r.Close()
				}
			}
		})
	}
	all := make(chan struct{})
	go func() { readers.Wait(); close(all) }()
	with := measure(all)
	b.ReportMetric(float64(with)/float64(alone), "p99-with-cold/alone")
	b.ReportMetric(float64(with.Nanoseconds())/1000, "p99-µs")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkApply applies a million purges of a log as an edge that was away does, a thousand at a
// time. Run it with -benchtime 1x.
func BenchmarkApply(b *testing.B) {
	for range b.N {
		b.StopTimer()
		s, err := Open(Options{Dir: b.TempDir(), Disk: 256 << 20, Memory: 1 << 20, Floor: 1})
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		purges := make([]Purge, 1000)
		for batch := range 1000 {
			for i := range purges {
				purges[i] = Purge{URLs: []string{fmt.Sprintf("www.example.com/some/page/%d.html", batch*1000+i)}}
			}
			if err := s.Apply(purges, Position{Log: 1, Seq: uint64(batch+1) * 1000}); err != nil {
				b.Fatal(err)
			}
		}
		b.StopTimer()
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkWrite stores objects, several writers at once. It reports the CPU time and the page
// faults of an object, and how many bytes go to the disk for each byte of keys, metadata and bodies
// (proc(5), /proc/pid/io).
func BenchmarkWrite(b *testing.B) {
	for _, size := range []int{200, 1 << 10, 8 << 10, 1 << 20} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			s := openBench(b, Options{Disk: 4 << 30})
			body, data := bodyOf("", size), bodyOf("", 400) // as the record of a response
			var n atomic.Int64
			before := writtenBytes(b)
			report := reportUsage(b)
			b.ReportAllocs()
			b.SetParallelism(8)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					key := fmt.Sprintf("http://www.example/%d", n.Add(1))
					w := s.Create(Header{Key: key, URL: key, Epoch: s.Epoch()})
					_, err := w.Write(body)
					if err == nil {
						_, err = w.Commit([]string{"www.example"}, data)
					}
					if err != nil {
						b.Error(err)
						return
					}
				}
			})
			b.StopTimer()
			if err := s.Close(); err != nil {
				b.Fatal(err)
			}
			report()
			stored := n.Load() * int64(size+len(data)+2*len("http://www.example/12345"))
			b.ReportMetric(float64(writtenBytes(b)-before)/float64(stored), "disk-bytes/byte")
		})
	}
}

// writtenBytes is what the process has caused to be written to disks.
func writtenBytes(b *testing.B) (n int64) {
	text, err := os.ReadFile("/proc/self/io")
	if err != nil {
		b.Skip(err)
	}
	_, value, _ := strings.Cut(string(text), "\nwrite_bytes: ")
	if _, err := fmt.Sscan(value, &n); err != nil {
		b.Fatal(err)
	}
	return n
}
