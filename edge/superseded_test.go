package edge

import (
	"io"
	"net/http"
	"strconv"
	"sync/atomic"
	"testing"
)

// superseding are answers that can't be stored, and that show that what is stored of the resource
// is no longer good.
var superseding = []struct {
	name   string
	status int
	fields []string
}{
	{"404", 404, nil},
	{"410", 410, nil},
	{"403", 403, nil},
	{"401", 401, []string{"WWW-Authenticate: Basic"}},
	{"302", 302, []string{"Location: /b"}},
	{"no-store", 200, []string{"Cache-Control: no-store"}},
	{"private", 200, []string{"Cache-Control: private, max-age=60"}},
	{"Vary: *", 200, []string{"Cache-Control: max-age=60", "Vary: *"}},
	{"a cookie", 200, []string{"Cache-Control: max-age=60", "Set-Cookie: id=1"}},
}

// supersededEdge is an edge whose origin answers with body "old" and some fields, and after the
// first request as does says.
func supersededEdge(t *testing.T, fields []string, does http.HandlerFunc) *testEdge {
	t.Helper()
	var asked atomic.Int64
	return newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) > 1 {
			does(w, r)
			return
		}
		setFields(w.Header(), fields)
		_, _ = io.WriteString(w, "old")
	})
}

// answering answers everything with a status, fields, and the body "new".
func answering(status int, fields ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		setFields(w.Header(), fields)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, "new")
	}
}

// gone takes back what the origin answers from then on: it is down.
func gone(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

// What a full response supersedes is not used any more, even if that response can't be stored (RFC
// 9111, 4.3.3).
func TestSuperseded(t *testing.T) {
	for _, c := range superseding {
		t.Run(c.name, func(t *testing.T) {
			for name, fields := range map[string][]string{
				"in the background":       {"Cache-Control: max-age=1, stale-while-revalidate=86400", "Age: 2"},
				"when it is validated":    {"Cache-Control: max-age=1, stale-if-error=86400", "Age: 2", `Etag: "1"`},
				"by a reload while fresh": {"Cache-Control: max-age=86400, stale-if-error=86400", `Etag: "1"`},
			} {
				t.Run(name, func(t *testing.T) {
					var down atomic.Bool
					answers := answering(c.status, c.fields...)
					e := supersededEdge(t, fields, func(w http.ResponseWriter, r *http.Request) {
						if down.Load() {
							gone(w, r)
						}
						answers(w, r)
					})
					e.get("/a").wants(t, 200, "old")
					var reload []string
					if name == "by a reload while fresh" {
						reload = []string{"Cache-Control: no-cache"}
					}
					if first := e.get("/a", reload...); first.body != "new" && name != "in the background" {
						t.Errorf("the answer that supersedes: %d, %q", first.status, first.body)
					}
					e.get("/a").wants(t, c.status, "new")
					down.Store(true)
					if got := e.get("/a"); got.status < 500 || got.body == "old" {
						t.Errorf("once the origin is down: %d, %q, %v", got.status, got.body, got.cacheStatus())
					}
				})
			}
		})
	}
}

// An answer that speaks of one request alone, and an error, supersede nothing.
func TestNotSuperseded(t *testing.T) {
	for _, status := range []int{400, 406, 408, 412, 413, 414, 416, 417, 421, 425, 428, 429, 431, 500, 501, 503} {
		t.Run(strconv.Itoa(status), func(t *testing.T) {
			e := supersededEdge(t, []string{"Cache-Control: max-age=1000", `Etag: "1"`}, answering(status))
			e.get("/a").wants(t, 200, "old")
			if got := e.get("/a", "Cache-Control: no-cache"); got.status != status &&
				got.cacheStatus()["detail"] != "stale-if-error" {
				t.Errorf("the answer: %d, %v", got.status, got.cacheStatus())
			}
			got := e.get("/a")
			got.wants(t, 200, "old")
			if !got.isHit() {
				t.Errorf("afterwards: %v", got.cacheStatus())
			}
		})
	}
}

// What supersedes one variant says nothing of a request that selects no stored one.
func TestSupersedingOfVariants(t *testing.T) { overProtocols(t, testSupersedingOfVariants) }

func testSupersedingOfVariants(t *testing.T, p protocol) {
	var gone atomic.Bool
	e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Vary", "Cookie")
		if r.Header.Get("Cookie") == "" && !gone.Load() {
			w.Header().Set("Cache-Control", "max-age=1000")
			_, _ = io.WriteString(w, "for all")
			return
		}
		w.Header().Set("Cache-Control", "private")
		_, _ = io.WriteString(w, "for "+r.Header.Get("Cookie"))
	})
	e.get("/a").wants(t, 200, "for all")
	e.get("/a", "Cookie: ann").wants(t, 200, "for ann")
	if got := e.get("/a"); !got.isHit() {
		t.Errorf("after a private response to another request: %v", got.cacheStatus())
	}
	gone.Store(true)
	e.get("/a", "Cache-Control: no-cache").wants(t, 200, "for ")
	e.get("/a").wants(t, 200, "for ")
}

// A response that turns out too long for the store, or that is not the one that a 304 confirms,
// supersedes too, and so does one to a Range.
func TestSupersededByOthers(t *testing.T) {
	old := []string{"Cache-Control: max-age=1, stale-while-revalidate=86400, stale-if-error=86400", "Age: 2",
		`Etag: "1"`}
	for _, c := range []struct {
		name   string
		does   http.HandlerFunc
		fields []string // of the request
		status int
	}{
		{"too long", func(w http.ResponseWriter, _ *http.Request) {
			setFields(w.Header(), []string{"Cache-Control: max-age=1000"})
			for range 3 {
				_, _ = io.WriteString(w, "0123456789")
				_ = http.NewResponseController(w).Flush()
			}
		}, nil, 200},
		{"a 304 of another", func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("If-None-Match") != "" {
				w.Header().Set("Etag", `"2"`)
				w.WriteHeader(http.StatusNotModified)
				return
			}
			w.WriteHeader(http.StatusNotFound)
		}, nil, 404},
		{"a 304 that makes it private", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "private")
			w.Header().Set("Etag", `"1"`)
			if r.Header.Get("If-None-Match") != "" {
				w.WriteHeader(http.StatusNotModified)
				return
			}
			_, _ = io.WriteString(w, "new")
		}, nil, 200},
		{"a Range", answering(404), []string{"Range: bytes=0-0"}, 404},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := supersededEdge(t, old, c.does)
			e.site.MaxObject = 20
			e.get("/a", c.fields...)
			e.get("/a", append(c.fields, "Cache-Control: no-cache")...)
			if got := e.get("/a"); got.status != c.status || got.body == "old" {
				t.Errorf("%d, %q, %v", got.status, got.body, got.cacheStatus())
			}
		})
	}
}

// A restart doesn't bring back what was superseded.
func TestSupersededAcrossARestart(t *testing.T) { overProtocols(t, testSupersededAcrossARestart) }

func testSupersededAcrossARestart(t *testing.T, p protocol) {
	var deleted atomic.Bool
	h := func(w http.ResponseWriter, _ *http.Request) {
		if deleted.Load() {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.Header().Set("Cache-Control", "max-age=1000")
		_, _ = io.WriteString(w, "old")
	}
	e := p.newEdge(t, h)
	dir, originURL := t.TempDir(), e.site.Origin.Origin.Servers[0].URL.String()
	e.stop()
	e.start(originURL, dir)
	e.get("/a").wants(t, 200, "old")
	deleted.Store(true)
	e.get("/a", "Cache-Control: no-cache").wants(t, 404, "")
	e.stop()
	e.start(originURL, dir)
	e.get("/a").wants(t, 404, "")
}
