package edge

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
	"github.com/kaiku-cdn/kaiku/edge/site"
)

func TestHitAfterMiss(t *testing.T) { overProtocols(t, testHitAfterMiss) }

func testHitAfterMiss(t *testing.T, p protocol) {
	e := p.newEdge(t, static("hello", "Cache-Control: max-age=1000", "Age: 100", "Via: 1.1 shield",
		"Cache-Status: shield; hit", "Content-Type: text/css"))
	miss := e.get("/a")
	miss.wants(t, 200, "hello")
	cs := miss.cacheStatus()
	if cs[""] != "hel1" || cs["fwd"] != "uri-miss" || cs["fwd-status"] != "200" || cs["stored"] != "true" ||
		cs["hit"] != "" {
		t.Errorf("Cache-Status of the miss: %q", miss.header["Cache-Status"])
	}
	if got := strings.Join(miss.header["Cache-Status"], ", "); !strings.HasPrefix(got, "shield; hit, hel1;") {
		t.Errorf("Cache-Status of the miss is %q, want the shield's first", got)
	}

	hit := e.get("/a")
	hit.wants(t, 200, "hello")
	cs = hit.cacheStatus()
	if cs[""] != "hel1" || !hit.isHit() || cs["fwd"] != "" || cs["key"] != `"`+e.url("/a")+`"` {
		t.Errorf("Cache-Status of the hit: %q", hit.header["Cache-Status"])
	}
	if n := len(hit.header["Cache-Status"]); n != 1 {
		t.Errorf("%d members of Cache-Status: the shield had no part in a hit", n)
	}
	if age := hit.number(t, "Age"); age < 100 || age > 160 {
		t.Errorf("Age is %d, want the origin's 100 and what passed since", age)
	}
	if got := strings.Join(hit.header["Via"], ", "); got != "1.1 shield, 1.1 hel1" {
		t.Errorf("Via is %q", got)
	}
	if ct, cl := hit.header.Get("Content-Type"), hit.header.Get("Content-Length"); ct != "text/css" || cl != "5" {
		t.Errorf("Content-Type %q, Content-Length %q", ct, cl)
	}
	e.wantHits(1)
}

func TestRestartKeepsTheCache(t *testing.T) {
	body := strings.Repeat("0123456789", 100_000)
	e := newEdge(t, static(body, "Cache-Control: max-age=1000", `Etag: "x"`))
	dir := t.TempDir()
	originURL := e.site.Origin.Origin.Servers[0].URL.String()
	e.stop()
	e.start(originURL, dir)
	e.get("/a").wants(t, 200, body)
	e.stop()
	e.start(originURL, dir)
	hit := e.get("/a")
	hit.wants(t, 200, body)
	if !hit.isHit() || hit.header.Get("Etag") != `"x"` {
		t.Errorf("after the restart: %v", hit.header)
	}
	e.wantHits(1)
}

// Age and Expires of the origin decide, not when the response came (RFC 9111, 4.2).
func TestFreshness(t *testing.T) {
	ago := func(d time.Duration) string { return time.Now().Add(-d).UTC().Format(http.TimeFormat) }
	for _, c := range []struct {
		name   string
		fields []string
		hit    bool
	}{
		{"max-age", []string{"Cache-Control: max-age=1000"}, true},
		{"Age below max-age", []string{"Cache-Control: max-age=1000", "Age: 500"}, true},
		{"Age above max-age", []string{"Cache-Control: max-age=1000", "Age: 2000"}, false},
		{"Date long ago", []string{"Cache-Control: max-age=1000", "Date: " + ago(time.Hour)}, false},
		{"Expires ahead", []string{"Expires: " + ago(-time.Hour)}, true},
		{"Expires past", []string{"Expires: " + ago(time.Hour)}, false},
		{"Expires: 0", []string{"Expires: 0"}, false},
		{"s-maxage", []string{"Cache-Control: max-age=1000, s-maxage=10", "Age: 500"}, false},
		{"Last-Modified", []string{"Last-Modified: " + ago(1000*time.Hour)}, true},
		{"Last-Modified, Age above the tenth", []string{"Last-Modified: " + ago(10*time.Hour), "Age: 7200"}, false},
		{"no-cache", []string{"Cache-Control: no-cache, max-age=1000"}, false},
		{"no-store", []string{"Cache-Control: no-store, max-age=1000"}, false},
		{"private", []string{"Cache-Control: private, max-age=1000"}, false},
		{"Set-Cookie, nothing explicit", []string{"Last-Modified: " + ago(1000*time.Hour), "Set-Cookie: a=b"}, false},
		{"Set-Cookie, explicit", []string{"Cache-Control: max-age=1000", "Set-Cookie: a=b"}, false},
		{"Vary: *", []string{"Cache-Control: max-age=1000", "Vary: *"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := newEdge(t, static("x", c.fields...))
			e.get("/").wants(t, 200, "x")
			second := e.get("/")
			second.wants(t, 200, "x")
			if second.isHit() != c.hit {
				t.Errorf("Cache-Status %q, want hit %v", second.header["Cache-Status"], c.hit)
			}
			if c.hit {
				e.wantHits(1)
			} else {
				e.wantHits(2)
			}
		})
	}
}

func TestDefaultTTL(t *testing.T) { overProtocols(t, testDefaultTTL) }

func testDefaultTTL(t *testing.T, p protocol) {
	e := p.newEdge(t, static("x"), func(_ *Server, s *site.Site) { s.Policy.DefaultTTL = time.Hour })
	e.get("/").wants(t, 200, "x")
	if second := e.get("/"); !second.isHit() {
		t.Errorf("Cache-Status %q", second.header["Cache-Status"])
	}
}

func TestHead(t *testing.T) { overProtocols(t, testHead) }

func testHead(t *testing.T, p protocol) {
	e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=1000")
		w.Header().Set("X-Method", r.Method)
		if r.Method != http.MethodHead {
			_, _ = io.WriteString(w, "hello")
		}
	})
	head := func() answer { return e.do(e.request(http.MethodHead, "/a", "")) }
	passed := head()
	passed.wants(t, 200, "")
	if passed.isHit() || passed.header.Get("X-Method") != "HEAD" {
		t.Errorf("a HEAD for what isn't stored: %v", passed.header)
	}
	if got := e.get("/a"); got.isHit() || got.body != "hello" {
		t.Errorf("a GET after a HEAD: %+v", got)
	}
	hit := head()
	hit.wants(t, 200, "")
	if !hit.isHit() || hit.header.Get("Content-Length") != "5" || hit.header.Get("X-Method") != "GET" {
		t.Errorf("a HEAD for what is stored: %v", hit.header)
	}
	e.wantHits(2)
}

// A status without a body, and one that the edge doesn't know.
func TestOtherStatuses(t *testing.T) { overProtocols(t, testOtherStatuses) }

func testOtherStatuses(t *testing.T, p protocol) {
	e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=1000")
		switch r.URL.Path {
		case "/204":
			w.WriteHeader(204)
		case "/301":
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(301)
		case "/404":
			w.WriteHeader(404)
			_, _ = io.WriteString(w, "not here\n")
		case "/500":
			w.WriteHeader(500)
		}
	})
	for path, status := range map[string]int{"/204": 204, "/301": 301, "/404": 404, "/500": 500} {
		body := map[string]string{"/404": "not here\n"}[path]
		e.get(path).wants(t, status, body)
		hit := e.get(path)
		hit.wants(t, status, body)
		if !hit.isHit() {
			t.Errorf("%s: Cache-Status %q", path, hit.header["Cache-Status"])
		}
		if status == 204 && hit.header["Content-Length"] != nil {
			t.Errorf("204 has Content-Length %q", hit.header["Content-Length"])
		}
		if status == 301 && hit.header.Get("Location") != "/elsewhere" {
			t.Errorf("Location is %q", hit.header.Get("Location"))
		}
	}
}

func TestOnlyIfCachedAndNoStore(t *testing.T) { overProtocols(t, testOnlyIfCachedAndNoStore) }

func testOnlyIfCachedAndNoStore(t *testing.T, p protocol) {
	e := p.newEdge(t, static("x", "Cache-Control: max-age=1000"))
	if got := e.get("/a", "Cache-Control: only-if-cached"); got.status != 504 ||
		got.cacheStatus()["detail"] != "only-if-cached" {
		t.Errorf("only-if-cached without anything stored: %d, %q", got.status, got.header["Cache-Status"])
	}
	e.wantHits(0)
	e.get("/a", "Cache-Control: no-store").wants(t, 200, "x")
	if e.cache.WhyNot(httpcache.Key(e.url("/a"))) != "" {
		t.Error("a request with no-store makes others not wait for each other")
	}
	if got := e.get("/a"); got.isHit() {
		t.Error("the response to a request with no-store was stored")
	}
	e.wantHits(2)
	got := e.get("/a", "Cache-Control: only-if-cached")
	got.wants(t, 200, "x")
	if !got.isHit() {
		t.Errorf("only-if-cached, stored: %q", got.header["Cache-Status"])
	}
	// What has to be validated is not there for only-if-cached either.
	if got := e.get("/a", "Cache-Control: only-if-cached, no-cache"); got.status != 504 {
		t.Errorf("only-if-cached, no-cache: %d", got.status)
	}
	e.wantHits(2)
	if got := e.get("/a", "Cache-Control: no-cache"); got.isHit() {
		t.Error("a request with no-cache was answered from the store")
	}
	if got := e.get("/a", "Cache-Control: max-age=0"); got.isHit() {
		t.Error("a request with max-age=0 was answered from the store")
	}
	e.wantHits(4)
}
