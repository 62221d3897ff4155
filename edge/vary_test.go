package edge

import (
	"io"
	"net/http"
	"testing"

	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

func TestVary(t *testing.T) { overProtocols(t, testVary) }

func testVary(t *testing.T, p protocol) {
	e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		setFields(w.Header(), []string{"Cache-Control: max-age=1000", "Vary: Accept-Language"})
		_, _ = io.WriteString(w, "in "+r.Header.Get("Accept-Language"))
	})
	for _, c := range []struct {
		language, fwd string
		hits          int64
	}{{"fi", "uri-miss", 1}, {"sv", "vary-miss", 2}, {"", "vary-miss", 3}, {"fi", "", 3}, {"sv", "", 3}, {"", "", 3}} {
		var fields []string
		if c.language != "" {
			fields = []string{"Accept-Language: " + c.language, "Cookie: does=not-count"}
		}
		got := e.get("/a", fields...)
		got.wants(t, 200, "in "+c.language)
		if got.cacheStatus()["fwd"] != c.fwd {
			t.Errorf("%q: Cache-Status %q", c.language, got.header["Cache-Status"])
		}
		e.wantHits(c.hits)
	}
	// A purge of the URL takes all its variants.
	if got := e.purge(`{"urls":["http://www.example/a"]}`); got.status != 200 {
		t.Fatalf("purge: %+v", got)
	}
	for _, language := range []string{"fi", "sv"} {
		if got := e.get("/a", "Accept-Language: "+language); got.isHit() || got.body != "in "+language {
			t.Errorf("after the purge: %+v", got)
		}
	}
}

// Clients that wait for a flight whose response turns out to be another variant than theirs get
// theirs, by one fetch for each variant.
func TestVaryWaiters(t *testing.T) { overProtocols(t, testVaryWaiters) }

func testVaryWaiters(t *testing.T, p protocol) {
	const each = 3
	first, rest := make(chan struct{}), make(chan struct{})
	e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		language := r.Header.Get("Accept-Language")
		setFields(w.Header(), []string{"Cache-Control: max-age=1000", "Vary: Accept-Language"})
		if language == "fi" {
			<-first
		}
		_, _ = io.WriteString(w, "in ")
		_ = http.NewResponseController(w).Flush()
		<-rest
		_, _ = io.WriteString(w, language)
	})
	type asked struct {
		language string
		answer
	}
	answers := make(chan asked)
	ask := func(language string) {
		answers <- asked{language, e.do(e.request("GET", "/a", "", "Accept-Language: "+language))}
	}
	go ask("fi")
	testwait.Until(t, "the leader has asked", func() bool { return e.hits.Load() == 1 })
	for range each {
		go ask("fi")
		go ask("sv")
		go ask("en")
	}
	testwait.Until(t, "all follow one flight", func() bool { return e.followers() == 1+3*each })
	close(first)
	testwait.Until(t, "each variant is asked for", func() bool { return e.hits.Load() >= 3 })
	testwait.Until(t, "all follow again", func() bool { return e.followers() == 1+3*each })
	close(rest)
	for range 1 + 3*each {
		got := <-answers
		got.wants(t, 200, "in "+got.language)
	}
	e.wantHits(3)
	for _, language := range []string{"fi", "sv", "en"} {
		if got := e.get("/a", "Accept-Language: "+language); !got.isHit() || got.body != "in "+language {
			t.Errorf("%s afterwards: %q, %q", language, got.body, got.header["Cache-Status"])
		}
	}
}

// An origin that begins to vary by something else.
func TestVaryChanges(t *testing.T) { overProtocols(t, testVaryChanges) }

func testVaryChanges(t *testing.T, p protocol) {
	e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		vary := "Accept-Language"
		if r.Header.Get("Accept-Language") == "sv" {
			vary = "Accept-Language, Accept"
		}
		setFields(w.Header(), []string{"Cache-Control: max-age=1000", "Vary: " + vary})
		_, _ = io.WriteString(w, r.Header.Get("Accept-Language")+" "+r.Header.Get("Accept"))
	})
	for range 2 {
		e.get("/a", "Accept-Language: fi", "Accept: a").wants(t, 200, "fi a")
		e.get("/a", "Accept-Language: sv", "Accept: a").wants(t, 200, "sv a")
		e.get("/a", "Accept-Language: sv", "Accept: b").wants(t, 200, "sv b")
		e.get("/a", "Accept-Language: fi", "Accept: b").wants(t, 200, "fi a") // does not vary by it
	}
	e.wantHits(3)
}

// TestVaryThatChanges has a validation say that a response varies by more than was known: it is not
// used for others (RFC 9111, 4.1).
func TestVaryThatChanges(t *testing.T) { overProtocols(t, testVaryThatChanges) }

func testVaryThatChanges(t *testing.T, p protocol) {
	n := 0
	e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Etag", `"1"`)
		w.Header().Set("Cache-Control", "max-age=1000")
		if n++; n == 1 {
			w.Header().Set("Age", "2000")
		} else {
			w.Header().Set("Vary", "Accept-Language")
		}
		if r.Header.Get("If-None-Match") != "" && n == 2 {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		_, _ = io.WriteString(w, r.Header.Get("Accept-Language"))
	})
	e.get("/a", "Accept-Language: fi").wants(t, 200, "fi")
	e.get("/a", "Accept-Language: fi").wants(t, 200, "fi")
	e.get("/a", "Accept-Language: sv").wants(t, 200, "sv")
	e.get("/a", "Accept-Language: fi").wants(t, 200, "fi")
}

// TestHeadThatIsNotForAll does not freshen what is stored (RFC 9111, 3 and 4.3.5).
func TestHeadThatIsNotForAll(t *testing.T) { overProtocols(t, testHeadThatIsNotForAll) }

func testHeadThatIsNotForAll(t *testing.T, p protocol) {
	for _, c := range [][2]string{{"Cache-Control: private, max-age=1000", "X: 1"}, {"Cache-Control: no-store", "X: 1"},
		{"Cache-Control: max-age=1000", "Authorization: x"},
		{"Vary: *", "X: 1"}} {
		e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
			setFields(w.Header(), []string{`Etag: "1"`, "Cache-Control: max-age=1000", "Content-Length: 4"})
			if r.Method == http.MethodHead {
				setFields(w.Header(), []string{c[0], "Set-Cookie: secret"})
				return
			}
			w.Header().Set("Age", "2000")
			_, _ = io.WriteString(w, "body")
		})
		e.get("/a").wants(t, 200, "body")
		e.do(e.request("HEAD", "/a", "", "Cache-Control: no-cache", c[1])).wants(t, 200, "")
		if a := e.get("/a"); a.isHit() || a.header.Get("Set-Cookie") != "" {
			t.Errorf("%v: %v", c, a.header)
		}
	}
}
