package edge

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestTargetedFields(t *testing.T) { overProtocols(t, testTargetedFields) }

func testTargetedFields(t *testing.T, p protocol) {
	cases := []struct {
		name   string
		fields []string
		hit    bool
	}{
		{"CDN-Cache-Control before Cache-Control", []string{"CDN-Cache-Control: max-age=60", "Cache-Control: no-store"},
			true},
		{"and the other way round", []string{"CDN-Cache-Control: no-store", "Cache-Control: max-age=60"}, false},
		{"invalid: as if it were not there", []string{"CDN-Cache-Control: max-age=60, &&&", "Cache-Control: no-store"},
			false},
		{"upper case is invalid", []string{"CDN-Cache-Control: Max-Age=60", "Cache-Control: no-store"}, false},
		{"a String is no age", []string{`CDN-Cache-Control: max-age="60", public`, "Cache-Control: max-age=60"}, false},
		{"empty", []string{"CDN-Cache-Control:", "Cache-Control: max-age=60"}, true},
		{"Expires says nothing beside it", []string{"CDN-Cache-Control: max-age=60", "Expires: 0"}, true},
		{"Surrogate-Control", []string{"Surrogate-Control: max-age=60", "Cache-Control: no-store"}, true},
		{"Surrogate-Control for another one",
			[]string{"Surrogate-Control: no-store;other", "Cache-Control: max-age=60"}, true},
		{"CDN-Cache-Control before Surrogate-Control",
			[]string{"CDN-Cache-Control: no-store", "Surrogate-Control: max-age=60"}, false},
	}
	for i, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			e := p.newEdge(t, func(w http.ResponseWriter, _ *http.Request) {
				for _, f := range c.fields {
					name, value, _ := strings.Cut(f, ":")
					w.Header().Set(name, strings.TrimSpace(value))
				}
				_, _ = io.WriteString(w, "body")
			})
			path := fmt.Sprint("/", i)
			if a := e.get(path); a.header.Get("Surrogate-Control") != "" {
				t.Error("clients see Surrogate-Control")
			}
			if got := e.get(path).isHit(); got != c.hit {
				t.Errorf("hit %v, want %v", got, c.hit)
			}
		})
	}
}

func TestCacheGroups(t *testing.T) { overProtocols(t, testCacheGroups) }

func testCacheGroups(t *testing.T, p protocol) {
	e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			w.Header().Set("Cache-Group-Invalidation", `"scripts", "none"`)
			return
		}
		w.Header().Set("Cache-Control", "max-age=3600")
		w.Header().Set("Cache-Groups", map[string]string{"/a.js": `"scripts"`, "/b.js": `"other", "scripts"`,
			"/c.css": `"styles"`, "/d": `scripts`}[r.URL.Path])
		_, _ = io.WriteString(w, "body")
	})
	paths := []string{"/a.js", "/b.js", "/c.css", "/d"}
	for _, p := range paths {
		e.get(p)
	}
	e.do(e.request("POST", "/deploy", "x"))
	for i, want := range []bool{false, false, true, true} { // a Token is no group
		if got := e.get(paths[i]).isHit(); got != want {
			t.Errorf("%s: hit %v, want %v", paths[i], got, want)
		}
	}
}

// TestHeadUpdatesWhatIsStored is RFC 9111, 4.3.5.
func TestHeadUpdatesWhatIsStored(t *testing.T) { overProtocols(t, testHeadUpdatesWhatIsStored) }

func testHeadUpdatesWhatIsStored(t *testing.T, p protocol) {
	var etag, length atomic.Value
	etag.Store(`"1"`)
	length.Store("4")
	e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", etag.Load().(string))
		w.Header().Set("Cache-Control", "max-age=3600")
		if r.Method == http.MethodHead {
			w.Header().Set("X-Seen", "head")
			w.Header().Set("Content-Length", length.Load().(string))
			return
		}
		w.Header().Set("Age", "4000") // stale as it comes
		_, _ = io.WriteString(w, "body")
	})
	e.get("/a").wants(t, 200, "body")
	e.do(e.request("HEAD", "/a", "")).wants(t, 200, "")
	a := e.get("/a")
	a.wants(t, 200, "body")
	if !a.isHit() || a.header.Get("X-Seen") != "head" {
		t.Errorf("the HEAD did not freshen: %v", a.header)
	}
	e.wantHits(2)
	for _, change := range []func(){func() { etag.Store(`"2"`) }, func() { etag.Store(`"3"`); length.Store("5") }} {
		change()
		e.do(e.request("HEAD", "/a", "", "Cache-Control: no-cache"))
		if a := e.get("/a"); a.isHit() {
			t.Errorf("a HEAD that does not agree left it: %v", a.header)
		}
	}
}

// TestInterimResponses has a 103 reach the client as it comes, on a miss and when passing through.
func TestInterimResponses(t *testing.T) { overProtocols(t, testInterimResponses) }

func testInterimResponses(t *testing.T, p protocol) {
	for _, method := range []string{"GET", "POST"} {
		got := make(chan struct{})
		e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", "</style.css>; rel=preload")
			w.WriteHeader(http.StatusEarlyHints)
			<-got // the final response waits for the client to have the interim one
			w.Header().Del("Link")
			w.Header().Set("Cache-Control", "max-age=60")
			_, _ = io.WriteString(w, "body")
		})
		r := e.request(method, "/a", "")
		r = r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
			Got1xxResponse: func(status int, h textproto.MIMEHeader) error {
				if status != http.StatusEarlyHints || h.Get("Link") == "" {
					t.Errorf("interim response %d %v", status, h)
				}
				close(got)
				return nil
			}}))
		a := e.do(r)
		a.wants(t, 200, "body")
		if a.header.Get("Link") != "" {
			t.Error("the interim response's fields are in the final one")
		}
	}
}

func TestMaxForwards(t *testing.T) { overProtocols(t, testMaxForwards) }

func testMaxForwards(t *testing.T, p protocol) {
	e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Left", r.Header.Get("Max-Forwards"))
	})
	a := e.do(e.request("TRACE", "/a", "", "Max-Forwards: 0", "Cookie: secret", "Authorization: secret"))
	if a.status != 200 || !strings.HasPrefix(a.body, "TRACE /a HTTP/1.1\r\n") || strings.Contains(a.body, "secret") {
		t.Errorf("TRACE: %d %q", a.status, a.body)
	}
	if a := e.do(e.request("OPTIONS", "/a", "", "Max-Forwards: 0")); a.status != 204 || a.header.Get("Allow") == "" {
		t.Errorf("OPTIONS: %d %v", a.status, a.header)
	}
	e.wantHits(0)
	if a := e.do(e.request("OPTIONS", "/a", "", "Max-Forwards: 3")); a.header.Get("X-Left") != "2" {
		t.Errorf("Max-Forwards at the origin: %q", a.header.Get("X-Left"))
	}
}

func TestConnectIsRefused(t *testing.T) { overProtocols(t, testConnectIsRefused) }

func testConnectIsRefused(t *testing.T, p protocol) {
	e := p.newEdge(t, func(http.ResponseWriter, *http.Request) {})
	c, err := net.Dial("tcp", e.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, "CONNECT www.example:443 HTTP/1.1\r\nHost: www.example:443\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("%v %v", resp, err)
	}
	e.wantHits(0)
}

func TestAcceptEncodingByMeaning(t *testing.T) { overProtocols(t, testAcceptEncodingByMeaning) }

func testAcceptEncodingByMeaning(t *testing.T, p protocol) {
	e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		w.Header().Set("Vary", "Accept-Encoding, Accept-Language")
		_, _ = io.WriteString(w, r.Header.Get("Accept-Encoding")+"|"+r.Header.Get("Accept-Language"))
	})
	e.get("/a", "Accept-Encoding: gzip, br;q=0.5", "Accept-Language: en, de;q=0.8")
	for _, same := range [][]string{
		{"Accept-Encoding: br;q=0.50 , GZIP;q=1.0", "Accept-Language: de; q=0.8,EN"},
		{"Accept-Encoding: gzip", "Accept-Encoding: br;q=0.5", "Accept-Language: en", "Accept-Language: de;q=0.8"},
	} {
		if a := e.get("/a", same...); !a.isHit() {
			t.Errorf("%v: %v", same, a.header["Cache-Status"])
		}
	}
	for _, other := range [][]string{
		{"Accept-Encoding: gzip", "Accept-Language: en, de;q=0.8"},
		{"Accept-Encoding: gzip, br;q=0.5"},
		{"Accept-Encoding: gzip, br;q=0.5", "Accept-Language:"},
	} {
		if a := e.get("/a", other...); a.isHit() {
			t.Errorf("%v selects another variant", other)
		}
	}
}

func TestExplain(t *testing.T) { overProtocols(t, testExplain) }

func testExplain(t *testing.T, p protocol) {
	e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/stored":
			w.Header().Set("Cache-Control", "s-maxage=60")
			w.Header().Set("Surrogate-Key", "red blue")
		case "/private":
			w.Header().Set("Cache-Control", "private, max-age=60")
		case "/vary":
			w.Header().Set("Cache-Control", "max-age=60")
			w.Header().Set("Vary", "Accept-Language")
		case "/new":
			w.Header().Set("Last-Modified", time.Now().UTC().Format(http.TimeFormat))
		case "/validated":
			w.Header().Set("Cache-Control", "no-cache")
			w.Header().Set("Etag", `"a"`)
		}
		_, _ = io.WriteString(w, "body")
	})
	e.get("/stored")
	e.get("/new")
	e.get("/validated")
	e.get("/private")
	e.get("/vary", "Accept-Language: fi")
	e.get("/vary", "Accept-Language: en")
	for path, want := range map[string][]string{
		"/stored":  {`"source":"s-maxage"`, `"lifetime":60`, `"red"`, `"blue"`, `"size":4`, `"segment":1`},
		"/private": {`"objects":null`, "private (RFC 9111, 5.2.2.7)"},
		"/vary":    {`"Accept-Language":"fi"`, `"Accept-Language":"en"`},
		"/never":   {"not requested", "HEAD stores nothing"},

		"/new":       {`"hint":`, "cache.default_ttl"},
		"/validated": {`"status":200`},
	} {
		resp, err := http.Get("http://" + e.AdminAddr().String() + "/v1/explain?url=" + e.url(path))
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != 200 {
			t.Fatalf("%s: %s %v", path, resp.Status, err)
		}
		for _, w := range want {
			if !strings.Contains(string(b), w) {
				t.Errorf("%s: want %s in %s", path, w, b)
			}
		}
		if hint := strings.Contains(string(b), "Cache-Control: max-age=…"); hint != (path == "/new") {
			t.Errorf("%s: a hint on its lifetime: %v in %s", path, hint, b)
		}
	}
}
