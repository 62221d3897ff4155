package edge

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/admin"
	"github.com/kaiku-cdn/kaiku/edge/cache"
	"github.com/kaiku-cdn/kaiku/edge/site"
	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// hanging is an origin that answers with some fields until it hangs.
type hanging struct {
	fields []string
	hangs  atomic.Bool
	asked  atomic.Int64 // since then
	most   atomic.Int64 // of one URL at the same time
	mu     sync.Mutex
	now    map[string]int64
	back   chan struct{} // closed when it answers again
}

func newHanging(fields ...string) *hanging {
	return &hanging{fields: fields, now: map[string]int64{}, back: make(chan struct{})}
}

func (h *hanging) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if h.hangs.Load() {
		h.asked.Add(1)
		h.add(r.URL.Path, 1)
		defer h.add(r.URL.Path, -1)
		select {
		case <-r.Context().Done():
			return
		case <-h.back:
		}
		_, _ = io.WriteString(w, "new")
		return
	}
	setFields(w.Header(), h.fields)
	_, _ = io.WriteString(w, "old")
}

func (h *hanging) add(path string, n int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now[path] += n
	h.most.Store(max(h.most.Load(), h.now[path]))
}

// status is what the edge tells of itself.
func (e *testEdge) status() (st admin.Status) {
	e.t.Helper()
	resp, err := http.Get("http://" + e.AdminAddr().String() + "/v1/status")
	if err != nil {
		e.t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&st); err != nil {
		e.t.Fatal(err)
	}
	return st
}

// The first who waits in vain for an origin that hangs is the last: others get what is stored at
// once, while one request for each URL goes on asking.
func TestOriginThatHangs(t *testing.T) { overProtocols(t, testOriginThatHangs) }

func testOriginThatHangs(t *testing.T, p protocol) {
	h := newHanging("Cache-Control: max-age=1, stale-if-error=86400", "Age: 2", `Etag: "1"`)
	e := p.newEdge(t, h.ServeHTTP, func(_ *Server,
		s *site.Site) {
		s.Origin.Origin.FirstByteTimeout = cache.SlowFailure + 100*time.Millisecond
	})
	for _, path := range []string{"/a", "/b"} {
		e.get(path).wants(t, 200, "old")
	}
	if st := e.status(); len(st.Outages) != 0 {
		t.Errorf("outages at first: %v", st.Outages)
	}
	h.hangs.Store(true)
	first := e.get("/a")
	first.wants(t, 200, "old")
	if cs := first.cacheStatus(); cs["fwd"] != "stale" || cs["detail"] != "stale-if-error" {
		t.Errorf("who waited: %v", cs)
	}
	if st := e.status(); len(st.Outages) != 1 || st.Outages[0].Site != "www" || st.Outages[0].Last.Reason != "timeout" {
		t.Errorf("outages: %+v", st.Outages)
	}
	for range 20 {
		for _, path := range []string{"/a", "/b"} {
			for _, method := range []string{"GET", "HEAD"} {
				got := e.do(e.request(method, path, ""))
				if cs := got.cacheStatus(); got.status != 200 || !got.isHit() || cs["detail"] != "stale-if-error" {
					t.Fatalf("%s %s: %d, %v", method, path, got.status, cs)
				}
			}
		}
	}
	if n := h.most.Load(); n != 1 {
		t.Errorf("%d requests for a URL were at the origin at the same time", n)
	}
	if got := e.get("/b", "Cache-Control: no-cache"); got.cacheStatus()["fwd"] != "request" {
		t.Errorf("no-cache: %v", got.cacheStatus())
	}
	close(h.back)
	testwait.Until(t, "the origin's answer is there",
		func() bool { return e.do(e.request("GET", "/a", "")).body == "new" })
	if st := e.status(); len(st.Outages) != 0 {
		t.Errorf("outages in the end: %v", st.Outages)
	}
}

// Clients that have no patience teach too.
func TestOriginThatHangsForTheImpatient(t *testing.T) {
	overProtocols(t, testOriginThatHangsForTheImpatient)
}

func testOriginThatHangsForTheImpatient(t *testing.T, p protocol) {
	h := newHanging("Cache-Control: max-age=1, stale-if-error=86400", "Age: 2", `Etag: "1"`)
	e := p.newEdge(t, h.ServeHTTP, func(_ *Server,
		s *site.Site) {
		s.Origin.Origin.FirstByteTimeout = cache.SlowFailure + 100*time.Millisecond
	})
	e.get("/a").wants(t, 200, "old")
	h.hangs.Store(true)
	ctx, cancel := context.WithCancel(t.Context())
	left := make(chan struct{})
	go func() {
		defer close(left)
		if resp, err := e.client.Do(e.request("GET", "/a", "").WithContext(ctx)); err == nil {
			resp.Body.Close()
		}
	}()
	testwait.Until(t, "the origin is asked", func() bool { return h.asked.Load() == 1 })
	cancel()
	<-left
	testwait.Until(t, "it is known that the origin hangs", func() bool { return len(e.cache.Outages(time.Now())) > 0 })
	if got := e.do(e.request("GET", "/a", "")); !got.isHit() || got.cacheStatus()["detail"] != "stale-if-error" {
		t.Errorf("%d, %v", got.status, got.cacheStatus())
	}
}

// What must be validated is not served stale, however long that takes; and errors that come at once
// are asked for each time.
func TestNoMemoryOfFailure(t *testing.T) { overProtocols(t, testNoMemoryOfFailure) }

func testNoMemoryOfFailure(t *testing.T, p protocol) {
	for _, c := range []struct {
		name, cc string
		wait     time.Duration
		status   int
	}{
		{"must-revalidate", "max-age=1, must-revalidate", time.Hour, 504},
		{"an error at once", "max-age=1, stale-if-error=86400", 0, 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			var bad atomic.Bool
			e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
				if bad.Load() {
					select {
					case <-time.After(c.wait):
					case <-r.Context().Done():
					}
					w.WriteHeader(http.StatusServiceUnavailable)
					return
				}
				setFields(w.Header(), []string{"Cache-Control: " + c.cc, "Age: 2", `Etag: "1"`})
				_, _ = io.WriteString(w, "old")
			}, func(_ *Server, s *site.Site) { s.Origin.Origin.FirstByteTimeout = cache.SlowFailure / 2 })
			e.get("/a").wants(t, 200, "old")
			bad.Store(true)
			for range 3 {
				if got := e.get("/a"); got.status != c.status || got.isHit() {
					t.Errorf("%d, %v", got.status, got.cacheStatus())
				}
			}
			e.wantHits(4)
		})
	}
}

// An error that takes its time is remembered for its URL alone.
func TestErrorThatTakesItsTime(t *testing.T) { overProtocols(t, testErrorThatTakesItsTime) }

func testErrorThatTakesItsTime(t *testing.T, p protocol) {
	var bad atomic.Bool
	e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		if bad.Load() {
			if r.URL.Path == "/a" {
				time.Sleep(cache.SlowFailure) // is what the edge takes for long
			}
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		setFields(w.Header(), []string{"Cache-Control: max-age=1, stale-if-error=86400", "Age: 2", `Etag: "1"`})
		_, _ = io.WriteString(w, "old")
	})
	for _, path := range []string{"/a", "/b"} {
		e.get(path).wants(t, 200, "old")
	}
	bad.Store(true)
	for i, hit := range []bool{false, true} {
		for _, path := range []string{"/a", "/b"} {
			got := e.do(e.request("GET", path, ""))
			got.wants(t, 200, "old")
			if got.isHit() != (hit && path == "/a") {
				t.Errorf("request %d for %s: %v", i, path, got.cacheStatus())
			}
		}
	}
	if st := e.status(); len(st.Outages) != 0 {
		t.Errorf("outages of an origin that answers: %v", st.Outages)
	}
}
