package edge

import (
	"net/http"
	"strings"
	"testing"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
	"github.com/kaiku-cdn/kaiku/edge/site"
)

// The cookie of one client is not given to the next one, with the response or with its validation,
// unless the site says so.
func TestSetCookie(t *testing.T) { overProtocols(t, testSetCookie) }

func testSetCookie(t *testing.T, p protocol) {
	for _, c := range []struct {
		mode        httpcache.SetCookie
		first       string // cookie of the first response
		hit, second string // whether the second request is a hit, and its cookie
	}{
		{httpcache.PassSetCookie, "id=1", "", "id=2"},
		{httpcache.StripSetCookie, "", "hit", ""},
		{httpcache.StoreSetCookie, "id=1", "hit", "id=1"},
	} {
		t.Run("mode "+string(c.mode), func(t *testing.T) {
			n := 0
			e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
				n++
				w.Header().Set("Cache-Control", "max-age=60")
				w.Header().Set("Set-Cookie", "id="+string(rune('0'+n)))
			}, func(_ *Server, site *site.Site) { site.Policy.SetCookie = c.mode })
			first, second := e.get("/a"), e.get("/a")
			if got := first.header.Get("Set-Cookie"); got != c.first {
				t.Errorf("the first cookie is %q, want %q", got, c.first)
			}
			if got := second.header.Get("Set-Cookie"); got != c.second || second.isHit() != (c.hit != "") {
				t.Errorf("the second cookie is %q (%s), want %q", got, second.header.Get("Cache-Status"), c.second)
			}
		})
	}
}

// A 304 that sets a cookie confirms what is stored; its cookie is of the client that asked, or of
// nobody.
func TestSetCookieOfValidation(t *testing.T) { overProtocols(t, testSetCookieOfValidation) }

func testSetCookieOfValidation(t *testing.T, p protocol) {
	e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Etag", `"1"`)
		w.Header().Set("Cache-Control", "max-age=1000")
		if r.Header.Get("If-None-Match") != "" {
			w.Header().Set("Set-Cookie", "id=secret")
			w.WriteHeader(http.StatusNotModified)
			return
		}
		w.Header().Set("Cache-Control", "no-cache")
	})
	e.get("/a")
	for i := range 3 { // the validation, and hits
		if got := e.get("/a"); strings.Contains(got.header.Get("Set-Cookie"), "secret") {
			t.Errorf("request %d gets the cookie: %v", i+2, got.header)
		}
	}
	if got := e.get("/a"); !got.isHit() {
		t.Errorf("no hit: %v", got.header)
	}
}

// An answer to a Range that is no part of the response is not given to those who ask for all of it.
func TestErrorsOfRanges(t *testing.T) { overProtocols(t, testErrorsOfRanges) }

func testErrorsOfRanges(t *testing.T, p protocol) {
	for _, status := range []int{416, 400, 404, 302, 403} {
		e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "max-age=1000")
			if r.Header.Get("Range") != "" {
				w.Header().Set("Content-Range", "bytes */0")
				w.WriteHeader(status)
				return
			}
			_, _ = w.Write([]byte("all of it"))
		})
		for _, field := range []string{"Range: bytes=99999999999-", "Range: bytes=0-0", "Range: bytes=-5"} {
			e.get("/a", field)
			if got := e.get("/b", field); got.status != status {
				t.Errorf("%s with %d: %d", field, status, got.status)
			}
		}
		for i := range 2 {
			if got := e.get("/a"); got.status != 200 || got.body != "all of it" ||
				got.header.Get("Content-Range") != "" || i == 1 && !got.isHit() {
				t.Errorf("after a Range with %d, request %d of all: %d %q %v", status, i+1, got.status, got.body,
					got.header)
			}
		}
	}
}
