package edge

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/site"
)

// sparse is an object whose bytes are computed from their offset, so that it may be of any size.
type sparse struct {
	size int64
	off  int64
	sent *atomic.Int64
}

// byteAt differs from place to place, in every period of a power of two.
func byteAt(off int64) byte { return byte(off*2654435761>>13) ^ byte(off>>20) }

func (s *sparse) Read(p []byte) (int, error) {
	if s.off >= s.size {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), s.size-s.off))
	for i := range n {
		p[i] = byteAt(s.off + int64(i))
	}
	s.off += int64(n)
	s.sent.Add(int64(n))
	return n, nil
}

func (s *sparse) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekStart:
		s.off = offset
	case io.SeekEnd:
		s.off = s.size + offset
	}
	return s.off, nil
}

// sparseOrigin serves an object of size bytes and counts those that it sends.
func sparseOrigin(size int64, sent *atomic.Int64) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=3600")
		w.Header().Set("ETag", `"v1"`)
		w.Header().Set("Content-Type", "video/mp4")
		http.ServeContent(w, r, "", time.Time{}, &sparse{size: size, sent: sent})
	}
}

func checkSparse(t *testing.T, body []byte, off int64) {
	t.Helper()
	for i, b := range body {
		if b != byteAt(off+int64(i)) {
			t.Fatalf("byte %d of the object is wrong", off+int64(i))
		}
	}
}

// TestVideoPlayerSeeksInALargeObject plays one: it asks for ranges at random places, some
// open-ended ones that it leaves midway.
func TestVideoPlayerSeeksInALargeObject(t *testing.T) {
	overProtocols(t, testVideoPlayerSeeksInALargeObject)
}

func testVideoPlayerSeeksInALargeObject(t *testing.T, p protocol) {
	const size, slice = int64(4) << 30, int64(1) << 20
	var sent atomic.Int64
	e := p.newEdge(t, sparseOrigin(size, &sent), func(_ *Server, s *site.Site) { s.Slice = slice })
	var asked int64
	for i := range 40 {
		off, n := rand.Int64N(size-4*slice), 1+rand.Int64N(3*slice)
		before := sent.Load()
		a := e.get("/film", fmt.Sprintf("Range: bytes=%d-%d", off, off+n-1))
		if a.err != nil || a.status != http.StatusPartialContent || int64(len(a.body)) != n {
			t.Fatalf("seek %d: status %d, %d bytes, %v", i, a.status, len(a.body), a.err)
		}
		checkSparse(t, []byte(a.body), off)
		if want := fmt.Sprintf("bytes %d-%d/%d", off, off+n-1, size); a.header.Get("Content-Range") != want {
			t.Errorf("Content-Range %q, want %q", a.header.Get("Content-Range"), want)
		}
		asked += n
		if extra := sent.Load() - before - n; extra > 2*slice {
			t.Errorf("seek %d: the origin sent %d bytes more than were asked for", i, extra)
		}
		// The same again comes from the store.
		before = sent.Load()
		a = e.get("/film", fmt.Sprintf("Range: bytes=%d-%d", off, off+n-1))
		checkSparse(t, []byte(a.body), off)
		if !a.isHit() || sent.Load() != before {
			t.Errorf("seek %d again: %v, and the origin sent %d bytes", i, a.header["Cache-Status"], sent.Load()-before)
		}
	}
	if st := e.Store.Stats(); st.Bytes > asked+80*slice+(64<<20) {
		t.Errorf("%d bytes on disk for %d that were watched", st.Bytes, asked)
	}
}

func TestOpenEndedRangeThatIsLeft(t *testing.T) { overProtocols(t, testOpenEndedRangeThatIsLeft) }

func testOpenEndedRangeThatIsLeft(t *testing.T, p protocol) {
	const size, slice = int64(1) << 30, int64(1) << 20
	var sent atomic.Int64
	e := p.newEdge(t, sparseOrigin(size, &sent), func(_ *Server, s *site.Site) { s.Slice = slice })
	ctx, leave := context.WithCancel(t.Context())
	resp, err := e.client.Do(e.request("GET", "/film", "", "Range: bytes=5000000-").WithContext(ctx))
	if err != nil {
		t.Fatal(err)
	}
	body := make([]byte, 3*slice)
	if _, err := io.ReadFull(resp.Body, body); err != nil {
		t.Fatal(err)
	}
	checkSparse(t, body, 5000000)
	leave()
	resp.Body.Close()
	e.settle()
	// What was underway in sockets when the client left counts as asked for.
	if n := sent.Load(); n > 3*slice+2*slice+(8<<20) {
		t.Errorf("the origin sent %d bytes for %d", n, 3*slice)
	}
}

// TestSmallRangeOfASmallObject has the whole object after the first range.
func TestSmallRangeOfASmallObject(t *testing.T) { overProtocols(t, testSmallRangeOfASmallObject) }

func testSmallRangeOfASmallObject(t *testing.T, p protocol) {
	var sent atomic.Int64
	e := p.newEdge(t, sparseOrigin(60_000, &sent))
	for i, r := range []string{"bytes=10-19", "bytes=-5", "bytes=59990-", ""} { // a block has all of it
		a := e.get("/a", "Range: "+r)
		if r == "" {
			a = e.get("/a")
		}
		if i > 0 && !a.isHit() {
			t.Errorf("%q: %v", r, a.header["Cache-Status"])
		}
	}
	e.wantHits(1)
}

func TestOriginWithoutRanges(t *testing.T) { overProtocols(t, testOriginWithoutRanges) }

func testOriginWithoutRanges(t *testing.T, p protocol) {
	body := strings.Repeat("0123456789", 10_000)
	var asked []string
	e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Header.Get("Range"))
		w.Header().Set("Cache-Control", "max-age=1, no-cache") // validated at each use
		w.Header().Set("ETag", fmt.Sprint(`"`, len(asked), `"`))
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		_, _ = io.WriteString(w, body)
	})
	for range 3 {
		a := e.get("/a", "Range: bytes=20-29")
		a.wants(t, http.StatusPartialContent, "0123456789")
		e.Store.Forget(e.url("/a"))
	}
	if asked[0] == "" || asked[1] != "" || asked[2] != "" {
		t.Errorf("the origin was asked for %q: it was found out at the first", asked)
	}
}

// TestObjectThatChangesMidway ends the response and drops what was stored of the old one.
func TestObjectThatChangesMidway(t *testing.T) { overProtocols(t, testObjectThatChangesMidway) }

func testObjectThatChangesMidway(t *testing.T, p protocol) {
	const size, slice = 400_000, 100_000
	var version atomic.Int64
	version.Store(1)
	e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		v := version.Load()
		w.Header().Set("Cache-Control", "max-age=3600")
		w.Header().Set("ETag", fmt.Sprintf(`"v%d"`, v))
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(bytes.Repeat([]byte{'0' + byte(v)}, size)))
	}, func(_ *Server, s *site.Site) { s.Slice = slice })
	a := e.get("/film", "Range: bytes=0-9")
	a.wants(t, http.StatusPartialContent, "1111111111")
	version.Store(2)
	a = e.doCut(e.request("GET", "/film", "", "Range: bytes=50000-250000"))
	e.settle()
	if a.err == nil {
		t.Fatalf("two versions in one response: status %d, %d bytes", a.status, len(a.body))
	}
	if strings.Contains(a.body, "2") {
		t.Error("bytes of the new version follow those of the old one")
	}
	a = e.get("/film", "Range: bytes=0-9")
	a.wants(t, http.StatusPartialContent, "2222222222")
	a = e.get("/film", "Range: bytes=50000-250000")
	a.wants(t, http.StatusPartialContent, strings.Repeat("2", 200_001))
}

func TestWholeOfAnObjectInFragments(t *testing.T) { overProtocols(t, testWholeOfAnObjectInFragments) }

func testWholeOfAnObjectInFragments(t *testing.T, p protocol) {
	const size = 500_000
	var sent atomic.Int64
	e := p.newEdge(t, sparseOrigin(size, &sent), func(_ *Server, s *site.Site) { s.Slice = 100_000 })
	e.get("/film", "Range: bytes=150000-150009")
	e.get("/film", "Range: bytes=350000-350009")
	a := e.get("/film")
	if a.status != 200 || len(a.body) != size || a.header.Get("Content-Length") != strconv.Itoa(size) ||
		a.cacheStatus()["fwd"] != "partial" {
		t.Fatalf("%d, %d bytes, %v", a.status, len(a.body), a.header)
	}
	checkSparse(t, []byte(a.body), 0)
	if n := sent.Load(); n != size {
		t.Errorf("the origin sent %d bytes of %d", n, size)
	}
	if a = e.get("/film"); !a.isHit() || len(a.body) != size {
		t.Errorf("again: %d bytes, %v", len(a.body), a.header["Cache-Status"])
	}
	a = e.get("/film", "Range: bytes=0-4,499995-")
	if a.status != http.StatusPartialContent || !strings.HasPrefix(a.header.Get("Content-Type"),
		"multipart/byteranges") {
		t.Errorf("several ranges: %d %v", a.status, a.header)
	}
}

// TestPartThatIsGiven stores what an origin sends, whatever was asked, and completes it (RFC 9111,
// 3.3 and 3.4).
func TestPartThatIsGiven(t *testing.T) { overProtocols(t, testPartThatIsGiven) }

func testPartThatIsGiven(t *testing.T, p protocol) {
	e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=3600")
		w.Header().Set("ETag", `"x"`)
		if r.Header.Get("Range") == "bytes=5-" {
			w.Header().Set("Content-Range", "bytes 5-9/10")
			w.WriteHeader(http.StatusPartialContent)
			_, _ = io.WriteString(w, "56789")
			return
		}
		w.Header().Set("Content-Range", "bytes 0-4/10")
		w.WriteHeader(http.StatusPartialContent)
		_, _ = io.WriteString(w, "01234")
	})
	e.get("/a", "Range: bytes=0-4").wants(t, 206, "01234")
	a := e.get("/a", "Range: bytes=1-2")
	a.wants(t, 206, "12")
	if !a.isHit() {
		t.Errorf("inside of what is stored: %v", a.header["Cache-Status"])
	}
	e.get("/a").wants(t, 200, "0123456789")
	e.wantHits(2)
	a = e.get("/a")
	a.wants(t, 200, "0123456789")
	if !a.isHit() {
		t.Errorf("whole: %v", a.header["Cache-Status"])
	}
}

// TestPartWithoutValidator is stored, but nothing is added to it.
func TestPartWithoutValidator(t *testing.T) { overProtocols(t, testPartWithoutValidator) }

func testPartWithoutValidator(t *testing.T, p protocol) {
	e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=3600")
		if r.Header.Get("Range") == "" {
			_, _ = io.WriteString(w, "0123456789")
			return
		}
		w.Header().Set("Content-Range", "bytes 4-9/10")
		w.WriteHeader(http.StatusPartialContent)
		_, _ = io.WriteString(w, "456789")
	})
	e.get("/a", "Range: bytes=-6").wants(t, 206, "456789")
	a := e.get("/a", "Range: bytes=-3")
	a.wants(t, 206, "789")
	if !a.isHit() {
		t.Errorf("inside of what is stored: %v", a.header["Cache-Status"])
	}
	e.get("/a").wants(t, 200, "0123456789")
}

// TestWholeAfterAPartThatIsGone has the whole from an origin that can't go on with the part that is
// stored: nothing of that was sent yet. What it sends in place of the rest is used, and not asked
// for again.
func TestWholeAfterAPartThatIsGone(t *testing.T) { overProtocols(t, testWholeAfterAPartThatIsGone) }

func testWholeAfterAPartThatIsGone(t *testing.T, p protocol) {
	for _, then := range []string{"another", "no ranges"} {
		first, whole := true, "0123456789"
		if then == "another" {
			whole = "abcdefghij"
		}
		e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "max-age=3600")
			w.Header().Set("ETag", `"1"`)
			switch {
			case first:
				first = false
				w.Header().Set("Content-Range", "bytes 0-4/10")
				w.WriteHeader(http.StatusPartialContent)
				_, _ = io.WriteString(w, "01234")
				return
			case then == "another":
				w.Header().Set("ETag", `"2"`)
			}
			w.Header().Set("Content-Length", "10")
			_, _ = io.WriteString(w, whole)
		})
		e.get("/a", "Range: bytes=0-4").wants(t, 206, "01234")
		e.get("/a").wants(t, 200, whole)
		if a := e.get("/a"); !a.isHit() || a.body != whole {
			t.Errorf("%s: then %q, %v", then, a.body, a.header["Cache-Status"])
		}
		e.wantHits(2)
	}
}

// TestPartThatMayNotBeStored is passed on, cut to what the client asked for, and not stored.
func TestPartThatMayNotBeStored(t *testing.T) { overProtocols(t, testPartThatMayNotBeStored) }

func testPartThatMayNotBeStored(t *testing.T, p protocol) {
	e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "private, max-age=3600")
		http.ServeContent(w, r, "", time.Unix(1, 0), strings.NewReader("0123456789"))
	})
	for n := range int64(2) {
		a := e.get("/a", "Range: bytes=3-5")
		a.wants(t, 206, "345")
		if a.header.Get("Content-Range") != "bytes 3-5/10" || a.isHit() {
			t.Errorf("%v", a.header)
		}
		e.wantHits(n + 1)
	}
}

// TestPartThatNobodyAskedFor is passed on and not stored.
func TestPartThatNobodyAskedFor(t *testing.T) { overProtocols(t, testPartThatNobodyAskedFor) }

func testPartThatNobodyAskedFor(t *testing.T, p protocol) {
	e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=3600")
		w.Header().Set("ETag", `"1"`)
		w.Header().Set("Content-Range", "bytes 0-4/10")
		w.WriteHeader(http.StatusPartialContent)
		_, _ = io.WriteString(w, "01234")
	})
	e.get("/a").wants(t, 206, "01234")
	if a := e.get("/a"); a.isHit() {
		t.Errorf("%v", a.header["Cache-Status"])
	}
}
