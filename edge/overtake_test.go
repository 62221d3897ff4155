package edge

import (
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/site"
	"github.com/kaiku-cdn/kaiku/fleet/testwait"
	"github.com/kaiku-cdn/kaiku/storage"
)

// heldOrigin answers with its version, and holds the answers to some requests back after it was
// chosen.
type heldOrigin struct {
	version atomic.Int64
	fields  []string
	hold    atomic.Bool // the next answer
	asked   chan struct{}
	release chan struct{}
}

func newHeldOrigin(fields ...string) *heldOrigin {
	return &heldOrigin{fields: fields, asked: make(chan struct{}), release: make(chan struct{})}
}

func (o *heldOrigin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v := fmt.Sprint(o.version.Load())
	if o.hold.Swap(false) {
		o.asked <- struct{}{}
		<-o.release
	}
	setFields(w.Header(), o.fields)
	w.Header().Set("Etag", `"`+v+`"`)
	if r.Header.Get("If-None-Match") == `"`+v+`"` {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	_, _ = io.WriteString(w, v)
}

// Who asks after a soft purge does not follow a validation from before it.
func TestSoftPurgeDuringValidation(t *testing.T) { overProtocols(t, testSoftPurgeDuringValidation) }

func testSoftPurgeDuringValidation(t *testing.T, p protocol) {
	for _, purge := range []string{`{"urls":["http://www.example/a"],"soft":true}`, `{"tags":["t"],"soft":true}`} {
		o := newHeldOrigin("Cache-Control: max-age=1000, must-revalidate", "Surrogate-Key: t")
		e := p.newEdge(t, o.ServeHTTP)
		e.get("/a").wants(t, 200, "0")
		if got := e.purge(purge); got.status != 200 {
			t.Fatalf("purge: %+v", got)
		}
		o.hold.Store(true)
		before := make(chan answer, 1)
		go func() { before <- e.get("/a") }()
		<-o.asked
		o.version.Store(1)
		if got := e.purge(purge); got.status != 200 {
			t.Fatalf("purge: %+v", got)
		}
		after := make(chan answer, 1)
		go func() { after <- e.get("/a") }()
		testwait.Until(t, "the second has asked, or waits",
			func() bool { return e.hits.Load() == 3 || e.followers() == 2 })
		close(o.release)
		(<-after).wants(t, 200, "1")
		(<-before).wants(t, 200, "0")
		e.settle()
		e.get("/a").wants(t, 200, "1")
	}
}

// A response that is asked for before a purge, and comes when the store has forgotten that, is not
// stored as one of after it.
func TestPurgeForgottenDuringFetch(t *testing.T) { overProtocols(t, testPurgeForgottenDuringFetch) }

func testPurgeForgottenDuringFetch(t *testing.T, p protocol) {
	store, err := storage.Open(storage.Options{Dir: t.TempDir(), Disk: 32 << 20, Floor: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	}()
	o := newHeldOrigin("Cache-Control: max-age=1000")
	e := p.newEdge(t, o.ServeHTTP, func(s *Server, site *site.Site) {
		s.Store, site.Origin.Origin.FirstByteTimeout = store, time.Hour // the store is filled meanwhile
	})
	defer e.stop()
	o.hold.Store(true)
	before := make(chan answer, 1)
	go func() { before <- e.get("/a") }()
	<-o.asked
	o.version.Store(1)
	if got := e.purge(`{"urls":["http://www.example/a"]}`); got.status != 200 {
		t.Fatalf("purge: %+v", got)
	}
	for i := 0; store.Stats().Dropped < 3; i++ {
		key := fmt.Sprint(i)
		w := store.Create(storage.Header{Key: key, URL: key, Epoch: store.Epoch()})
		_, err := w.Write(make([]byte, 256<<10))
		if err == nil {
			_, err = w.Commit(nil, nil)
		}
		if w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	close(o.release)
	(<-before).wants(t, 200, "0")
	e.settle()
	e.get("/a").wants(t, 200, "1")
}

// A HEAD that shows nothing but the length does not make fresh what was purged softly.
func TestHeadAfterSoftPurge(t *testing.T) { overProtocols(t, testHeadAfterSoftPurge) }

func testHeadAfterSoftPurge(t *testing.T, p protocol) {
	for _, validator := range []string{"X-None: x", `Etag: "a"`} {
		version := atomic.Int64{}
		e := p.newEdge(t, func(w http.ResponseWriter, _ *http.Request) {
			setFields(w.Header(), []string{"Cache-Control: max-age=1000", "Content-Length: 1", validator})
			_, _ = io.WriteString(w, fmt.Sprint(version.Load()))
		})
		e.get("/a").wants(t, 200, "0")
		version.Store(1)
		if got := e.purge(`{"urls":["http://www.example/a"],"soft":true}`); got.status != 200 {
			t.Fatalf("purge: %+v", got)
		}
		e.do(e.request("HEAD", "/a", ""))
		got := e.get("/a")
		if validator == "X-None: x" {
			got.wants(t, 200, "1")
		} else if !got.isHit() {
			t.Errorf("what a HEAD has validated is no hit: %q", got.header["Cache-Status"])
		}
	}
}
