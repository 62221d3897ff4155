package storage

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"sync/atomic"
	"testing"
)

// logFile returns what the value log that a segment writes to has on the file system, and what
// Badger has in memory.
func logFile(t *testing.T, g *segment) (file, memory []byte) {
	t.Helper()
	w := &g.window
	if w.from >= w.to || w.end < w.from {
		t.Fatalf("Badger writes at %d, the window is from %d to %d", w.end, w.from, w.to)
	}
	f, err := os.Open(filepath.Join(g.dir, fmt.Sprintf("%06d.vlog", w.number)))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	file = make([]byte, w.end)
	if _, err := io.ReadFull(f, file); err != nil {
		t.Fatal(err)
	}
	return file, w.data[:w.end]
}

// What is stored is in the file, wherever Badger has written it.
func TestWindow(t *testing.T) {
	t.Parallel()
	s := open(t, Options{Disk: 32 * 10 << 20})
	defer closeStore(t, s)
	g := s.opened(probation)
	for i := range 40 {
		key := fmt.Sprint("/", i)
		put(t, s, key, bodyOf(key, 1+i*i*200%300_000))
		if file, memory := logFile(t, g); !bytes.Equal(file, memory) {
			t.Fatalf("after %d objects the file isn't what Badger has in memory", i+1)
		}
		if size := g.window.to - g.window.from; size > 2*windowStep {
			t.Fatalf("the window has %d bytes", size)
		}
	}
	if g.window.from == 0 {
		t.Error("the window didn't move")
	}
	if err := g.seal(); err != nil {
		t.Fatal(err)
	}
	for i := range 40 {
		key := fmt.Sprint("/", i)
		want(t, s, key, bodyOf(key, 1+i*i*200%300_000))
	}
}

// If the file can't be written, nothing is stored until it can. Then it has no hole: after a kill,
// Badger would cut the file there.
func TestWindowThatCantBeWritten(t *testing.T) {
	t.Parallel()
	s := open(t, Options{Disk: 1 << 30})
	defer closeStore(t, s)
	body := bodyOf("", 100_000)
	put(t, s, "/before", body)
	w := &s.opened(probation).window
	readOnly, err := os.Open(filepath.Join(s.opened(probation).dir, fmt.Sprintf("%06d.vlog", w.number)))
	if err != nil {
		t.Fatal(err)
	}
	defer readOnly.Close()
	fd := w.fd
	w.fd = int(readOnly.Fd())
	for i := range 3 {
		fill := s.Create(Header{Key: fmt.Sprint("/refused/", i), Epoch: s.Epoch()})
		if _, err := fill.Write(body); err != nil {
			t.Fatal(err)
		}
		if o, err := fill.Commit(nil, nil); err == nil {
			t.Fatalf("%v was stored in a file that can't be written", o)
		}
	}
	w.fd = fd
	put(t, s, "/after", body)
	if file, memory := logFile(t, s.opened(probation)); !bytes.Equal(file, memory) {
		t.Error("the file isn't what Badger has in memory")
	}
	want(t, s, "/before", body)
	want(t, s, "/after", body)
}

// Badger begins another value log when one is full, and the window follows.
func TestWindowAtTheEndOfALog(t *testing.T) {
	t.Parallel()
	s := open(t, Options{Disk: 32 * 200 << 20})
	defer closeStore(t, s)
	g := s.opened(probation)
	put(t, s, "/first", bodyOf("/first", 1000))
	offset := reflect.ValueOf(g.db).Elem().FieldByIndex(logFields.offset).Addr().UnsafePointer()
	(*atomic.Uint32)(offset).Store(valueLogSize - 5<<20)
	first := g.window.number
	for i := range 100 {
		key := fmt.Sprint("/", i)
		put(t, s, key, bodyOf(key, 100_000))
	}
	if g.window.number == first {
		t.Errorf("Badger still writes to value log %d", first)
	}
	if file, memory := logFile(t, g); !bytes.Equal(file, memory) {
		t.Error("the file isn't what Badger has in memory")
	}
	check := func() {
		t.Helper()
		want(t, s, "/first", bodyOf("/first", 1000))
		for i := range 100 {
			key := fmt.Sprint("/", i)
			want(t, s, key, bodyOf(key, 100_000))
		}
	}
	check()
	if err := g.seal(); err != nil {
		t.Fatal(err)
	}
	check()
}

// Badger's fields are where the window looks for them.
func TestFieldsOfBadger(t *testing.T) {
	t.Parallel()
	s := open(t, Options{Disk: 64 << 20})
	defer closeStore(t, s)
	put(t, s, "/a", bodyOf("/a", 3000))
	g := s.opened(probation)
	o := s.Get("/a")
	number, at, err := g.pointer(chunkKey(idOf("/a"), o.meta.fill, 0))
	if err != nil {
		t.Fatal(err)
	}
	if n, end, ok := logOf(g.db); !ok || n != number || end <= int(at) || end > int(at)+9000 {
		t.Errorf("the end is at %d of %d, %v; an entry is at %d of %d", end, n, ok, at, number)
	}
	if m := mappingOf(g.db, number); m == nil || len(m.Data) != 2*valueLogSize {
		t.Errorf("mapped is %v", m)
	}
	if m := mappingOf(g.db, number+1); m != nil {
		t.Errorf("mapped is %v", m)
	}
}
