package storage

import (
	"bytes"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestDamage(t *testing.T) { damage(t, 6) }

// damage does to the files of a store what a power loss or a bad disk does, so many times: tails of
// the files that were written last are cut off or zeroed, bits are flipped anywhere. A child opens
// the store, reads everything, and must find each object right or missing, and no crash more than
// Badger is allowed: the third start has to work.
func damage(t *testing.T, rounds int) {
	if dir := os.Getenv("KAIKU_STORAGE_DAMAGED"); dir != "" {
		readDamaged(t, dir)
		return
	}
	rng := rand.New(rand.NewPCG(uint64(rounds), 3))
	for round := range rounds {
		dir := t.TempDir()
		s := open(t, Options{Dir: dir, Disk: 64 << 20})
		for i := range 60 {
			key := fmt.Sprint("/", i)
			put(t, s, key, bodyOf(key, i*7919%400_000))
		}
		copied := filepath.Join(t.TempDir(), "crashed")
		if round%2 == 0 { // as it is found when the power went
			for exec.Command("cp", "-r", "--sparse=always", dir, copied).Run() != nil {
				// a segment was sealed meanwhile
				if err := os.RemoveAll(copied); err != nil {
					t.Fatal(err)
				}
			}
		}
		closeStore(t, s)
		if round%2 == 1 {
			copied = dir
		}
		hurt(t, rng, copied)
		var out []byte
		for try := 0; ; try++ {
			child := exec.Command(os.Args[0], "-test.run=^TestDamage$")
			child.Env = append(os.Environ(), "KAIKU_STORAGE_DAMAGED="+copied)
			var err error
			if out, err = child.CombinedOutput(); err == nil {
				break
			}
			if bytes.Contains(out, []byte("wrong bytes")) || try == 2*openTries {
				t.Fatalf("round %d, start %d: %v\n%s", round, try, err, out)
			}
		}
	}
}

// hurt damages some of a store's data files.
func hurt(t *testing.T, rng *rand.Rand, dir string) {
	t.Helper()
	var files []string
	err := filepath.WalkDir(filepath.Join(dir, "segments"), func(path string, d fs.DirEntry, err error) error {
		name := filepath.Base(path)
		if err == nil && d.Type().IsRegular() && name != "LOCK" && name != sealedName && name != epochName {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	modified := func(path string) int64 {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info.ModTime().UnixNano()
	}
	slices.SortFunc(files, func(a, b string) int { return int(modified(b)/1e6 - modified(a)/1e6) })
	for n := range 4 {
		path := files[rng.IntN(len(files))]
		if n < 2 {
			path = files[rng.IntN(min(6, len(files)))] // one of those that were written last
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if len(b) == 0 {
			continue
		}
		used := len(bytes.TrimRight(b, "\x00"))
		at := rng.IntN(max(1, used))
		switch rng.IntN(3) {
		case 0:
			b = b[:at]
		case 1:
			clear(b[at:])
		case 2:
			for range 5 {
				b[rng.IntN(max(1, used))] ^= 1 << rng.IntN(8)
			}
		}
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// readDamaged is the child: it reads what is there, and stores something more.
func readDamaged(t *testing.T, dir string) {
	s := open(t, Options{Dir: dir, Disk: 64 << 20})
	for i := range 60 {
		key := fmt.Sprint("/", i)
		o := s.Get(key)
		if o == nil {
			continue
		}
		r, err := o.Open(0, o.Size())
		if err != nil {
			continue
		}
		var b bytes.Buffer
		if _, err := r.WriteTo(&b); err == nil && !bytes.Equal(b.Bytes(), bodyOf(key, i*7919%400_000)) {
			t.Errorf("%s: wrong bytes", key)
		}
		r.Close()
	}
	put(t, s, "/new", []byte("new"))
	want(t, s, "/new", []byte("new"))
	closeStore(t, s)
}

// TestGoldenFolder opens a folder that an earlier version wrote: a change of the format has to be
// noticed, and given a new number.
func TestGoldenFolder(t *testing.T) {
	const golden = "testdata/golden"
	if os.Getenv("KAIKU_WRITE_GOLDEN") != "" {
		writeGolden(t, golden)
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(golden)); err != nil {
		t.Fatal(err)
	}
	s := open(t, Options{Dir: dir, Disk: 64 << 20})
	defer closeStore(t, s)
	want(t, s, "/small", []byte("small"))
	want(t, s, "/large", bytes.Repeat([]byte("0123456789"), 60_000))
	if o := s.Get("/soft"); o == nil || !o.Stale || strings.Join(o.Tags(), " ") != "red blue" {
		t.Errorf("/soft: %+v", o)
	}
	if s.Get("/gone") != nil {
		t.Error("what was purged is there")
	}
	if s.Epoch() < 2 || s.Epoch() >= lostSequences { // the folder was closed, so that no purge can have been lost
		t.Errorf("purge sequence %d", s.Epoch())
	}
}

// writeGolden makes the folder anew; its Badger files are cut to what is used.
func writeGolden(t *testing.T, dir string) {
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	s := open(t, Options{Dir: dir, Disk: 64 << 20})
	put(t, s, "/small", []byte("small"))
	put(t, s, "/large", bytes.Repeat([]byte("0123456789"), 60_000))
	put(t, s, "/soft", []byte("soft"), "red", "blue")
	put(t, s, "/gone", []byte("gone"))
	for _, p := range []Purge{{Tags: []string{"blue"}, Soft: true}, {URLs: []string{"/gone"}}} {
		if _, err := s.Purge(p); err != nil {
			t.Fatal(err)
		}
	}
	closeStore(t, s)
}

// A store whose power failed while its format was written begins anew, and says so.
func TestTornFormatBeginsAnew(t *testing.T) {
	for _, n := range []int{0, 5, len(formatLine) - 1} {
		dir := t.TempDir()
		s := open(t, Options{Dir: dir})
		put(t, s, "/a", []byte("a"))
		closeStore(t, s)
		if err := os.Truncate(filepath.Join(dir, "format"), int64(n)); err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		s = open(t, Options{Dir: dir, Log: slog.New(slog.NewTextHandler(&log, nil))})
		if s.Get("/a") != nil {
			t.Errorf("%d bytes of the format: an object of an unknown format is served", n)
		}
		if !strings.Contains(log.String(), "begins anew") {
			t.Errorf("%d bytes of the format: the log has %q", n, log.String())
		}
		put(t, s, "/b", []byte("b"))
		closeStore(t, s)
		s = open(t, Options{Dir: dir})
		if s.Get("/b") == nil {
			t.Errorf("%d bytes of the format: the next start begins anew too", n)
		}
		closeStore(t, s)
	}
}

func TestCorruptSegmentIsDeletedAndTheRestServed(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir, Disk: 48 << 20})
	for i := range 30 {
		put(t, s, fmt.Sprint("/", i), bodyOf(fmt.Sprint("/", i), 300_000))
	}
	first, last := s.Get("/0").Segment(), s.Get("/29").Segment()
	closeStore(t, s)
	if first == last {
		t.Fatal("one segment only")
	}
	if err := os.WriteFile(filepath.Join(s.segmentDir(first, probation), "MANIFEST"), []byte("nonsense"),
		0o644); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	s = open(t, Options{Dir: dir, Disk: 48 << 20, Log: slog.New(slog.NewTextHandler(&log, nil))})
	defer closeStore(t, s)
	if n := strings.Count(log.String(), "segment can't be opened and is deleted"); n != 1 {
		t.Errorf("%d log lines:\n%s", n, log.String())
	}
	if s.Get("/0") != nil {
		t.Error("an object of the corrupt segment is there")
	}
	want(t, s, "/29", bodyOf("/29", 300_000))
}

func TestSegmentThatEndsTheProcessIsDeleted(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir})
	put(t, s, "/a", []byte("a"))
	id := s.Get("/a").Segment()
	closeStore(t, s)
	if err := os.WriteFile(filepath.Join(dir, "opening"), fmt.Appendf(nil, "%d %d\n", id, openTries),
		0o644); err != nil {
		t.Fatal(err)
	}
	s = open(t, Options{Dir: dir})
	if s.Get("/a") != nil {
		t.Error("the segment was opened again")
	}
	put(t, s, "/a", []byte("a"))
	closeStore(t, s)
	s = open(t, Options{Dir: dir})
	defer closeStore(t, s)
	if s.Get("/a") == nil {
		t.Error("a segment was deleted for the fault of an earlier one")
	}
}

func TestFlippedBitIsAMiss(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir, Disk: segmentCount << 20})
	body := bodyOf("/a", 100_000)
	put(t, s, "/a", body)
	put(t, s, "/b", bodyOf("/b", 100_000))
	for i := range 10 { // so that the segment is sealed: Badger cuts a log that it writes on at the first damage
		put(t, s, fmt.Sprint("/", i), bodyOf("", 200_000))
	}
	seg := s.segmentDir(s.Get("/a").Segment(), probation)
	closeStore(t, s)
	logs, _ := filepath.Glob(filepath.Join(seg, "*.vlog"))
	flipped := false
	for _, f := range logs {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if at := bytes.Index(b, body[50_000:50_100]); at >= 0 {
			b[at+7] ^= 4
			flipped = true
			if err := os.WriteFile(f, b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	if !flipped {
		t.Fatal("body not found in the value log")
	}
	s = open(t, Options{Dir: dir})
	defer closeStore(t, s)
	if o := s.Get("/a"); o != nil {
		if r, err := o.Open(0, o.Size()); err == nil {
			r.Close()
			t.Fatal("a damaged body was opened")
		}
	}
	if s.Get("/a") != nil {
		t.Error("a damaged object is still found")
	}
	want(t, s, "/b", bodyOf("/b", 100_000))
}
