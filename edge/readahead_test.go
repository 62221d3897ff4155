package edge

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/cache"
	"github.com/kaiku-cdn/kaiku/edge/site"
	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// TestSmallRangesCostLittle asks many URLs for little of a large object each, in every way: the
// origin is not made to send much more.
func TestSmallRangesCostLittle(t *testing.T) { overProtocols(t, testSmallRangesCostLittle) }

func testSmallRangesCostLittle(t *testing.T, p protocol) {
	const size, urls = int64(1) << 30, 20
	for _, c := range []struct {
		ranges string
		asked  int64
	}{
		{"bytes=0-0", 1}, {"bytes=-1", 1}, {"bytes=536870912-536870912", 1}, {"bytes=65535-65536", 2},
		{"bytes=8388607-8388608", 2},
		{"bytes=0-0,-1", 2}, {"bytes=-1,0-0", 2}, {"bytes=-500", 500}, {"bytes=100-300099", 300_000},
	} {
		t.Run(c.ranges, func(t *testing.T) {
			var sent atomic.Int64
			e := p.newEdge(t, sparseOrigin(size, &sent))
			for i := range urls {
				a := e.get("/film?"+strconv.Itoa(i), "Range: "+c.ranges)
				if a.err != nil || a.status != http.StatusPartialContent {
					t.Fatalf("%d, %v", a.status, a.err)
				}
				if n, asked := sent.Load(), int64(i+1)*c.asked; n > cache.ReadAhead*asked+int64(i+1)*2*cache.Block {
					t.Fatalf("the origin sent %d bytes for %d that were asked for", n, asked)
				}
			}
		})
	}
}

// TestReadersThatReadLittleCostLittle reads one byte after the other of the same object, each as
// far from the one before as costs most: what was fetched is no evidence that it is read.
func TestReadersThatReadLittleCostLittle(t *testing.T) {
	overProtocols(t, testReadersThatReadLittleCostLittle)
}

func testReadersThatReadLittleCostLittle(t *testing.T, p protocol) {
	const size, reads = int64(1) << 30, 64
	var sent atomic.Int64
	e := p.newEdge(t, sparseOrigin(size, &sent))
	at := int64(0)
	for i := range reads {
		before := sent.Load()
		e.get("/film", fmt.Sprintf("Range: bytes=%d-%d", at, at))
		at += sent.Load() - before
		if n := sent.Load(); n > int64(i+1)*cache.Block {
			t.Fatalf("the origin sent %d bytes for %d", n, i+1)
		}
	}
}

// TestReadersThatReadOnGetLargeSlices reads an object from its begin in small ranges, in one to the
// end, and whole: few requests reach the origin.
func TestReadersThatReadOnGetLargeSlices(t *testing.T) {
	const size = int64(40) << 20
	for _, step := range []int64{100_000, 1 << 20, size} {
		t.Run(strconv.FormatInt(step, 10), func(t *testing.T) {
			var sent atomic.Int64
			e := newEdge(t, sparseOrigin(size, &sent), func(_ *Server, s *site.Site) { s.MaxObject = 200 << 20 })
			if step == size {
				e.get("/film", "Range: bytes=0-0")
			}
			for at := int64(0); at < size; at += step {
				end := strconv.FormatInt(at+step-1, 10)
				if step == size {
					end = ""
				}
				a := e.do(e.request("GET", "/film", "", fmt.Sprintf("Range: bytes=%d-%s", at, end)))
				if a.err != nil || int64(len(a.body)) != min(step, size-at) {
					t.Fatalf("from %d: %d, %d bytes, %v", at, a.status, len(a.body), a.err)
				}
				checkSparse(t, []byte(a.body[:100]), at)
			}
			e.settle()
			if n := e.hits.Load(); n > 20 {
				t.Errorf("the origin was asked %d times", n)
			}
			if n := sent.Load(); n != size {
				t.Errorf("the origin sent %d bytes", n)
			}
		})
	}
}

// TestReadersShareSlices has clients ask for overlapping parts at the same time: what is under way
// is not asked for again.
func TestReadersShareSlices(t *testing.T) { overProtocols(t, testReadersShareSlices) }

func testReadersShareSlices(t *testing.T, p protocol) {
	const size = int64(1) << 30
	var sent atomic.Int64
	release := make(chan struct{})
	whole := sparseOrigin(size, &sent)
	e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		<-release
		whole(w, r)
	})
	var wg sync.WaitGroup
	for i, r := range []string{"0-999999", "500000-500009", "400000-1400000", "983041-983041"} {
		wg.Go(func() {
			a := e.do(e.request("GET", "/film", "", "Range: bytes="+r))
			first, _, _ := strings.Cut(r, "-")
			off, _ := strconv.ParseInt(first, 10, 64)
			checkSparse(t, []byte(a.body), off)
		})
		testwait.Until(t, "it waits", func() bool { return e.followers() == i+1 })
	}
	close(release)
	wg.Wait()
	e.settle()
	e.wantHits(2) // the second for what follows the first
}

// A steppedOrigin serves ranges of a sparse file. While it is held, it waits for a step in the
// midst of a response.
type steppedOrigin struct {
	t          *testing.T
	size       int64
	before     bool  // it waits before the header block too
	lacks      int64 // bytes of the response after the place where it waits
	step       chan struct{}
	held, gone atomic.Bool  // gone: the edge ended a fetch that waited
	comes      atomic.Int64 // bytes before it waits
	sent       atomic.Int64
}

func (o *steppedOrigin) serve(w http.ResponseWriter, r *http.Request) {
	if !o.held.Load() {
		sparseOrigin(o.size, &o.sent)(w, r)
		return
	}
	if o.before && !o.wait(r) {
		return
	}
	var first, last int64
	if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &first, &last); err != nil {
		o.t.Error(err)
	}
	setFields(w.Header(), []string{"Cache-Control: max-age=3600", `Etag: "v1"`,
		fmt.Sprintf("Content-Range: bytes %d-%d/%d", first, last, o.size),
		fmt.Sprint("Content-Length: ", last-first+1)})
	w.WriteHeader(http.StatusPartialContent)
	body := &sparse{size: last + 1, off: first, sent: &o.sent}
	o.comes.Store(last - first + 1 - o.lacks)
	_, _ = io.CopyN(w, body, o.comes.Load())
	_ = http.NewResponseController(w).Flush()
	if o.wait(r) {
		_, _ = io.Copy(w, body)
	}
}

// wait reports whether the fetch goes on.
func (o *steppedOrigin) wait(r *http.Request) bool {
	select {
	case <-o.step:
		return true
	case <-r.Context().Done():
		o.gone.Store(true)
		return false
	}
}

// beginToRead has a client read a response, until leave is called. leave returns when it is gone.
func (e *testEdge) beginToRead(path string, fields ...string) (leave func()) {
	ctx, cancel := context.WithCancel(e.t.Context())
	left := make(chan struct{})
	go func() {
		defer close(left)
		resp, err := e.client.Do(e.request("GET", path, "", fields...).WithContext(ctx))
		if err == nil {
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
	}()
	return func() {
		cancel()
		<-left
	}
}

// TestAbandonedSliceEnds has the last client leave in the midst of a slice. What nobody waits for
// ends, before the header cache.Block and after it, unless clients have read enough of the object.
func TestAbandonedSliceEnds(t *testing.T) { overProtocols(t, testAbandonedSliceEnds) }

func testAbandonedSliceEnds(t *testing.T, p protocol) {
	const size = int64(1) << 30
	for _, c := range []struct {
		name   string
		before bool // the header block
		read   bool
		ranges string
		lacks  int64 // of what is asked for, when the client leaves
		goesOn bool
	}{
		{"before the header block", true, false, "bytes=0-8388607", 0, false},
		{"begun", false, false, "bytes=0-8388607", 8_000_000, false},
		{"a cache.Block lacks", false, false, "bytes=0-99999", 2*cache.Block - 1000, false},
		{"less than a cache.Block lacks", false, false, "bytes=0-0", cache.Block - 1, true},
		{"half of it is there", false, false, "bytes=0-8388607", 4_000_000, true},
		{"much was read", false, true, "bytes=33554432-33554441", 8<<20 - 1000, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := &steppedOrigin{t: t, size: size, before: c.before, lacks: c.lacks, step: make(chan struct{})}
			e := p.newEdge(t, o.serve, func(_ *Server, s *site.Site) { s.Origin.Origin.FirstByteTimeout = time.Hour })
			if c.read {
				e.get("/film", "Range: bytes=0-9999999")
			}
			o.held.Store(true)
			leave := e.beginToRead("/film", "Range: "+c.ranges)
			testwait.Until(t, "as much is there as comes", func() bool {
				n := o.comes.Load()
				return n > 0 && e.filled() == n || c.before && e.followers() == 1 && e.hits.Load() == 1
			})
			leave()
			if c.goesOn {
				testwait.Until(t, "the edge knows that the client left", func() bool { return e.followers() == 0 })
				close(o.step)
			} else {
				testwait.Until(t, "the edge ended the fetch", o.gone.Load)
			}
			e.settle()
			o.held.Store(false)
			before := e.hits.Load()
			first, _, _ := strings.Cut(c.ranges[len("bytes="):], "-")
			e.get("/film", "Range: bytes="+first+"-"+first)
			if stored := e.hits.Load() == before; stored != c.goesOn {
				t.Errorf("stored: %v, want %v", stored, c.goesOn)
			}
		})
	}
}

// TestOriginThatIgnoresRangeIsCutOff has a client that has what it wanted of a large response: the
// rest is not fetched.
func TestOriginThatIgnoresRangeIsCutOff(t *testing.T) {
	overProtocols(t, testOriginThatIgnoresRangeIsCutOff)
}

func testOriginThatIgnoresRangeIsCutOff(t *testing.T, p protocol) {
	var gone atomic.Bool
	e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		setFields(w.Header(), []string{"Cache-Control: max-age=3600", `Etag: "v1"`, "Content-Length: 8000000"})
		_, _ = w.Write(make([]byte, 100_000))
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		gone.Store(true)
	})
	e.get("/film", "Range: bytes=0-0").wants(t, http.StatusPartialContent, "\x00")
	testwait.Until(t, "the edge ended the fetch", gone.Load)
}

// TestNotModifiedCostsLittle has clients be answered with 304 whatever comes, as they say that they
// have it already: the rest of a large response is not fetched, until many of them have come.
func TestNotModifiedCostsLittle(t *testing.T) { overProtocols(t, testNotModifiedCostsLittle) }

func testNotModifiedCostsLittle(t *testing.T, p protocol) {
	const size = 1_000_000
	step := make(chan struct{})
	e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		setFields(w.Header(), []string{"Cache-Control: max-age=3600", `Etag: "v1"`,
			fmt.Sprint("Content-Length: ", size)})
		_, _ = w.Write(make([]byte, 100_000))
		_ = http.NewResponseController(w).Flush()
		select {
		case <-step:
			_, _ = w.Write(make([]byte, size-100_000))
		case <-r.Context().Done():
		}
	})
	goesOn := func(path string) bool {
		e.do(e.request("GET", path, "", "If-None-Match: *")).wants(t, http.StatusNotModified, "")
		testwait.Until(t, "the edge knows that the client left", func() bool { return e.followers() == 0 })
		return e.cache.UnderWay().Flights > 0
	}
	for i := range 5 {
		if goesOn("/film?" + strconv.Itoa(i)) {
			t.Fatal("the fetch goes on though the client has it already")
		}
	}
	for n := 1; !goesOn("/film"); n++ {
		if n == 10 {
			t.Fatal("the fetch never goes on")
		}
	}
	close(step)
	e.settle()
	if a := e.get("/film"); !a.isHit() || len(a.body) != size {
		t.Errorf("after many 304: %d bytes, %v", len(a.body), a.header)
	}
}

// filled is how many bytes have come of a slice.
func (e *testEdge) filled() int64 {
	return e.cache.UnderWay().Bytes
}

// TestReaderUsesWhatOthersFetched has a client stay behind while another one reads the rest: it is
// not fetched twice.
func TestReaderUsesWhatOthersFetched(t *testing.T) {
	const size = int64(30) << 20
	var sent atomic.Int64
	e := newEdge(t, sparseOrigin(size, &sent))
	e.get("/film", "Range: bytes=0-0")
	resp := e.open(t.Context(), "/film", "Range: bytes=0-")
	if _, err := io.ReadFull(resp.Body, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	behind := resp.Body
	if a := e.do(e.request("GET", "/film", "", "Range: bytes=10000000-")); int64(len(a.body)) != size-10_000_000 ||
		a.err != nil {
		t.Fatalf("%d bytes, %v", len(a.body), a.err)
	}
	if n, err := io.Copy(io.Discard, behind); n != size-1000 || err != nil {
		t.Fatalf("%d bytes, %v", n, err)
	}
	e.settle()
	if n := sent.Load(); n > size+8<<20 {
		t.Errorf("the origin sent %d bytes", n)
	}
}
