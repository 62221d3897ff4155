package edge

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/kaiku-cdn/kaiku/edge/site"
)

// A server that compresses for those who take it, and does not say so in Vary, gives nobody what
// they can't read.
func TestCodedWithoutVary(t *testing.T) { overProtocols(t, testCodedWithoutVary) }

func testCodedWithoutVary(t *testing.T, p protocol) {
	for _, conditional := range []bool{false, true} {
		e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "max-age=1000")
			body := "plain"
			if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
				w.Header().Set("Content-Encoding", "gzip")
				body = "coded"
			}
			if conditional {
				w.Header().Set("Etag", `"`+body+`"`)
				w.Header().Set("Age", "2000")
				if r.Header.Get("If-None-Match") == `"`+body+`"` {
					w.Header().Del("Content-Encoding")
					w.WriteHeader(http.StatusNotModified)
					return
				}
			}
			_, _ = io.WriteString(w, body)
		})
		for i := range 3 {
			for _, c := range []struct{ accept, want string }{{"gzip", "coded"}, {"identity", "plain"}, {"", "plain"}} {
				var fields []string
				if c.accept != "" {
					fields = []string{"Accept-Encoding: " + c.accept}
				}
				a := e.get("/a", fields...)
				a.wants(t, 200, c.want)
				if coded := a.header.Get("Content-Encoding") == "gzip"; coded != (c.want == "coded") ||
					a.header.Get("Vary") != "Accept-Encoding" {
					t.Errorf("%s gets %v", c.accept, a.header)
				}
				if i > 0 && !conditional && !a.isHit() {
					t.Errorf("%s, request %d: %v", c.accept, i, a.cacheStatus())
				}
			}
		}
	}
}

// Of stored variants, one in the language that a client wants before all others is for it, however
// the client says so.
func TestVariantByLanguage(t *testing.T) { overProtocols(t, testVariantByLanguage) }

func testVariantByLanguage(t *testing.T, p protocol) {
	e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		setFields(w.Header(), []string{"Cache-Control: max-age=1000", "Vary: Accept-Language"})
		language := "en"
		if strings.HasPrefix(r.Header.Get("Accept-Language"), "fi") {
			language = "fi"
		}
		w.Header().Set("Content-Language", language)
		_, _ = io.WriteString(w, language)
	})
	e.get("/a", "Accept-Language: fi").wants(t, 200, "fi")
	e.get("/a", "Accept-Language: en").wants(t, 200, "en")
	for _, c := range []struct {
		accept, want string
		hit          bool
	}{
		{"fi, en;q=0.5", "fi", true}, {"FI;q=0.9, sv;q=0.8", "fi", true}, {"sv;q=0.1, en", "en", true},
		{"en;q=1.0,fi;q=0.999", "en", true},
		{"sv, fi;q=0.9", "en", false}, {"fi, en", "fi", false}, {"de", "en", false}, {"*", "en", false}, {"fi;q=0",
			"fi", false}, {"fi;x=1", "fi", false},
	} {
		a := e.get("/a", "Accept-Language: "+c.accept)
		a.wants(t, 200, c.want)
		if a.isHit() != c.hit {
			t.Errorf("%s: %v", c.accept, a.cacheStatus())
		}
	}
}

// An event stream is for one client, whatever the site says of what has no freshness.
func TestEventStreamIsNotShared(t *testing.T) { overProtocols(t, testEventStreamIsNotShared) }

func testEventStreamIsNotShared(t *testing.T, p protocol) {
	for _, field := range []string{"X: y", "Cache-Control: max-age=60"} {
		var asked atomic.Int64
		e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
			asked.Add(1)
			setFields(w.Header(), []string{"Content-Type: text/event-stream; charset=utf-8", field})
			_, _ = io.WriteString(w, "data: first\n\n")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}, func(_ *Server, s *site.Site) { s.Policy.DefaultTTL = 1e9 })
		for i := range int64(3) {
			resp := e.open(t.Context(), "/events")
			wantNext(t, resp.Body, "data: first\n\n")
			if n := asked.Load(); n != i+1 {
				t.Errorf("%d clients have %d streams", i+1, n)
			}
			defer resp.Body.Close()
		}
	}
}

// A HEAD that does not agree with what is stored makes that stale: a 304 is enough to use it again
// (RFC 9111, 4.3.5).
func TestHeadThatDisagreesMakesStale(t *testing.T) { overProtocols(t, testHeadThatDisagreesMakesStale) }

func testHeadThatDisagreesMakesStale(t *testing.T, p protocol) {
	var conditional atomic.Int64
	e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		setFields(w.Header(), []string{"Cache-Control: max-age=1000", `Etag: "1"`})
		switch {
		case r.Method == http.MethodHead:
			w.Header().Set("Content-Length", "0") // of servers that know no better
		case r.Header.Get("If-None-Match") == `"1"`:
			conditional.Add(1)
			w.WriteHeader(http.StatusNotModified)
		default:
			_, _ = io.WriteString(w, "body")
		}
	})
	e.get("/a").wants(t, 200, "body")
	e.do(e.request("HEAD", "/a", "", "Cache-Control: no-cache"))
	a := e.get("/a")
	a.wants(t, 200, "body")
	if a.isHit() || conditional.Load() != 1 {
		t.Errorf("after the HEAD: %v, %d conditional requests", a.cacheStatus(), conditional.Load())
	}
	if a := e.get("/a"); !a.isHit() {
		t.Errorf("after its validation: %v", a.cacheStatus())
	}
}

// A client of HTTP/1.0 can tell a response that was cut from one that is whole.
func TestCutResponseToHTTP10(t *testing.T) {
	for _, cc := range []string{"max-age=60", "no-store"} {
		e := newEdge(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Cache-Control", cc)
			_, _ = io.WriteString(w, strings.Repeat("x", 100<<10))
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		})
		for range 2 { // also where it is known that it can't be stored
			conn := e.dialRaw(t, false)
			_, _ = io.WriteString(conn, "GET /a HTTP/1.0\r\nHost: www.example\r\n\r\n")
			b, err := io.ReadAll(bufio.NewReader(conn))
			if strings.HasPrefix(string(b), "HTTP/1.0 502 ") {
				continue // nothing had been sent when the edge learned of the end
			}
			if !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("%s: the end of a response that was cut is %v", cc, err)
			}
		}
	}
}
