package storage

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func open(t *testing.T, opt Options) *Store {
	t.Helper()
	if opt.Dir == "" {
		opt.Dir = t.TempDir()
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	opt.Floor = 1
	s, err := Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func closeStore(t *testing.T, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// bodyOf makes a body that tells its key, so that a wrong one is noticed.
func bodyOf(key string, n int) []byte {
	seed := sha256.Sum256([]byte(key))
	b := make([]byte, n)
	_, _ = rand.NewChaCha8(seed).Read(b)
	return b
}

func put(t *testing.T, s *Store, key string, body []byte, tags ...string) *Object {
	t.Helper()
	w := s.Create(Header{Key: key, URL: key, Epoch: s.Epoch()})
	if _, err := w.Write(body); err != nil {
		t.Fatal(err)
	}
	o, err := w.Commit(tags, []byte("data of "+key))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func read(t *testing.T, o *Object, off, n int64) []byte {
	t.Helper()
	r, err := o.Open(off, n)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var b bytes.Buffer
	if _, err := r.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func want(t *testing.T, s *Store, key string, body []byte) {
	t.Helper()
	o := s.Get(key)
	if o == nil {
		t.Fatalf("%s is a miss", key)
	}
	if got := read(t, o, 0, o.Size()); !bytes.Equal(got, body) {
		t.Fatalf("%s: body differs (%d bytes, want %d)", key, len(got), len(body))
	}
	if string(o.Data()) != "data of "+key {
		t.Fatalf("%s: data %q", key, o.Data())
	}
}

func TestBodiesOfAllSizesAndRanges(t *testing.T) {
	for _, memory := range []int64{0, 64 << 20} {
		s := open(t, Options{Memory: memory, Disk: 256 << 20})
		for _, n := range []int{0, 1, 1000, 1 << 10, chunkSize - 1, chunkSize, chunkSize + 1, 3*chunkSize + 17} {
			key := fmt.Sprint("/", n)
			body := bodyOf(key, n)
			put(t, s, key, body)
			for range 3 { // from the disk, then from memory
				want(t, s, key, body)
				for range 10 {
					off := rand.IntN(n + 1)
					l := rand.IntN(n - off + 1)
					if got := read(t, s.Get(key), int64(off), int64(l)); !bytes.Equal(got, body[off:off+l]) {
						t.Fatalf("%s: range %d+%d differs", key, off, l)
					}
				}
			}
		}
		if _, err := s.Get("/1000").Open(999, 2); err == nil {
			t.Error("a range past the end was opened")
		}
		if s.Get("/none") != nil {
			t.Error("found what was never stored")
		}
		closeStore(t, s)
	}
}

func TestRestartKeepsObjects(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir, Disk: 48 << 20})
	for i := range 40 { // several segments
		put(t, s, fmt.Sprint("/", i), bodyOf(fmt.Sprint("/", i), 300_000))
	}
	put(t, s, "/7", bodyOf("new /7", 10))
	closeStore(t, s)
	s = open(t, Options{Dir: dir, Disk: 48 << 20})
	defer closeStore(t, s)
	for i := range 40 {
		body := bodyOf(fmt.Sprint("/", i), 300_000)
		if i == 7 {
			body = bodyOf("new /7", 10)
		}
		want(t, s, fmt.Sprint("/", i), body)
	}
	put(t, s, "/8", []byte("newer than before the restart"))
	want(t, s, "/8", []byte("newer than before the restart"))
}

func TestNothingIsFoundBeforeCommit(t *testing.T) {
	s := open(t, Options{Disk: 64 << 20})
	defer closeStore(t, s)
	w := s.Create(Header{Key: "/a", URL: "/a"})
	body := bodyOf("/a", chunkSize+5)
	if _, err := w.Write(body); err != nil {
		t.Fatal(err)
	}
	if s.Get("/a") != nil {
		t.Fatal("found before Commit")
	}
	got := make([]byte, len(body))
	for off := 0; off < len(body); {
		n, err := w.ReadAt(got[off:], int64(off))
		if err != nil || n == 0 {
			t.Fatalf("ReadAt(%d) = %d, %v", off, n, err)
		}
		off += n
	}
	if !bytes.Equal(got, body) {
		t.Fatal("a follower reads other bytes")
	}
}

func TestOldestSegmentsGoOverBudget(t *testing.T) {
	const disk = 48 << 20
	s := open(t, Options{Disk: disk})
	defer closeStore(t, s)
	held := s.Create(Header{Key: "/held", URL: "/held"})
	_, _ = held.Write(bodyOf("/held", maxMetaBody+1))
	_, _ = held.Commit(nil, nil)
	old := s.Get("/held")
	for i := range 600 { // 120 MB
		key := fmt.Sprint("/", i)
		put(t, s, key, bodyOf(key, 200_000))
		if st := s.Stats(); st.Bytes > disk+s.segmentSize() {
			t.Fatalf("%d bytes on disk, budget %d", st.Bytes, disk)
		}
	}
	if s.Get("/0") != nil {
		t.Error("the oldest object is still there")
	}
	if _, err := old.Open(0, 100); err == nil {
		t.Error("an object of a dropped segment was read")
	}
	want(t, s, "/599", bodyOf("/599", 200_000))
	if st := s.Stats(); st.Dropped == 0 || st.Evicted == 0 {
		t.Errorf("nothing was dropped: %+v", st)
	}
}

func TestTooLarge(t *testing.T) {
	s := open(t, Options{Disk: 8 << 20})
	defer closeStore(t, s)
	w := s.Create(Header{Key: "/a", URL: "/a"})
	n, err := io.Copy(struct{ io.Writer }{w}, bytes.NewReader(make([]byte, 3<<20)))
	if err == nil || n > 2<<20 {
		t.Fatalf("took %d bytes: %v", n, err)
	}
}

func TestSecondOpenIsRefusedByName(t *testing.T) {
	s := open(t, Options{})
	defer closeStore(t, s)
	_, err := Open(Options{Dir: s.opt.Dir})
	if err == nil || !strings.Contains(err.Error(), s.opt.Dir) ||
		!strings.Contains(err.Error(), fmt.Sprint(os.Getpid())) {
		t.Fatalf("got %v", err)
	}
}

func TestUnknownFormatIsRefusedByName(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "format"), []byte("kaiku-store 99\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Options{Dir: dir}); err == nil || !strings.Contains(err.Error(), "kaiku-store 99") {
		t.Fatalf("got %v", err)
	}
}

func TestUpdateKeepsTheBody(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir, Memory: 64 << 20})
	body := bodyOf("/a", 300_000)
	put(t, s, "/a", body, "old")
	if _, err := s.Update(s.Get("/a"), s.Epoch(), []string{"new"}, []byte("fresher")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		o := s.Get("/a")
		if string(o.Data()) != "fresher" || o.Tags()[0] != "new" || !bytes.Equal(read(t, o, 0, o.Size()), body) {
			t.Fatalf("after Update: %q %v", o.Data(), o.Tags())
		}
		closeStore(t, s)
		s = open(t, Options{Dir: dir})
	}
	closeStore(t, s)
}

func TestManyWritersAndReaders(t *testing.T) {
	s := open(t, Options{Disk: 40 << 20, Memory: 4 << 20})
	defer closeStore(t, s)
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 40 {
				key := fmt.Sprintf("/%d/%d", w, i)
				put(t, s, key, bodyOf(key, 1000+rand.IntN(400_000)))
				other := fmt.Sprintf("/%d/%d", rand.IntN(8), rand.IntN(i+1))
				o := s.Get(other)
				if o == nil {
					continue
				}
				r, err := o.Open(0, o.Size())
				if err != nil {
					continue // its segment went
				}
				var b bytes.Buffer
				if _, err := r.WriteTo(&b); err == nil && !bytes.Equal(b.Bytes(), bodyOf(other, b.Len())) {
					t.Errorf("%s: wrong bytes", other)
				}
				r.Close()
			}
		})
	}
	wg.Wait()
}

func TestKilledWriter(t *testing.T) { killWriter(t, 4) }

// killWriter runs a child that writes until it is killed, so many times, and checks all that was
// reported as stored. The folder stays the same.
func killWriter(t *testing.T, rounds int) {
	if dir := os.Getenv("KAIKU_STORAGE_CHILD"); dir != "" {
		writeForever(t, dir)
	}
	dir := t.TempDir()
	for round := range rounds {
		child := exec.Command(os.Args[0], "-test.run=^TestKilledWriter$")
		child.Env = append(os.Environ(), "KAIKU_STORAGE_CHILD="+dir)
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		var n uint64
		for range 20 + rand.IntN(100+round) {
			if err := binary.Read(out, binary.BigEndian, &n); err != nil {
				t.Fatalf("child: %v", err)
			}
		}
		if err := child.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = child.Wait()
		s := open(t, Options{Dir: dir, Disk: 32 << 30}) // nothing is to be evicted
		for i := uint64(1); i <= n; i++ {
			key := fmt.Sprint("/", i)
			want(t, s, key, bodyOf(key, int(i*7919%500_000)))
		}
		closeStore(t, s)
	}
}

func writeForever(t *testing.T, dir string) {
	s := open(t, Options{Dir: dir, Disk: 32 << 30})
	for i := uint64(1); i < 2000; i++ {
		key := fmt.Sprint("/", i)
		put(t, s, key, bodyOf(key, int(i*7919%500_000)))
		if err := binary.Write(os.Stdout, binary.BigEndian, i); err != nil {
			os.Exit(1)
		}
	}
}

func FuzzMeta(f *testing.F) {
	m := meta{fill: 7, size: 99, key: "k", url: "u", tags: []string{"a", "b"}, extents: []extent{{1, 0}, {2, 5}},
		data: []byte("d")}
	f.Add(m.append(nil))
	m.size, m.extents, m.body = 4, nil, []byte("body")
	f.Add(m.append(nil))
	f.Add([]byte{metaVersion})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseMeta(b)
		if err != nil {
			return
		}
		again, err := parseMeta(m.append(nil))
		if err != nil || !bytes.Equal(again.append(nil), m.append(nil)) {
			t.Fatalf("%+v does not come back: %v", m, err)
		}
	})
}

func TestCommitBody(t *testing.T) {
	t.Parallel()
	opt := Options{Dir: t.TempDir(), Disk: 64 << 20}
	s := open(t, opt)
	sizes := []int{0, 1, 63, 8 << 10, MaxBody}
	for _, size := range sizes {
		key := fmt.Sprint(size)
		w := s.Create(Header{Key: key, URL: key, Epoch: s.Epoch()})
		body, sent := NewBody(size), bodyOf(key, size)
		copy(body.Bytes(), sent)
		if _, err := w.CommitBody(body, []string{"tag"}, []byte("data of "+key)); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, size)
		if n, err := w.ReadAt(got, 0); n != size || err != nil || !bytes.Equal(got, sent) {
			t.Errorf("ReadAt of %d bytes after CommitBody: %d, %v", size, n, err)
		}
		if !bytes.Equal(body.Bytes(), sent) {
			t.Errorf("%d bytes changed when they were stored", size)
		}
	}
	closeStore(t, s)
	s = open(t, opt)
	defer closeStore(t, s)
	for _, size := range sizes {
		want(t, s, fmt.Sprint(size), bodyOf(fmt.Sprint(size), size))
	}
}
