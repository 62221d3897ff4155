package storage

import (
	"bytes"
	"fmt"
	"testing"
)

// A small body is a part of the metadata, and is read, followed, updated and written again as
// others.
func TestSmallBodies(t *testing.T) {
	t.Parallel()
	for _, size := range []int{0, 1, 200, maxMetaBody, maxMetaBody + 1} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			opt := Options{Dir: t.TempDir(), Disk: 64 << 20, Memory: 1 << 20}
			s := open(t, opt)
			body := bodyOf("/small", size)
			w := s.Create(Header{Key: "/small", URL: "/small", Epoch: s.Epoch()})
			if _, err := w.Write(body); err != nil {
				t.Fatal(err)
			}
			o, err := w.Commit([]string{"tag"}, []byte("data"))
			if err != nil {
				t.Fatal(err)
			}
			followed := make([]byte, size)
			if n, err := w.ReadAt(followed, 0); err != nil || !bytes.Equal(followed[:n], body) {
				t.Errorf("a follower reads %d bytes, %v", n, err)
			}
			inMeta := size > 0 && size <= maxMetaBody
			g := s.segment(o.Segment())
			err = g.get(chunkKey(idOf("/small"), o.meta.fill, 0), func([]byte) error { return nil })
			if hasChunk := err == nil; hasChunk != (size > maxMetaBody) || inMeta != (o.meta.body != nil) {
				t.Errorf("chunk: %v; body in the metadata: %v", err, o.meta.body != nil)
			}
			if size > 1 {
				if got := read(t, o, 1, int64(size-1)); !bytes.Equal(got, body[1:]) {
					t.Error("a range has other bytes")
				}
			}
			if o, err = s.Update(o, s.Epoch(), []string{"tag"}, []byte("new data")); err != nil {
				t.Fatal(err)
			}
			m, version := s.current(idOf("/small"), o.place)
			if err := s.rewrite(idOf("/small"), m, version, o.place, false, s.Epoch()); err != nil {
				t.Fatal(err)
			}
			check := func() {
				t.Helper()
				for range ramHits + 1 { // from the disk, then from RAM
					if o := s.Get("/small"); o == nil || !bytes.Equal(read(t, o, 0, o.Size()), body) ||
						string(o.Data()) != "new data" {
						t.Fatalf("got %v", o)
					}
				}
				if o := s.Hot("/small"); o == nil || !bytes.Equal(o.Body(), body) {
					t.Errorf("%v is in RAM", o)
				}
			}
			check()
			closeStore(t, s)
			s = open(t, opt)
			defer closeStore(t, s)
			check()
		})
	}
}
