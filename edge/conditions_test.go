package edge

import (
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
)

// A client that has a private page already is not sent it again, and nor is the edge once it knows
// that the page is private.
func TestConditionsOnPrivatePages(t *testing.T) { overProtocols(t, testConditionsOnPrivatePages) }

func testConditionsOnPrivatePages(t *testing.T, p protocol) {
	const modified = "Wed, 25 Nov 2026 10:00:00 GMT"
	for _, c := range []struct {
		name, private string
		fields        []string // of all requests
		forwards      bool
	}{
		{"private", "private", nil, true},
		{"no-store", "no-store", nil, true},
		{"with credentials", "max-age=60", []string{"Authorization: Bearer ann"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var conditional atomic.Int64
			e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
				setFields(w.Header(), []string{"Cache-Control: " + c.private, `Etag: "1"`, "Last-Modified: " + modified,
					"X-New: yes"})
				if r.Header.Get("If-None-Match") == `"1"` || r.Header.Get("If-None-Match") == "" &&
					r.Header.Get("If-Modified-Since") == modified {
					conditional.Add(1)
					w.WriteHeader(http.StatusNotModified)
					return
				}
				_, _ = io.WriteString(w, "page")
			})
			for i, condition := range []string{`If-None-Match: "1"`, `If-None-Match: W/"0", "1"`,
				"If-Modified-Since: " + modified, `If-None-Match: "1"`} {
				a := e.get("/a", append(c.fields, condition)...)
				a.wants(t, 304, "")
				if a.header.Get("Etag") != `"1"` || a.header.Get("X-New") != "yes" ||
					a.header.Get("Content-Type") != "" {
					t.Errorf("304 to %s: %v", condition, a.header)
				}
				if want := map[bool]string{true: "304", false: "200"}[c.forwards && i >= 2]; i != 1 &&
					a.cacheStatus()["fwd-status"] != want {
					t.Errorf("%s: %v", condition, a.cacheStatus())
				}
			}
			if n := conditional.Load(); n > 0 != c.forwards {
				t.Errorf("the origin saw %d conditions that hold", n)
			}
			e.get("/a", append(c.fields, `If-None-Match: "0"`)...).wants(t, 200, "page")
			e.get("/a", c.fields...).wants(t, 200, "page")
		})
	}
}

// A page that is not private any more is stored though clients ask for it with conditions.
func TestConditionsOnceStorable(t *testing.T) { overProtocols(t, testConditionsOnceStorable) }

func testConditionsOnceStorable(t *testing.T, p protocol) {
	var public atomic.Bool
	e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", map[bool]string{true: "max-age=1000", false: "private"}[public.Load()])
		w.Header().Set("Etag", `"1"`)
		if strings.Contains(r.Header.Get("If-None-Match"), `"1"`) {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		_, _ = io.WriteString(w, "page")
	})
	e.get("/a").wants(t, 200, "page")
	public.Store(true)
	for range 2 { // the first 304 tells, the second request is for the whole
		e.get("/a", `If-None-Match: "1"`).wants(t, 304, "")
	}
	if a := e.get("/a"); !a.isHit() {
		t.Errorf("%v", a.cacheStatus())
	}
	e.wantHits(3)
}
