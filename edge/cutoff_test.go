package edge

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/cache"
	"github.com/kaiku-cdn/kaiku/edge/purge"
	"github.com/kaiku-cdn/kaiku/edge/site"
	"github.com/kaiku-cdn/kaiku/fleet/testwait"
	"github.com/kaiku-cdn/kaiku/storage"
)

// quietFleet is a fleet that an edge is in touch with, or hears nothing of.
type quietFleet struct{ quiet atomic.Bool }

func (*quietFleet) Append(context.Context, string, purge.Request) (uint64, error) {
	return 0, purge.ErrNoLog
}
func (*quietFleet) InTouch() bool  { return true }
func (q *quietFleet) CutOff() bool { return q.quiet.Load() }

// What an origin says too late, and can't be stored, is given up.
func TestCutOffGivesUp(t *testing.T) {
	var late atomic.Bool
	ask, said, gone := make(chan struct{}), make(chan struct{}), make(chan struct{})
	fleet, body := &quietFleet{}, strings.Repeat("x", 16<<20)
	e := newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		setFields(w.Header(), []string{"Cache-Control: max-age=1000", `Etag: "a"`})
		if !late.Load() {
			_, _ = w.Write([]byte(body))
			return
		}
		<-ask
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(http.StatusNotFound)
		_ = http.NewResponseController(w).Flush()
		close(said)
		<-r.Context().Done()
		close(gone)
	}, func(s *Server, _ *site.Site) { s.Purges = fleet })
	e.get("/a").wants(t, 200, body)
	late.Store(true)
	fleet.quiet.Store(true)
	resp, err := e.client.Do(e.request("GET", "/a", ""))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	close(ask)
	<-said
	testwait.Until(t, "the flight has landed", func() bool {
		return e.cache.UnderWay().Flights == 0
	})
	if n, err := io.Copy(io.Discard, resp.Body); err != nil || n != int64(len(body)) {
		t.Errorf("%d bytes, %v", n, err)
	}
	select {
	case <-gone:
	case <-time.After(time.Minute):
		t.Error("the origin's response is held though its only client has gone")
	}
}

// What is purged while the origin takes its time is waited for.
func TestCutOffPurgedMeanwhile(t *testing.T) {
	var late atomic.Bool
	asked, ask := make(chan struct{}, 8), make(chan struct{})
	fleet := &quietFleet{}
	e := newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		setFields(w.Header(), []string{"Cache-Control: max-age=1000"})
		if late.Load() {
			asked <- struct{}{} // twice: who asked before the purge does not count
			<-ask
			_, _ = w.Write([]byte("new"))
			return
		}
		_, _ = w.Write([]byte("old"))
	}, func(s *Server, _ *site.Site) { s.Purges = fleet })
	e.get("/a").wants(t, 200, "old")
	late.Store(true)
	fleet.quiet.Store(true)
	got := make(chan answer, 1)
	go func() { got <- e.do(e.request("GET", "/a", "")) }()
	<-asked
	if err := e.Store.Invalidate(storage.Purge{URLs: []string{"www.example/a"}}); err != nil {
		t.Fatal(err)
	}
	select {
	case a := <-got:
		t.Errorf("got %d before the origin answered: %s", a.status, a.header.Get("Cache-Status"))
	case <-time.After(cache.ServeStaleAfter + time.Second/2):
	}
	close(ask)
	if a := <-got; a.status != 200 {
		t.Errorf("got %d: %v", a.status, a.header)
	}
}

// An edge that hears nothing of the others confirms what it has, as a purge may not have come, and
// goes on with it if the origin fails or says nothing.
func TestCutOff(t *testing.T) {
	const broken, silent = 1, 2
	var state, conditional atomic.Int64
	release := make(chan struct{})
	answer := sync.OnceFunc(func() { close(release) })
	defer answer()
	var version atomic.Value
	version.Store("one")
	fleet := &quietFleet{}
	e := newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		switch state.Load() {
		case broken:
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		case silent:
			select {
			case <-release:
			case <-r.Context().Done():
			}
			return
		}
		tag := `"` + version.Load().(string) + `"`
		setFields(w.Header(), []string{"Cache-Control: max-age=1000", "Etag: " + tag})
		if r.Header.Get("If-None-Match") == tag {
			conditional.Add(1)
			w.WriteHeader(http.StatusNotModified)
			return
		}
		_, _ = w.Write([]byte(version.Load().(string)))
	}, func(s *Server, _ *site.Site) { s.Purges = fleet })
	e.get("/a").wants(t, 200, "one")
	if a := e.get("/a"); !a.isHit() {
		t.Errorf("in touch: %v", a.header["Cache-Status"])
	}
	fleet.quiet.Store(true)
	for i := range 2 {
		a := e.get("/a")
		a.wants(t, 200, "one")
		if cs := a.cacheStatus(); cs["fwd"] != "stale" || cs["fwd-status"] != "304" ||
			conditional.Load() != int64(i+1) {
			t.Errorf("cut off: %v, %d conditional requests", a.header["Cache-Status"], conditional.Load())
		}
	}
	if a := e.get("/a", "Cache-Control: only-if-cached"); a.status != 200 {
		t.Errorf("only-if-cached: %d", a.status)
	}
	version.Store("two")
	e.get("/b").wants(t, 200, "two") // of which nothing is there
	for _, s := range []int64{broken, silent} {
		state.Store(s)
		a := e.do(e.request("GET", "/a", "")) // while the origin still says nothing
		a.wants(t, 200, "one")
		if cs := a.header.Get("Cache-Status"); !strings.Contains(cs, "stale-if-error") {
			t.Errorf("the origin is in state %d: %s", s, cs)
		}
	}
	if a := e.do(e.request("GET", "/a", "")); !a.isHit() {
		t.Errorf("the origin says nothing to others: %v", a.header["Cache-Status"])
	}
	if a := e.do(e.request("HEAD", "/a", "")); !a.isHit() {
		t.Errorf("HEAD: %v", a.header["Cache-Status"])
	}
	answer()
	fleet.quiet.Store(false)
	if a := e.get("/b"); !a.isHit() {
		t.Errorf("in touch again: %v", a.header["Cache-Status"])
	}
}
