package edge

import (
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/site"
	"github.com/kaiku-cdn/kaiku/fleet/testwait"
	"github.com/kaiku-cdn/kaiku/storage"
)

// An unsafe method that succeeds makes what is stored for its URI gone, and for what it names (RFC
// 9111, 4.4).
func TestInvalidation(t *testing.T) {
	const paths = "/a /b /c?x=1 /other"
	for _, c := range []struct {
		name, method, path string
		status             int
		fields             []string // of the response
		gone               string
	}{
		{"POST", "POST", "/a", 200, nil, "/a"},
		{"PUT", "PUT", "/a", 204, nil, "/a"},
		{"DELETE", "DELETE", "/c?x=1", 200, nil, "/c?x=1"},
		{"an unknown method", "FROB", "/a", 200, nil, "/a"},
		{"redirected", "POST", "/a", 303, []string{"Location: /b"}, "/a /b"},
		{"another query", "POST", "/c?x=2", 200, nil, ""},
		{"refused", "POST", "/a", 403, []string{"Location: /b"}, ""},
		{"failed", "POST", "/a", 500, nil, ""},
		{"OPTIONS", "OPTIONS", "/a", 200, nil, ""},
		{"TRACE", "TRACE", "/a", 200, nil, ""},
		{"HEAD", "HEAD", "/elsewhere", 200, []string{"Content-Location: /a"}, ""},
		{"Location", "POST", "/new", 201, []string{"Location: http://www.example/a"}, "/a"},
		{"Content-Location", "POST", "/new", 200, []string{"Content-Location: b"}, "/b"},
		{"both", "POST", "/a", 201, []string{"Location: /b", "Content-Location: /c?x=1"}, "/a /b /c?x=1"},
		{"on another host", "POST", "/new", 201,
			[]string{"Location: http://evil.example/a", "Content-Location: //evil.example/b"}, ""},
		{"malformed", "POST", "/new", 201, []string{"Location: http://[/a"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := newEdge(t, func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodGet {
					w.Header().Set("Cache-Control", "max-age=1000")
					_, _ = io.WriteString(w, r.RequestURI)
					return
				}
				setFields(w.Header(), c.fields)
				w.WriteHeader(c.status)
			})
			for path := range strings.FieldsSeq(paths) {
				e.get(path).wants(t, 200, path)
			}
			if got := e.do(e.request(c.method, c.path, "")); got.status != c.status {
				t.Fatalf("%s: %d", c.method, got.status)
			}
			gone := map[string]bool{}
			for path := range strings.FieldsSeq(c.gone) {
				gone[path] = true
			}
			for path := range strings.FieldsSeq(paths) {
				got := e.get(path)
				got.wants(t, 200, path)
				if got.isHit() == gone[path] {
					t.Errorf("%s: hit %v", path, got.isHit())
				}
			}
		})
	}
}

// Keys and invalidation go by the host that the client asked for, though the origin is sent its own
// name.
func TestOriginOfAnotherName(t *testing.T) { overProtocols(t, testOriginOfAnotherName) }

func testOriginOfAnotherName(t *testing.T, p protocol) {
	e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Host != "origin.example" || r.Header.Get("X-Forwarded-Host") != "www.example" {
			t.Errorf("the origin is sent the Host %q and X-Forwarded-Host %q", r.Host, r.Header.Get("X-Forwarded-Host"))
		}
		w.Header().Set("Cache-Control", "max-age=1000")
		if r.Method == http.MethodPost {
			w.Header().Set("Location", p.scheme()+"://"+r.URL.Query().Get("of")+"/a")
			w.WriteHeader(http.StatusCreated)
			return
		}
		_, _ = io.WriteString(w, "hello")
	}, func(_ *Server, s *site.Site) { s.Origin.Origin.Host = "origin.example" })
	for _, c := range []struct {
		of   string
		gone bool
	}{{"origin.example", false}, {"www.example", true}} {
		e.get("/a").wants(t, 200, "hello")
		e.do(e.request("POST", "/new?of="+c.of, "")).wants(t, 201, "")
		if got := e.get("/a"); got.isHit() == c.gone {
			t.Errorf("after a Location of %s: hit %v", c.of, got.isHit())
		}
	}
}

// A fetch that is under way when an unsafe method succeeds may have the old state: it is not used
// after.
func TestInvalidationDuringFill(t *testing.T) { overProtocols(t, testInvalidationDuringFill) }

func testInvalidationDuringFill(t *testing.T, p protocol) {
	state := "old"
	fetched, written := make(chan struct{}), make(chan struct{})
	e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			state = "new"
			return
		}
		w.Header().Set("Cache-Control", "max-age=1000")
		is := state
		if is == "old" {
			close(fetched)
			<-written
		}
		_, _ = io.WriteString(w, is)
	})
	first := make(chan answer)
	go func() { first <- e.do(e.request("GET", "/a", "")) }()
	<-fetched
	e.do(e.request("POST", "/a", "")).wants(t, 200, "")
	close(written)
	(<-first).wants(t, 200, "old")
	e.settle()
	e.get("/a").wants(t, 200, "new")
}

// An unsafe request removes what is stored where clients have caused all the records of purges that
// there is room for, and causes no more.
func TestInvalidationInACrowd(t *testing.T) { overProtocols(t, testInvalidationInACrowd) }

func testInvalidationInACrowd(t *testing.T, p protocol) {
	store, err := storage.Open(storage.Options{Dir: t.TempDir(), Disk: 256 << 20, Memory: 16 << 20, Floor: 1,
		Records: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=1000")
		w.Header().Set("Vary", r.Header.Get("X-Vary"))
		_, _ = io.WriteString(w, r.Method)
	}, func(s *Server, _ *site.Site) { s.Store = store })
	records := e.Store.Stats().Purges
	for _, c := range []struct{ path, vary string }{{"/a", "X-Vary: "}, {"/b", "X-Vary: X-Vary"}} {
		for range 3 {
			e.get(c.path, c.vary)
		}
		if a := e.get(c.path, c.vary); !a.isHit() {
			t.Fatalf("%s: no hit: %v", c.path, a.header)
		}
		e.do(e.request("POST", c.path, "", c.vary))
		if a := e.get(c.path, c.vary); a.isHit() {
			t.Errorf("%s: a hit after a POST: %v", c.path, a.header)
		}
		if a := e.get(c.path, c.vary); !a.isHit() {
			t.Errorf("%s: not stored again: %v", c.path, a.header)
		}
	}
	if n := e.Store.Stats().Purges; n != records {
		t.Errorf("%d records of purges, and %d before", n, records)
	}
}

// It makes no difference that nobody else may wait for that fetch, or that it is of a variant or a
// slice.
func TestInvalidationDuringOtherFills(t *testing.T) {
	overProtocols(t, testInvalidationDuringOtherFills)
}

func testInvalidationDuringOtherFills(t *testing.T, p protocol) {
	for _, c := range []struct {
		name   string
		fields []string
	}{
		{"with credentials", []string{"Authorization: Bearer ann"}},
		{"a slice", []string{"Range: bytes=0-1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var written atomic.Bool
			fetched, goOn := make(chan struct{}), make(chan struct{})
			e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodPost {
					written.Store(true)
					return
				}
				w.Header().Set("Cache-Control", "public, max-age=1000")
				is := "old"
				if written.Load() {
					is = "new"
				} else {
					close(fetched)
					<-goOn
				}
				http.ServeContent(w, r, "", time.Time{}, strings.NewReader(is))
			})
			first := make(chan answer)
			go func() { first <- e.do(e.request("GET", "/a", "", c.fields...)) }()
			<-fetched
			e.do(e.request("POST", "/a", "")).wants(t, 200, "")
			close(goOn)
			<-first
			e.settle()
			testwait.Until(t, "what was fetched is stored or not", func() bool { return e.cache.UnderWay().URLs == 0 })
			e.get("/a").wants(t, 200, "new")
		})
	}
}
