package edge

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/kaiku-cdn/kaiku/edge/admin"
	"github.com/kaiku-cdn/kaiku/edge/purge"
	"github.com/kaiku-cdn/kaiku/edge/site"
	"github.com/kaiku-cdn/kaiku/fleet/testwait"
	"github.com/kaiku-cdn/kaiku/storage"
)

// purge posts to the admin API.
func (e *testEdge) purge(body string, fields ...string) answer {
	e.t.Helper()
	if len(fields) == 0 {
		fields = []string{"Content-Type: application/json"}
	}
	return e.admin("POST", "/v1/purge", body, fields...)
}

func (e *testEdge) admin(method, path, body string, fields ...string) answer {
	e.t.Helper()
	r, err := http.NewRequestWithContext(e.t.Context(), method, "http://"+e.AdminAddr().String()+path,
		strings.NewReader(body))
	if err != nil {
		e.t.Fatal(err)
	}
	setFields(r.Header, fields)
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Do(r)
	if err != nil {
		e.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(b), err}
}

func TestPurge(t *testing.T) {
	const paths = "/a /a?x=1 /b/one /b/two /c"
	for _, c := range []struct {
		name, body string
		gone       string // paths, of which each is stored before
	}{
		{"urls", `{"urls":["http://www.example/a"]}`, "/a"},
		{"urls with a query", `{"urls":["https://WWW.example:8443/a?x=1#top", "http://www.example/b/two"]}`,
			"/a?x=1 /b/two"},
		{"prefixes", `{"prefixes":["http://www.example/b/"]}`, "/b/one /b/two"},
		{"prefix of the host", `{"prefixes":["http://www.example"]}`, paths},
		{"tags", `{"tags":["odd"]}`, "/a /b/one"},
		{"a tag by comma", `{"tags":["with space"]}`, "/c"},
		{"part of a tag is none", `{"tags":["with", "od"]}`, ""},
		{"hosts", `{"hosts":["WWW.example."]}`, paths},
		{"another host", `{"hosts":["example"]}`, ""},
		{"all", `{"all":true}`, paths},
		{"soft", `{"tags":["odd"], "soft":true}`, "/a /b/one"},
		{"several", `{"tags":["with space"], "urls":["http://www.example/a"]}`, "/a /c"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := newEdge(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Cache-Control", "max-age=1000")
				switch r.RequestURI {
				case "/a", "/b/one":
					w.Header().Set("Surrogate-Key", "number odd")
				case "/c":
					w.Header().Set("Cache-Tag", "number,with space , last")
				}
				_, _ = io.WriteString(w, r.RequestURI)
			}, func(_ *Server, site *site.Site) { site.Hosts = append(site.Hosts, "example") })
			for range 2 {
				for path := range strings.FieldsSeq(paths) {
					got := e.get(path)
					got.wants(t, 200, path)
					if got.header["Surrogate-Key"] != nil || got.header["Cache-Tag"] != nil {
						t.Errorf("%s: a client sees the tags: %v", path, got.header)
					}
				}
			}
			e.wantHits(5)
			got := e.purge(c.body)
			var answered purge.Response
			if err := json.Unmarshal([]byte(got.body), &answered); err != nil || got.status != 200 ||
				answered.Sequence == 0 {
				t.Fatalf("purge: %d, %s, %v", got.status, got.body, err)
			}
			gone := map[string]bool{}
			for path := range strings.FieldsSeq(c.gone) {
				gone[path] = true
			}
			for path := range strings.FieldsSeq(paths) {
				got := e.get(path)
				got.wants(t, 200, path)
				if got.isHit() == gone[path] {
					t.Errorf("%s: hit %v after the purge", path, got.isHit())
				}
				if want := map[bool]string{true: "stale", false: "uri-miss"}[c.name == "soft"]; gone[path] &&
					got.cacheStatus()["fwd"] != want {
					t.Errorf("%s: Cache-Status %q, want fwd=%s", path, got.header["Cache-Status"], want)
				}
			}
		})
	}
}

// Tags are the edge's, also in what is not stored.
func TestTagsAreHidden(t *testing.T) { overProtocols(t, testTagsAreHidden) }

func testTagsAreHidden(t *testing.T, p protocol) {
	e := p.newEdge(t, static("x", "Cache-Control: private", "Surrogate-Key: a", "Cache-Tag: b", "X-Own: c"))
	for _, method := range []string{"GET", "POST"} {
		got := e.do(e.request(method, "/a", ""))
		got.wants(t, 200, "x")
		if got.header["Surrogate-Key"] != nil || got.header["Cache-Tag"] != nil || got.header.Get("X-Own") != "c" {
			t.Errorf("%s: %v", method, got.header)
		}
	}
}

func TestPurgeRefused(t *testing.T) { overProtocols(t, testPurgeRefused) }

func testPurgeRefused(t *testing.T, p protocol) {
	e := p.newEdge(t, static("x", "Cache-Control: max-age=1000"))
	e.get("/a").wants(t, 200, "x")
	json := "Content-Type: application/json"
	for _, c := range []struct {
		name, body, field string
		status            int
	}{
		{"not JSON", `{"all":tru`, json, 400},
		{"empty", ``, json, 400},
		{"wrong kind", `{"urls":"http://www.example/a"}`, json, 400},
		{"unknown field", `{"all":true, "sof":true}`, json, 400},
		{"nothing named", `{}`, json, 400},
		{"only soft", `{"soft":true}`, json, 400},
		{"empty lists", `{"urls":[], "tags":[]}`, json, 400},
		{"empty tag", `{"tags":[""]}`, json, 400},
		{"relative URL", `{"urls":["/a"]}`, json, 400},
		{"URL without host", `{"urls":["http:///a"]}`, json, 400},
		{"another scheme", `{"prefixes":["ftp://www.example/"]}`, json, 400},
		{"one good, one bad", `{"urls":["http://www.example/a", "a"]}`, json, 400},
		{"host with a path", `{"hosts":["www.example/a"]}`, json, 400},
		{"empty host", `{"hosts":[""]}`, json, 400},
		{"a host of no site", `{"hosts":["other.example"]}`, json, 404},
		{"a URL and a prefix of no site", `{"urls":["http://www.example/a"], "prefixes":["http://www.exampl"]}`, json,
			404},
		{"more than one value", `{"tags":["x"]} {"all":true}`, json, 400},
		{"form", `{"all":true}`, "Content-Type: application/x-www-form-urlencoded", 415},
		{"text", `{"all":true}`, "Content-Type: text/plain", 415},
		{"no type", `{"all":true}`, "X-None: x", 415},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := e.purge(c.body, c.field)
			var er struct{ Error string }
			if got.status != c.status || decode(got.body, &er) != nil || er.Error == "" {
				t.Errorf("got %d, %s, want %d", got.status, got.body, c.status)
			}
		})
	}
	if got := e.admin("GET", "/v1/purge", ""); got.status != 405 {
		t.Errorf("GET: %d", got.status)
	}
	if got := e.get("/a"); !got.isHit() {
		t.Error("a refused purge purged")
	}
	if got := e.purge(`{"all":true}`, "Content-Type: Application/JSON; charset=utf-8"); got.status != 200 {
		t.Errorf("a type with a parameter: %d, %s", got.status, got.body)
	}
}

func decode(s string, v any) error { return json.Unmarshal([]byte(s), v) }

func TestAdminToken(t *testing.T) { overProtocols(t, testAdminToken) }

func testAdminToken(t *testing.T, p protocol) {
	e := p.newEdge(t, static("x"), func(s *Server, _ *site.Site) { s.Tokens.Set([]purge.Token{full("secret")}) })
	json := "Content-Type: application/json"
	for _, c := range []struct {
		authorization string
		status        int
	}{
		{"", 401}, {"Bearer", 401}, {"Bearer wrong", 401}, {"Bearer secre", 401}, {"Bearer secret1", 401},
		{"Basic secret", 401}, {"secret", 401},
		{"Bearer secret", 200}, {"bearer secret", 200},
	} {
		fields := []string{json}
		if c.authorization != "" {
			fields = append(fields, "Authorization: "+c.authorization)
		}
		got := e.purge(`{"all":true}`, fields...)
		if got.status != c.status {
			t.Errorf("%q: %d, %s, want %d", c.authorization, got.status, got.body, c.status)
		}
		if c.status == 401 && !strings.HasPrefix(got.header.Get("Www-Authenticate"), "Bearer") { // RFC 9110, 15.5.2
			t.Errorf("%q: WWW-Authenticate is %q", c.authorization, got.header["Www-Authenticate"])
		}
	}
	if got := e.admin("GET", "/metrics", ""); got.status != 401 {
		t.Errorf("metrics without the token: %d", got.status)
	}
}

func TestAdminAddressNeedsToken(t *testing.T) { overProtocols(t, testAdminAddressNeedsToken) }

func testAdminAddressNeedsToken(t *testing.T, p protocol) {
	for addr, ok := range map[string]bool{
		"127.0.0.1:0": true, "127.9.9.9:0": true, "[::1]:0": true, "localhost:0": true,
		":0": false, "0.0.0.0:0": false, "[::]:0": false, "192.0.2.1:0": false, "example.com:0": false, "": false,
		"0": false,
	} {
		if admin.IsLoopback(addr) != ok {
			t.Errorf("%q is loopback: %v", addr, !ok)
		}
	}
	e := p.newEdge(t, static("x"))
	other := &Server{HTTP: "127.0.0.1:0", Admin: "0.0.0.0:0", Store: e.Store}
	if err := other.Listen(t.Context()); err == nil {
		t.Error("an admin listener on every address starts without a token")
		serveAndStop(t, other)
	}
}

// What was asked for before a purge is not served to who asks after it (each kind, and at each
// stage of the fetch).
func TestPurgeDuringFill(t *testing.T) {
	for _, c := range []struct{ name, body string }{
		{"url", `{"urls":["http://www.example/a"]}`},
		{"prefix", `{"prefixes":["http://www.example/"]}`},
		{"tag", `{"tags":["t"]}`},
		{"host", `{"hosts":["www.example"]}`},
		{"all", `{"all":true}`},
		{"soft url", `{"urls":["http://www.example/a"],"soft":true}`},
		{"soft tag", `{"tags":["t"],"soft":true}`},
		{"soft all", `{"all":true,"soft":true}`},
	} {
		for _, stage := range []string{"before the header", "in the body"} {
			t.Run(c.name+" "+stage, func(t *testing.T) { purgeDuringFill(t, c.body, stage == "in the body") })
		}
	}
}

func purgeDuringFill(t *testing.T, purge string, inBody bool) {
	var asked atomic.Int64
	header, rest := make(chan struct{}), make(chan struct{})
	e := newEdge(t, func(w http.ResponseWriter, _ *http.Request) {
		setFields(w.Header(), []string{"Cache-Control: max-age=1000", "Surrogate-Key: t"})
		if asked.Add(1) > 1 {
			_, _ = io.WriteString(w, "new")
			return
		}
		<-header
		_, _ = io.WriteString(w, "o")
		_ = http.NewResponseController(w).Flush()
		<-rest
		_, _ = io.WriteString(w, "ld")
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	before := make(chan answer, 1)
	go func() { before <- e.do(e.request("GET", "/a", "").WithContext(ctx)) }()
	testwait.Until(t, "the first has asked", func() bool { return asked.Load() == 1 })
	if inBody {
		close(header)
		testwait.Until(t, "the body comes", func() bool {
			return e.cache.UnderWay().Bytes > 0
		})
	}
	if got := e.purge(purge); got.status != 200 {
		t.Fatalf("purge: %+v", got)
	}
	after := make(chan answer, 1)
	go func() { after <- e.do(e.request("GET", "/a", "")) }()
	if !inBody {
		// It asks for itself, or waits for the first one's fetch to see what came; either way it
		// must not be shown what that brings.
		testwait.Until(t, "the second asks or waits", func() bool { return asked.Load() == 2 || e.followers() == 2 })
		close(header)
	}
	close(rest)
	second := <-after
	second.wants(t, 200, "new")
	if second.cacheStatus()["stored"] != "true" {
		t.Errorf("the fetch after the purge is not stored: %q", second.header["Cache-Status"])
	}
	(<-before).wants(t, 200, "old")
	e.settle()
	e.get("/a").wants(t, 200, "new")
}

// What may have missed a purge is validated before it is used, whatever its windows of staleness
// are.
func TestSuspect(t *testing.T) { overProtocols(t, testSuspect) }

func testSuspect(t *testing.T, p protocol) {
	e := p.newEdge(t, static("a", "Cache-Control: max-age=60, stale-while-revalidate=600, stale-if-error=600",
		`Etag: "a"`))
	e.get("/a").wants(t, 200, "a")
	if a := e.get("/a"); !a.isHit() {
		t.Fatalf("no hit: %v", a.cacheStatus())
	}
	if err := e.Suspect(storage.Position{Log: 1}); err != nil {
		t.Fatal(err)
	}
	if a := e.get("/a"); a.isHit() || a.cacheStatus()["fwd"] != "stale" {
		t.Errorf("suspect: %v", a.cacheStatus())
	}
	if a := e.get("/a"); !a.isHit() {
		t.Errorf("validated: %v", a.cacheStatus())
	}
	e.wantHits(2)
}

// A purge that comes while the origin is asked ends what could have been served if the origin
// failed.
func TestPurgeWhileTheOriginHangs(t *testing.T) { overProtocols(t, testPurgeWhileTheOriginHangs) }

func testPurgeWhileTheOriginHangs(t *testing.T, p protocol) {
	hangs, asked, fail := false, make(chan struct{}, 1), make(chan struct{})
	e := p.newEdge(t, func(w http.ResponseWriter, _ *http.Request) {
		if hangs {
			asked <- struct{}{}
			<-fail
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("Cache-Control", "max-age=0, stale-if-error=600")
		w.Header().Set("Etag", `"a"`)
		_, _ = io.WriteString(w, "a")
	})
	e.get("/a").wants(t, 200, "a")
	hangs = true
	got := make(chan answer)
	go func() { got <- e.do(e.request("GET", "/a", "")) }()
	<-asked
	if _, err := e.Store.Purge(storage.Purge{URLs: []string{"www.example/a"}}); err != nil {
		t.Fatal(err)
	}
	close(fail)
	if a := <-got; a.status < 500 {
		t.Errorf("the purged response is served: %d, %q, %v", a.status, a.body, a.cacheStatus())
	}
}
