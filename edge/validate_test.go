package edge

import (
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/kaiku-cdn/kaiku/fleet/testwait"
	"github.com/kaiku-cdn/kaiku/storage"
)

// stale fields make a response one that has to be validated at once.
var stale = []string{"Cache-Control: max-age=1000", "Age: 2000"}

func TestValidationConfirmed(t *testing.T) { overProtocols(t, testValidationConfirmed) }

func testValidationConfirmed(t *testing.T, p protocol) {
	var conditional atomic.Int64
	e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Etag", `"1"`)
		if r.Header.Get("If-None-Match") == `"1"` {
			conditional.Add(1)
			w.Header().Set("Cache-Control", "max-age=1000")
			w.Header().Set("X-New", "yes")
			w.WriteHeader(http.StatusNotModified)
			return
		}
		setFields(w.Header(), stale)
		w.Header().Set("Content-Type", "text/css")
		_, _ = io.WriteString(w, "hello")
	})
	e.get("/a").wants(t, 200, "hello")
	second := e.get("/a")
	second.wants(t, 200, "hello")
	if cs := second.cacheStatus(); cs["fwd"] != "stale" || cs["fwd-status"] != "304" || conditional.Load() != 1 {
		t.Errorf("Cache-Status of the validation: %q, %d conditional requests", second.header["Cache-Status"],
			conditional.Load())
	}
	third := e.get("/a")
	third.wants(t, 200, "hello")
	if !third.isHit() || third.header.Get("X-New") != "yes" || third.header.Get("Content-Type") != "text/css" {
		t.Errorf("after the validation: %v", third.header)
	}
	if age := third.number(t, "Age"); age > 60 {
		t.Errorf("Age is %d after the validation", age)
	}
	e.wantHits(2)
}

func TestValidationReplaced(t *testing.T) { overProtocols(t, testValidationReplaced) }

func testValidationReplaced(t *testing.T, p protocol) {
	var version atomic.Int64
	e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		if version.Add(1) == 1 {
			setFields(w.Header(), append(stale, `Etag: "1"`))
			_, _ = io.WriteString(w, "one")
			return
		}
		setFields(w.Header(), []string{"Cache-Control: max-age=1000", `Etag: "2"`,
			"X-If: " + r.Header.Get("If-None-Match")})
		_, _ = io.WriteString(w, "two and more")
	})
	e.get("/a").wants(t, 200, "one")
	second := e.get("/a")
	second.wants(t, 200, "two and more")
	if cs := second.cacheStatus(); cs["fwd"] != "stale" || cs["fwd-status"] != "200" ||
		second.header.Get("X-If") != `"1"` {
		t.Errorf("second: %v", second.header)
	}
	if third := e.get("/a"); !third.isHit() || third.body != "two and more" || third.header.Get("Etag") != `"2"` {
		t.Errorf("third: %+v", third)
	}
	e.wantHits(2)
}

// A 304 that is about another response confirms nothing (RFC 9111, 4.3.4).
func TestValidationOfAnother(t *testing.T) { overProtocols(t, testValidationOfAnother) }

func testValidationOfAnother(t *testing.T, p protocol) {
	e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("If-None-Match") != "" {
			w.Header().Set("Etag", `"2"`)
			w.WriteHeader(http.StatusNotModified)
			return
		}
		setFields(w.Header(), append(stale, `Etag: "1"`))
		_, _ = io.WriteString(w, "whole")
	})
	e.get("/a").wants(t, 200, "whole")
	e.get("/a").wants(t, 200, "whole")
	e.wantHits(3)
}

// What private="..." names never gets into a shared cache, by a 304 no more than by a 200 (RFC
// 9111, 5.2.2.7).
func TestPrivateFields(t *testing.T) { overProtocols(t, testPrivateFields) }

func testPrivateFields(t *testing.T, p protocol) {
	e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		setFields(w.Header(), []string{`Etag: "1"`, "X-User: " + r.Header.Get("X-Me"), "X-Other: o"})
		if r.Header.Get("If-None-Match") != "" {
			w.Header().Set("Cache-Control", `max-age=1000, private="X-User"`)
			w.WriteHeader(http.StatusNotModified)
			return
		}
		setFields(w.Header(), []string{`Cache-Control: max-age=1000, private="X-User"`, "Age: " + r.URL.Path[1:]})
		_, _ = io.WriteString(w, "x")
	})
	for _, path := range []string{"/0", "/2000"} { // fresh, and stale on arrival
		for _, me := range []string{"ann", "bob", "cid", "dan"} {
			got := e.get(path, "X-Me: "+me)
			got.wants(t, 200, "x")
			if u := got.header.Get("X-User"); u != "" && u != me {
				t.Errorf("%s: %s is shown the X-User of %s", path, me, u)
			}
			if got.header.Get("X-Other") != "o" {
				t.Errorf("%s: X-Other is %q", path, got.header.Get("X-Other"))
			}
		}
	}
	e.wantHits(3)
}

// What no-cache="..." names is not used without validation (RFC 9111, 5.2.2.4).
func TestNoCacheFields(t *testing.T) { overProtocols(t, testNoCacheFields) }

func testNoCacheFields(t *testing.T, p protocol) {
	e := p.newEdge(t, static("x", `Cache-Control: max-age=1000, no-cache="Set-Cookie"`, "Set-Cookie: id=1",
		"X-Other: o"))
	if first := e.get("/a"); first.header.Get("Set-Cookie") == "" {
		t.Error("the first answer lost Set-Cookie")
	}
	hit := e.get("/a")
	if !hit.isHit() || hit.header.Get("Set-Cookie") != "" || hit.header.Get("X-Other") != "o" {
		t.Errorf("hit: %v", hit.header)
	}
}

func TestConditionsOfClients(t *testing.T) { overProtocols(t, testConditionsOfClients) }

func testConditionsOfClients(t *testing.T, p protocol) {
	e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("If-None-Match") != "" || r.Header.Get("If-Modified-Since") != "" {
			t.Errorf("the origin sees the client's conditions on a miss: %v", r.Header)
		}
		setFields(w.Header(), []string{"Cache-Control: max-age=1000", `Etag: "1"`,
			"Last-Modified: Wed, 01 Jul 2026 12:00:00 GMT", "Content-Type: text/css", "Content-Language: fi"})
		_, _ = io.WriteString(w, "hello")
	})
	for i := range 2 {
		got := e.get("/miss", `If-None-Match: "1"`)
		got.wants(t, 304, "")
		if got.isHit() != (i == 1) {
			t.Errorf("Cache-Status %q", got.header["Cache-Status"])
		}
		for _, name := range []string{"Content-Length", "Content-Type", "Content-Language"} {
			if got.header[name] != nil {
				t.Errorf("304 has %s: %q", name, got.header[name])
			}
		}
		if got.header.Get("Etag") != `"1"` || got.header.Get("Cache-Control") == "" || got.header.Get("Date") == "" {
			t.Errorf("304 lacks a field: %v", got.header)
		}
		e.get("/miss").wants(t, 200, "hello") // a 304 needs no body, so that alone it need not fill the store
	}
	hits := e.hits.Load()
	e.get("/miss", `If-None-Match: W/"1"`).wants(t, 304, "")
	e.get("/miss", `If-None-Match: "2"`).wants(t, 200, "hello")
	e.get("/miss", `If-None-Match: "2"`, "If-Modified-Since: Wed, 01 Jul 2026 12:00:00 GMT").wants(t, 200, "hello")
	e.get("/miss", "If-Modified-Since: Wed, 01 Jul 2026 12:00:00 GMT").wants(t, 304, "")
	e.get("/miss", "If-Modified-Since: Wed, 01 Jul 2026 11:59:59 GMT").wants(t, 200, "hello")
	e.do(e.request(http.MethodHead, "/miss", "", `If-None-Match: "1"`)).wants(t, 304, "")
	e.wantHits(hits)
}

// If-Match and If-Unmodified-Since are the origin's to evaluate (RFC 9111, 4.3.2).
func TestOriginsConditions(t *testing.T) {
	e := newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("If-Match") == `"old"` || r.Header.Get("If-Unmodified-Since") != "" {
			w.WriteHeader(http.StatusPreconditionFailed)
			return
		}
		setFields(w.Header(), []string{"Cache-Control: max-age=1000", `Etag: "new"`})
		_, _ = io.WriteString(w, "x")
	})
	e.get("/a").wants(t, 200, "x")
	e.get("/a", `If-Match: "old"`).wants(t, 412, "")
	e.get("/a", "If-Unmodified-Since: Wed, 01 Jul 2026 12:00:00 GMT").wants(t, 412, "")
	e.get("/a", `If-Match: "new"`).wants(t, 200, "x")
	e.wantHits(4)
	if got := e.get("/a"); !got.isHit() {
		t.Errorf("what was stored is gone: %q", got.header["Cache-Status"])
	}
}

func TestStaleIfError(t *testing.T) { overProtocols(t, testStaleIfError) }

func testStaleIfError(t *testing.T, p protocol) {
	for _, c := range []struct {
		name   string
		cc     string
		status int // of the origin's second answer; 0 closes the connection
		want   int
		stale  bool
	}{
		{"503", "max-age=1000, stale-if-error=5000", 503, 200, true},
		{"500", "max-age=1000, stale-if-error=5000", 500, 200, true},
		{"no answer", "max-age=1000, stale-if-error=5000", 0, 200, true},
		{"404 is no error of the origin's", "max-age=1000, stale-if-error=5000", 404, 404, false},
		{"501 is none that counts", "max-age=1000, stale-if-error=5000", 501, 501, false},
		{"too stale", "max-age=1000, stale-if-error=500", 503, 503, false},
		{"not allowed", "max-age=1000", 503, 503, false},
		{"must-revalidate", "max-age=1000, stale-if-error=5000, must-revalidate", 503, 503, false},
		{"must-revalidate and no answer", "max-age=1000, stale-if-error=5000, must-revalidate", 0, 504, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var failing atomic.Bool
			e := p.newEdge(t, func(w http.ResponseWriter, _ *http.Request) {
				switch {
				case !failing.Load():
					setFields(w.Header(), []string{"Cache-Control: " + c.cc, "Age: 2000", `Etag: "1"`})
					_, _ = io.WriteString(w, "good")
				case c.status == 0:
					panic(http.ErrAbortHandler)
				default:
					w.WriteHeader(c.status)
					_, _ = io.WriteString(w, "bad")
				}
			})
			e.get("/a").wants(t, 200, "good")
			failing.Store(true)
			got := e.get("/a")
			if got.status != c.want || got.err != nil || (got.body == "good") != c.stale {
				t.Errorf("got %d, %q, %v", got.status, got.body, got.err)
			}
			cs := got.cacheStatus()
			if (cs["detail"] == "stale-if-error") != c.stale || cs["fwd"] != "stale" || cs["hit"] != "" {
				t.Errorf("Cache-Status %q", got.header["Cache-Status"])
			}
			if c.status != 0 { // net/http may ask again where a connection was closed
				e.wantHits(2)
			}
		})
	}
}

func TestStaleWhileRevalidate(t *testing.T) { overProtocols(t, testStaleWhileRevalidate) }

func testStaleWhileRevalidate(t *testing.T, p protocol) {
	const clients = 8
	var asked atomic.Int64
	release := make(chan struct{})
	e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) == 1 {
			setFields(w.Header(), []string{"Cache-Control: max-age=1000, stale-while-revalidate=5000", "Age: 2000",
				`Etag: "1"`})
			_, _ = io.WriteString(w, "old")
			return
		}
		select {
		case <-release:
		case <-r.Context().Done():
		}
		setFields(w.Header(), []string{"Cache-Control: max-age=1000", `Etag: "2"`})
		_, _ = io.WriteString(w, "new")
	})
	e.get("/a").wants(t, 200, "old")
	answers := make(chan answer)
	for range clients {
		go func() { answers <- e.do(e.request("GET", "/a", "")) }()
	}
	for range clients { // all are answered while the origin is still at it
		got := <-answers
		got.wants(t, 200, "old")
		if cs := got.cacheStatus(); !got.isHit() || cs["detail"] != "stale-while-revalidate" || cs["ttl"][0] != '-' {
			t.Errorf("Cache-Status %q", got.header["Cache-Status"])
		}
	}
	testwait.Until(t, "the origin is asked again", func() bool { return asked.Load() == 2 })
	close(release)
	e.settle()
	fresh := e.get("/a")
	fresh.wants(t, 200, "new")
	if !fresh.isHit() {
		t.Errorf("after the background fetch: %q", fresh.header["Cache-Status"])
	}
	e.wantHits(2)
}

// An error in the background harms nothing.
func TestStaleWhileRevalidateFails(t *testing.T) { overProtocols(t, testStaleWhileRevalidateFails) }

func testStaleWhileRevalidateFails(t *testing.T, p protocol) {
	var asked atomic.Int64
	e := p.newEdge(t, func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1) == 1 {
			setFields(w.Header(), []string{"Cache-Control: max-age=1000, stale-while-revalidate=5000", "Age: 2000"})
			_, _ = io.WriteString(w, "old")
			return
		}
		w.WriteHeader(503)
	})
	e.get("/a").wants(t, 200, "old")
	for n := int64(2); n <= 4; n++ {
		got := e.get("/a")
		got.wants(t, 200, "old")
		if !got.isHit() {
			t.Errorf("Cache-Status %q", got.header["Cache-Status"])
		}
		if asked.Load() != n {
			t.Errorf("the origin was asked %d times, want %d", asked.Load(), n)
		}
	}
}

// A soft purge makes stale: what is confirmed then is fresh again.
func TestSoftPurgeIsValidated(t *testing.T) { overProtocols(t, testSoftPurgeIsValidated) }

func testSoftPurgeIsValidated(t *testing.T, p protocol) {
	e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		setFields(w.Header(), []string{"Cache-Control: max-age=1000", `Etag: "1"`})
		if r.Header.Get("If-None-Match") == `"1"` {
			w.WriteHeader(304)
			return
		}
		_, _ = io.WriteString(w, "x")
	})
	e.get("/a").wants(t, 200, "x")
	if _, err := e.Store.Purge(storage.Purge{URLs: []string{"www.example/a"}, Soft: true}); err != nil {
		t.Fatal(err)
	}
	got := e.get("/a")
	got.wants(t, 200, "x")
	if got.cacheStatus()["fwd-status"] != "304" {
		t.Errorf("after the soft purge: %q", got.header["Cache-Status"])
	}
	if again := e.get("/a"); !again.isHit() {
		t.Errorf("after its validation: %q", again.header["Cache-Status"])
	}
	e.wantHits(2)
}

func TestOriginDown(t *testing.T) {
	o := httptest.NewServer(http.NotFoundHandler())
	o.Close()
	e := &testEdge{t: t}
	e.start(o.URL, t.TempDir())
	for _, method := range []string{"GET", "POST"} {
		got := e.do(e.request(method, "/a", ""))
		if got.status != 502 || got.cacheStatus()["detail"] != "connect-failed" ||
			got.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d, %v", method, got.status, got.header)
		}
	}
}
