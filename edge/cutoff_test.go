package edge

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// quietFleet is a fleet that an edge is in touch with, or hears nothing of.
type quietFleet struct{ quiet atomic.Bool }

func (*quietFleet) Append(context.Context, string, PurgeRequest) (uint64, error) {
	return 0, ErrNoPurgeLog
}
func (*quietFleet) InTouch() bool  { return true }
func (q *quietFleet) CutOff() bool { return q.quiet.Load() }

// An edge that hears nothing of the others confirms what it has, as a purge may not have come, and goes on with it if the origin fails or says nothing.
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
	}, func(s *Server, _ *Site) { s.Purges = fleet })
	e.get("/a").wants(t, 200, "one")
	if a := e.get("/a"); !a.isHit() {
		t.Errorf("in touch: %v", a.header["Cache-Status"])
	}
	fleet.quiet.Store(true)
	for i := range 2 {
		a := e.get("/a")
		a.wants(t, 200, "one")
		if cs := a.cacheStatus(); cs["fwd"] != "stale" || cs["fwd-status"] != "304" || conditional.Load() != int64(i+1) {
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
	answer()
	fleet.quiet.Store(false)
	if a := e.get("/b"); !a.isHit() {
		t.Errorf("in touch again: %v", a.header["Cache-Status"])
	}
}
