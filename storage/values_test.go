package storage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
)

// socket returns a socket, and what reads the other end of it.
func socket(t *testing.T) (*net.TCPConn, *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	far, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	near, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close(); far.Close() })
	return near.(*net.TCPConn), far.(*net.TCPConn)
}

// send sends what a Reader has left to a socket.
func send(r *Reader, to *net.TCPConn) error {
	raw, err := to.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Write(func(fd uintptr) bool {
		for r.Len() > 0 {
			if _, failed = r.SendTo(int(fd)); failed == syscall.EAGAIN {
				failed = nil
				return false
			} else if failed != nil {
				return true
			}
		}
		return true
	})
	return errors.Join(err, failed)
}

// sent is a range of an object as it comes out of a socket.
func sent(t *testing.T, o *Object, off, n int64) []byte {
	t.Helper()
	r, err := o.Open(off, n)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := arrived(t, r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// arrived is what a Reader has left, as it comes out of a socket.
func arrived(t *testing.T, r *Reader) ([]byte, error) {
	t.Helper()
	near, far := socket(t)
	got := make(chan []byte, 1)
	go func() {
		b, _ := io.ReadAll(far)
		got <- b
	}()
	err := send(r, near)
	near.Close()
	return <-got, err
}

// placed is how many chunks of an object lie in files that are known.
func placed(t *testing.T, o *Object) (n int) {
	t.Helper()
	r, err := o.Open(0, o.Size())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for r.Len() > 0 {
		if r.file != nil {
			n++
		}
		b, err := r.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		r.Discard(len(b))
		if err := r.advance(); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

func wantPlaces(t *testing.T) {
	if !canPlace {
		t.Skip("values are not sent from their files here")
	}
}

// Chunks are sent from their files by all ways: in the open segment, in one that is sealed, and
// after a restart.
func TestPlaces(t *testing.T) {
	wantPlaces(t)
	t.Parallel()
	dir := t.TempDir()
	opt := Options{Dir: dir, Disk: segmentCount << 20, Memory: 1 << 10}
	s := open(t, opt)
	const size = 2*chunkSize + minPlaced
	body := bodyOf("/a", size)
	put(t, s, "/a", body)
	check := func(when string) {
		t.Helper()
		for range 4 { // from the third on from the RAM tier's list of places
			o := s.Get("/a")
			if o == nil {
				t.Fatalf("%s: it is a miss", when)
			}
			if n := placed(t, o); n != 3 {
				t.Fatalf("%s: %d of 3 chunks have a place", when, n)
			}
			off := rand.Int64N(size)
			n := rand.Int64N(size-off) + 1
			if !bytes.Equal(sent(t, o, off, n), body[off:off+n]) || !bytes.Equal(read(t, o, off, n), body[off:off+n]) {
				t.Fatalf("%s: range %d+%d differs", when, off, n)
			}
		}
	}
	check("in the open segment")
	g := s.segment(s.Get("/a").Segment())
	for i := 0; !g.isSealed(); i++ {
		put(t, s, fmt.Sprint("/", i%8), bodyOf("", 200_000))
		runtime.Gosched()
	}
	check("sealed")
	closeStore(t, s)
	s = open(t, opt)
	defer closeStore(t, s)
	check("after a restart")
}

// A chunk whose place Badger has wrong, or does not tell, is read in the other way.
func TestWrongPlace(t *testing.T) {
	wantPlaces(t)
	s := open(t, Options{Disk: 64 << 20})
	defer closeStore(t, s)
	put(t, s, "/a", bodyOf("/a", chunkSize))
	put(t, s, "/b", bodyOf("/b", chunkSize))
	a, b := s.Get("/a"), s.Get("/b")
	g := s.segment(a.Segment())
	key := func(o *Object) []byte { return chunkKey(idOf(o.meta.key), o.meta.fill, 0) }
	number, at, err := g.pointer(key(a))
	if err != nil {
		t.Fatal(err)
	}
	v, err := g.files.get(number)
	if err != nil {
		t.Fatal(err)
	}
	e, err := v.readEntry(at)
	if err != nil {
		t.Fatal(err)
	}
	buf := new(buffer)
	if err := v.check(key(a), e, buf); err != nil {
		t.Errorf("the right place: %v", err)
	}
	if err := v.check(key(b), e, buf); !errors.Is(err, errDamaged) {
		t.Errorf("the place of another value: %v", err)
	}
	for _, off := range []int64{-1, 1, valueHeader} {
		wrong := e
		wrong.value += off
		if err := v.check(key(a), wrong, buf); !errors.Is(err, errDamaged) {
			t.Errorf("%d bytes beside the place: %v", off, err)
		}
	}
	for _, entry := range []uint32{0, at - 1, at + 1, 1 << 27, 1<<32 - 1} {
		if e, err := v.readEntry(entry); err == nil && string(e.key) == string(key(a)) {
			t.Errorf("at %d there is the entry of %d", entry, at)
		}
	}
	fields := itemFields
	defer func() { itemFields = fields }()
	itemFields.vptr = nil
	if n := placed(t, a); n != 0 {
		t.Errorf("%d chunks have a place that nobody tells", n)
	}
	want(t, s, "/a", bodyOf("/a", chunkSize))
}

// flip flips a bit of the first chunk of an object in its value log. It is found there at once if
// the store was opened since the object was stored.
func flip(t *testing.T, s *Store, o *Object) {
	t.Helper()
	g := s.segment(o.Segment())
	number, at, err := g.pointer(chunkKey(idOf(o.meta.key), o.meta.fill, 0))
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.OpenFile(filepath.Join(g.dir, fmt.Sprintf("%06d.vlog", number)), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	var b [1]byte
	_, err = file.ReadAt(b[:], int64(at)+1000)
	b[0] ^= 4
	_, err2 := file.WriteAt(b[:], int64(at)+1000)
	if err := errors.Join(err, err2, file.Close()); err != nil {
		t.Fatal(err)
	}
}

// A bit that flips before a value is first used is never sent, and one that flips later is found by
// the scrubber, and not sent after that.
func TestScrubber(t *testing.T) {
	wantPlaces(t)
	t.Parallel()
	opt := Options{Dir: t.TempDir(), Disk: 64 << 20, Memory: 1 << 10}
	s := open(t, opt)
	for _, key := range []string{"/a", "/b", "/c"} {
		put(t, s, key, bodyOf(key, chunkSize+minPlaced))
	}
	closeStore(t, s)
	s = open(t, opt)
	defer closeStore(t, s)
	flip(t, s, s.Get("/a"))
	if r, err := s.Get("/a").Open(0, chunkSize); err == nil {
		r.Close()
		t.Fatal("what was damaged before its first use was opened")
	}
	if s.Get("/a") != nil {
		t.Error("what is damaged is still found")
	}
	for range 3 {
		for _, key := range []string{"/b", "/c"} {
			want(t, s, key, bodyOf(key, chunkSize+minPlaced))
		}
	}
	flip(t, s, s.Get("/b"))
	for at := s.scrub(scrubPlace{}, chunkSize); at != (scrubPlace{}); {
		at = s.scrub(at, chunkSize)
	}
	if r, err := s.Get("/b").Open(0, chunkSize); err == nil {
		r.Close()
		t.Error("what the scrubber has found damaged was opened")
	}
	if s.Get("/b") != nil {
		t.Error("what the scrubber has found damaged is still found")
	}
	want(t, s, "/c", bodyOf("/c", chunkSize+minPlaced))
}

// FuzzReader reads ranges in all ways, and compares them with the body.
func FuzzReader(f *testing.F) {
	f.Add([]byte{1, 2, 3, 4, 5, 6, 7, 8, 9})
	f.Add([]byte{0, 0, 0, 0, 0, 8, 0, 0, 200, 100, 255, 2})
	f.Add([]byte{0, 4, 0, 1, 0, 7, 0, 0, 2, 5, 254, 255, 128})
	f.Add([]byte{0, 0, 64, 0, 0, 1, 0, 0, 254, 8})
	const size = 3*chunkSize + 5000
	body := bodyOf("/a", size)
	s, err := Open(Options{Dir: f.TempDir(), Disk: 64 << 20, Memory: 1 << 10, Floor: 1})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = s.Close() })
	w := s.Create(Header{Key: "/a", URL: "/a"})
	if _, err := w.Write(body); err != nil {
		f.Fatal(err)
	}
	if _, err := w.Commit(nil, nil); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, steps []byte) {
		var n [8]byte
		steps = steps[copy(n[:], steps):]
		off := int64(binary.BigEndian.Uint32(n[:]) % size)
		left := int64(binary.BigEndian.Uint32(n[4:])) % (size - off + 1)
		r, err := s.Get("/a").Open(off, left)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		for _, step := range steps {
			if r.Len() != left {
				t.Fatalf("%d bytes are left, want %d", r.Len(), left)
			}
			b, err := r.Bytes()
			if err != nil || len(b) == 0 != (left == 0) || !bytes.Equal(b, body[off:off+int64(len(b))]) {
				t.Fatalf("%d bytes at %d, %v", len(b), off, err)
			}
			n := len(b) * int(step) / 255
			switch step % 3 {
			case 0:
				r.Discard(n)
			case 2:
				p := r.AppendHead(make([]byte, 1, 1+n))[1:]
				if !bytes.Equal(p, b[:len(p)]) {
					t.Fatalf("%d bytes at %d after a header block are others", len(p), off)
				}
				n = len(p)
			default:
				p := make([]byte, n)
				if got, err := io.ReadFull(r, p); got != n || err != nil || !bytes.Equal(p, body[off:off+int64(n)]) {
					t.Fatalf("read %d of %d bytes at %d, %v", got, n, off, err)
				}
			}
			off, left = off+int64(n), left-int64(n)
		}
		var rest bytes.Buffer
		if len(steps)%3 == 2 {
			if b, err := arrived(t, r); err != nil || !bytes.Equal(b, body[off:off+left]) {
				t.Fatalf("%d of %d bytes came out of a socket, %v", len(b), left, err)
			}
			return
		}
		write := r.WriteTo
		if len(steps)%2 == 1 {
			write = r.WriteMapped
		}
		if _, err := write(&rest); err != nil || !bytes.Equal(rest.Bytes(), body[off:off+left]) {
			t.Fatalf("%d of %d bytes, %v", rest.Len(), left, err)
		}
	})
}
