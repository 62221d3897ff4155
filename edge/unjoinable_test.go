package edge

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/cache"
	"github.com/kaiku-cdn/kaiku/edge/site"
	"github.com/kaiku-cdn/kaiku/origin"
)

// unjoinableOrigin serves size bytes under fields of no strong validator.
func unjoinableOrigin(size int64, sent *atomic.Int64, fields ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=3600")
		setFields(w.Header(), fields)
		w.Header().Set("Content-Type", "video/mp4")
		http.ServeContent(w, r, "", time.Time{}, &sparse{size: size, sent: sent})
	}
}

// TestWholeOfWhatCantBeJoined reads from an origin whose parts have no strong validator, as Express
// and Rails send them: it is asked for the whole once, and found out to be such a one once.
func TestWholeOfWhatCantBeJoined(t *testing.T) { overProtocols(t, testWholeOfWhatCantBeJoined) }

func testWholeOfWhatCantBeJoined(t *testing.T, p protocol) {
	for _, fields := range [][]string{{`Etag: W/"1"`}, nil} {
		for _, ranges := range []string{"bytes=0-", "bytes=0-9999999", "bytes=4000000-", "bytes=0-0,5000000-"} {
			t.Run(fmt.Sprint(fields, ranges), func(t *testing.T) {
				const size = 10_000_000
				var sent atomic.Int64
				e := p.newEdge(t, unjoinableOrigin(size, &sent, fields...))
				for i := range 3 {
					a := e.get("/film", "Range: "+ranges)
					if a.err != nil || a.status != http.StatusPartialContent || a.isHit() != (i > 0) {
						t.Errorf("%d: %d, %v, %v", i, a.status, a.header, a.err)
					}
					if !strings.Contains(ranges, ",") {
						first, _, _ := strings.Cut(ranges[len("bytes="):], "-")
						off, _ := strconv.ParseInt(first, 10, 64)
						checkSparse(t, []byte(a.body), off)
					}
				}
				e.wantHits(2)
				if a := e.get("/film"); !a.isHit() || len(a.body) != size {
					t.Errorf("the whole: %d bytes, %v", len(a.body), a.header)
				}
			})
		}
	}
}

// TestLittleOfWhatCantBeJoined asks for small parts, and for some far from the begin: the origin
// sends what is asked for and not the whole, until so much was read that the whole pays.
func TestLittleOfWhatCantBeJoined(t *testing.T) { overProtocols(t, testLittleOfWhatCantBeJoined) }

func testLittleOfWhatCantBeJoined(t *testing.T, p protocol) {
	const size = int64(60) << 20
	var sent atomic.Int64
	e := p.newEdge(t, unjoinableOrigin(size, &sent, `Etag: W/"1"`))
	for i, r := range []string{"0-9", "70000-70009", "50000000-50000009", "-10", "50000000-"} {
		before := sent.Load()
		a := e.get("/film", "Range: bytes="+r)
		if a.err != nil || a.status != http.StatusPartialContent || i > 0 && a.isHit() {
			t.Errorf("%s: %d, %v, %v", r, a.status, a.header, a.err)
		}
		if n := sent.Load() - before; n > int64(len(a.body))+cache.Block {
			t.Errorf("%s: the origin sent %d bytes for %d", r, n, len(a.body))
		}
	}
	for range 2 {
		e.get("/film", "Range: bytes=1000000-9999999")
	}
	before := e.hits.Load()
	if a := e.get("/film", "Range: bytes=50000000-50000009"); !a.isHit() || e.hits.Load() != before {
		t.Errorf("after much was read: %v", a.header)
	}
}

// TestSuffixIsForwarded asks for the end of what is not stored, in one request to the origin.
func TestSuffixIsForwarded(t *testing.T) { overProtocols(t, testSuffixIsForwarded) }

func testSuffixIsForwarded(t *testing.T, p protocol) {
	const size = int64(1) << 30
	for _, etag := range []string{`"1"`, `W/"1"`} {
		var sent atomic.Int64
		e := p.newEdge(t, unjoinableOrigin(size, &sent, "Etag: "+etag))
		a := e.get("/film", "Range: bytes=-500")
		if a.status != http.StatusPartialContent || len(a.body) != 500 ||
			a.header.Get("Content-Range") != fmt.Sprintf("bytes %d-%d/%d", size-500, size-1, size) {
			t.Errorf("%d, %v", a.status, a.header)
		}
		checkSparse(t, []byte(a.body), size-500)
		if a = e.get("/film", "Range: bytes=-400"); !a.isHit() {
			t.Errorf("some of it again: %v", a.header)
		}
		e.wantHits(1)
		if n := sent.Load(); n != 500 {
			t.Errorf("the origin sent %d bytes", n)
		}
	}
}

// differing starts an edge with two servers that give the same object different validators, as
// Apache httpd does with inodes. Each sends its own digit.
func differing(t *testing.T, balance origin.Balance) (e *testEdge, gone *[2]atomic.Bool) {
	const size = 1_000_000
	var servers []origin.Server
	gone = new([2]atomic.Bool)
	for i, text := range []string{"0", "1"} {
		o := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if gone[i].Load() {
				panic(http.ErrAbortHandler)
			}
			w.Header().Set("Cache-Control", "max-age=3600")
			w.Header().Set("Etag", `"`+text+`"`)
			http.ServeContent(w, r, "", time.Time{}, strings.NewReader(strings.Repeat(text, size)))
		}))
		t.Cleanup(o.Close)
		u, err := url.Parse(o.URL)
		if err != nil {
			t.Fatal(err)
		}
		servers = append(servers, origin.Server{URL: u})
	}
	return newEdge(t, nil, func(_ *Server, s *site.Site) {
		s.Slice, s.Origin.Origin.Servers, s.Origin.Origin.Balance, s.Origin.Origin.Retries = 100_000, servers, balance,
			2
	}), gone
}

// wantOne fails the test unless a ranged answer is whole and from one server.
func (a answer) wantOne(t *testing.T, what string) {
	t.Helper()
	if a.err != nil || a.status != http.StatusPartialContent || a.body != strings.Repeat(a.body[:1], len(a.body)) {
		t.Errorf("%s: %d, %d bytes, %v", what, a.status, len(a.body), a.err)
	}
}

// TestServersThatDiffer has a ranged answer come whole, and from one of the servers.
func TestServersThatDiffer(t *testing.T) {
	for _, balance := range []origin.Balance{origin.RoundRobin, origin.LeastRequests, origin.Random, origin.Hash} {
		e, _ := differing(t, balance)
		for i := range 8 {
			path := "/film" + strconv.Itoa(i)
			e.get(path, "Range: bytes=0-0")
			for _, r := range []string{"bytes=200000-", "bytes=0-"} {
				e.get(path, "Range: "+r).wantOne(t, path+" "+r)
			}
		}
	}
}

// TestServerThatMatchesIsFound goes on with what is stored after it is forgotten which server it
// came from: another one's answer does not fit, and so the rest is asked for the one that does. If
// that is gone, the object is fetched anew.
func TestServerThatMatchesIsFound(t *testing.T) {
	e, gone := differing(t, origin.RoundRobin)
	for i := range 6 {
		e.get("/film"+strconv.Itoa(i), "Range: bytes=0-499999").wantOne(t, "the begin")
	}
	e.cache.Forget()
	for i := range 3 {
		path := "/film" + strconv.Itoa(i)
		e.get(path, "Range: bytes=500000-749999").wantOne(t, "the rest")
		e.get(path, "Range: bytes=0-").wantOne(t, "all")
	}
	gone[0].Store(true)
	for i := 3; i < 6; i++ {
		path := "/film" + strconv.Itoa(i)
		e.get(path, "Range: bytes=500000-").wantOne(t, "without a server")
		e.get(path, "Range: bytes=0-").wantOne(t, "without a server, all")
	}
}
