package edge

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/net/http2/hpack"

	"github.com/kaiku-cdn/kaiku/edge/compress"
	"github.com/kaiku-cdn/kaiku/edge/site"
	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// coding switches compress on for the site of a test.
func coding(_ *Server, s *site.Site) { s.Compress = compress.New(compress.Options{}) }

// script is a body that is worth coding.
func script(version int) string {
	var b strings.Builder
	for i := range 400 {
		fmt.Fprintf(&b, "function f%d(a, b) { return a * %d + b - %d }\n", i, i*7919%1009, version)
	}
	return b.String()
}

// scriptFields are those of a response that may be coded.
var scriptFields = []string{"Content-Type: text/javascript; charset=utf-8", "Cache-Control: max-age=1000",
	`Etag: "v1"`, "Last-Modified: Mon, 02 Jan 2006 15:04:05 GMT", "Accept-Ranges: bytes"}

// decoded returns the body of an answer without its content coding.
func (a answer) decoded(t *testing.T) string {
	t.Helper()
	var r io.Reader = strings.NewReader(a.body)
	var err error
	switch c := a.header.Get("Content-Encoding"); c {
	case "":
	case "br":
		r = brotli.NewReader(r)
	case "gzip":
		r, err = gzip.NewReader(r)
	case "zstd":
		r, err = zstd.NewReader(r)
	default:
		t.Fatalf("Content-Encoding is %q", c)
	}
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err != nil || a.err != nil {
		t.Fatal(err, a.err)
	}
	return string(b)
}

// wantsCoded fails the test unless the answer is a body with a coding, "" for none. It checks the
// fields that depend on that.
func (a answer) wantsCoded(t *testing.T, coding, body string) {
	t.Helper()
	if a.status != 200 || a.header.Get("Content-Encoding") != coding || a.decoded(t) != body {
		t.Fatalf("got %d, Content-Encoding %q, %.60q, want %q of %.60q", a.status, a.header.Get("Content-Encoding"),
			a.body, coding, body)
	}
	if got := a.header["Vary"]; len(got) != 1 || got[0] != "Accept-Encoding" {
		t.Errorf("Vary is %q", got)
	}
	if got := a.header.Get("Content-Length"); got != "" && got != strconv.Itoa(len(a.body)) {
		t.Errorf("Content-Length is %s, of %d bytes", got, len(a.body))
	}
	if coding != "" && (a.header["Accept-Ranges"] != nil || a.header["Content-Length"] == nil) {
		t.Errorf("a coded body has the fields %v", a.header)
	}
	if etag := a.header.Get("Etag"); strings.HasPrefix(etag, `"`) && coding != "" &&
		!strings.HasSuffix(etag, "-kaiku-"+coding+`"`) ||
		coding == "" && strings.Contains(etag, "kaiku") {
		t.Errorf("Etag is %s with the coding %q", etag, coding)
	}
}

// settleCodings waits until nothing is being coded.
func (e *testEdge) settleCodings() {
	e.t.Helper()
	testwait.Until(e.t, "all is coded", func() bool { return e.cache.Codings().Waiting == 0 })
}

// getCoded requests a path until it is coded: by then it is stored, and its second hit has come.
func (e *testEdge) getCoded(path, accept string) answer {
	e.t.Helper()
	for range 2 {
		e.get(path, "Accept-Encoding: "+accept)
		e.settleCodings()
	}
	return e.get(path, "Accept-Encoding: "+accept)
}

func TestCompress(t *testing.T) { overProtocols(t, testCompress) }

func testCompress(t *testing.T, p protocol) {
	body := script(1)
	e := p.newEdge(t, static(body, scriptFields...), coding)
	get := func(accept string, more ...string) answer {
		return e.get("/a.js", append(more, "Accept-Encoding: "+accept)...)
	}
	miss := get("gzip, br, zstd")
	miss.wantsCoded(t, "", body)
	get("gzip, br, zstd").wantsCoded(t, "", body) // orders the coded body
	e.settleCodings()
	for range 4 { // from the disk, then from the RAM tier
		got := get("gzip, br, zstd")
		got.wantsCoded(t, "br", body)
		if !got.isHit() || len(got.body) > len(body)/8 {
			t.Errorf("%d bytes of %d, %v", len(got.body), len(body), got.header)
		}
	}
	for _, c := range []struct{ accept, want string }{
		{"br", "br"}, {"gzip", "gzip"}, {"x-gzip", "gzip"}, {"zstd", "zstd"}, {"*", "br"}, {"", ""}, {"identity", ""},
		{"br;q=0", ""}, {"br;q=0.5, gzip;q=0.8", "gzip"}, {"br;q=0, *", "zstd"}, {"identity;q=1, br;q=0.5", ""},
		{"identity;q=0.5, br;q=0.5", "br"}, {"deflate", ""}, {"identity;q=0, *;q=0", ""}, {"br;q=2", ""},
	} {
		if got := e.getCoded("/a.js", c.accept); got.header.Get("Content-Encoding") != c.want {
			t.Errorf("Accept-Encoding %q got %q, want %q", c.accept, got.header.Get("Content-Encoding"), c.want)
		} else {
			got.wantsCoded(t, c.want, body)
		}
	}
	e.get("/a.js").wantsCoded(t, "", body)
	e.wantHits(1)
	counts := e.cache.Codings()
	if n := counts.Done["br"]; n.Objects != 1 || n.In != uint64(len(body)) || n.Out == 0 || n.Out > n.In/8 ||
		n.Time == 0 {
		t.Errorf("counted %+v", counts)
	}
}

// Conditions and ranges of coded responses.
func TestCompressConditions(t *testing.T) { overProtocols(t, testCompressConditions) }

func testCompressConditions(t *testing.T, p protocol) {
	text, random := script(1), randomText(20_000)
	e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		setFields(w.Header(), scriptFields)
		_, _ = io.WriteString(w, map[string]string{"/coded": text, "/never": random}[r.URL.Path])
	}, coding)
	const accept = "Accept-Encoding: br"
	const date = "Mon, 02 Jan 2006 15:04:05 GMT"
	for path, body := range map[string]string{"/coded": text, "/never": random} {
		if got := e.do(e.request("HEAD", path, "", accept)); got.header.Get("Vary") != "Accept-Encoding" {
			t.Errorf("%s: HEAD of what isn't stored: %v", path, got.header)
		}
		coded, tag := "", `"v1"`
		if path == "/coded" {
			coded, tag = "br", `"v1-kaiku-br"`
		}
		for range 3 { // as it is stored, from the disk, and from the RAM tier
			e.getCoded(path, "br").wantsCoded(t, coded, body)
		}
		for _, c := range []struct {
			method, fields string
			status         int
			etag           string
		}{
			{"GET", accept + `|If-None-Match: "v1-kaiku-br"`, 304, `"v1-kaiku-br"`},
			{"GET", accept + `|If-None-Match: "no", W/"v1-kaiku-br"`, 304, `"v1-kaiku-br"`},
			{"GET", accept + `|If-None-Match: "v1"`, 304, `"v1"`},
			{"GET", accept + `|If-None-Match: "v1-kaiku-gzip"`, 200, tag},
			{"GET", accept + `|If-None-Match: "v0-kaiku-br"`, 200, tag},
			{"GET", `If-None-Match: "v1-kaiku-br"`, 200, `"v1"`},
			{"GET", `If-None-Match: "v1"`, 304, `"v1"`},
			{"GET", accept + "|If-Modified-Since: " + date, 304, tag},
			{"GET", accept + "|Range: bytes=0-9", 206, `"v1"`},
			{"GET", accept + `|Range: bytes=0-9|If-Range: "v1"`, 206, `"v1"`},
			{"GET", accept + `|Range: bytes=0-9|If-Range: "v1-kaiku-br"`, 200, `"v1"`},
			{"GET", accept + "|Range: bytes=0-9|If-Range: " + date, 200, tag},
			{"GET", accept + "|Range: bytes=99999999-", 416, `"v1"`},
			{"GET", accept + "|Range: nonsense", 200, `"v1"`},
			{"HEAD", accept, 200, tag},
			{"HEAD", accept + "|Range: bytes=0-9", 200, tag},
			{"HEAD", "X: y", 200, `"v1"`},
		} {
			got := e.do(e.request(c.method, path, "", strings.Split(c.fields, "|")...))
			if got.status != c.status || got.header.Get("Etag") != c.etag {
				t.Errorf("%s %s, %s: %d, Etag %s, want %d, %s", c.method, path, c.fields, got.status,
					got.header.Get("Etag"), c.status, c.etag)
			}
			if got.header.Get("Vary") != "Accept-Encoding" {
				t.Errorf("%s %s, %s: Vary is %q", c.method, path, c.fields, got.header["Vary"])
			}
			if got.status == 206 && (got.body != body[:10] || got.header.Get("Content-Encoding") != "") {
				t.Errorf("%s %s, %s: %q, %v", c.method, path, c.fields, got.body, got.header)
			}
			if is := got.header.Get("Content-Encoding"); got.status == 200 && (is == "br") != strings.Contains(c.etag,
				"br") {
				t.Errorf("%s %s, %s: Content-Encoding is %q", c.method, path, c.fields, is)
			}
		}
	}
	e.wantHits(4)
}

// The origin knows nothing of the tags of coded bodies.
func TestCompressIfMatch(t *testing.T) {
	t.Parallel()
	var seen atomic.Value
	e := newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		seen.Store(r.Header.Get("If-Match"))
	}, coding)
	for field, want := range map[string]string{
		`"v1-kaiku-br"`:                `"v1"`,
		`"a,b-kaiku-gzip", W/"c", "d"`: `"a,b", W/"c", "d"`,
		`"v1-kaiku-7", "y"`:            `"v1-kaiku-7", "y"`,
		`*`:                            `*`,
	} {
		for _, method := range []string{"GET", "PUT"} {
			e.do(e.request(method, "/a.js", "", "If-Match: "+field))
			if got := seen.Load(); got != want {
				t.Errorf("%s with If-Match %s: the origin saw %s, want %s", method, field, got, want)
			}
		}
	}
}

// A coded body is never that of an earlier response.
func TestCompressFollowsTheResponse(t *testing.T) { overProtocols(t, testCompressFollows) }

func testCompressFollows(t *testing.T, p protocol) {
	var version, answers atomic.Int64
	version.Store(1)
	e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		n := version.Load()
		tag := fmt.Sprintf(`"v%d"`, n)
		setFields(w.Header(), []string{"Content-Type: text/css", "Cache-Control: max-age=1000", "Cache-Tag: t",
			"Etag: " + tag, fmt.Sprint("X-Answer: ", answers.Add(1))})
		if r.Header.Get("If-None-Match") == tag {
			w.WriteHeader(304)
			return
		}
		_, _ = io.WriteString(w, script(int(n)))
	}, func(_ *Server, s *site.Site) { // gzip takes the least time
		s.Compress = compress.New(compress.Options{Codings: []string{compress.Gzip}})
	})
	for i, purge := range []string{`"urls":["http://www.example/a.css"]`, `"tags":["t"]`,
		`"prefixes":["http://www.example/"]`, `"hosts":["www.example"]`, `"all":true`} {
		for _, soft := range []bool{false, true} {
			name := fmt.Sprintf("%s, soft %v", purge, soft)
			for range 3 {
				e.getCoded("/a.css", "gzip").wantsCoded(t, "gzip", script(int(version.Load())))
			}
			made := e.cache.Codings().Done["gzip"].Objects
			// The origin confirms the response, or sends it again: its coded body is not made again
			// after a 304.
			e.purge(fmt.Sprintf(`{%s,"soft":%v}`, purge, soft))
			before := e.hits.Load()
			same := e.get("/a.css", "Accept-Encoding: gzip")
			if soft {
				same.wantsCoded(t, "gzip", script(int(version.Load())))
				e.settleCodings()
				for range 4 {
					e.get("/a.css", "Accept-Encoding: gzip").wantsCoded(t, "gzip", script(int(version.Load())))
				}
				if now := e.cache.Codings().Done["gzip"].Objects; now != made {
					t.Errorf("%s: coded again after a 304", name)
				}
			} else {
				same.wantsCoded(t, "", script(int(version.Load())))
			}
			if e.hits.Load() != before+1 {
				t.Errorf("%s: the origin was asked %d times", name, e.hits.Load()-before)
			}
			e.getCoded("/a.css", "gzip").wantsCoded(t, "gzip", script(int(version.Load())))
			// The origin has another response.
			version.Store(int64(i*10 + 2))
			if soft {
				version.Add(1)
			}
			e.purge(fmt.Sprintf(`{%s,"soft":%v}`, purge, soft))
			e.get("/a.css", "Accept-Encoding: gzip").wantsCoded(t, "", script(int(version.Load())))
			e.get("/a.css", "Accept-Encoding: gzip").wantsCoded(t, "", script(int(version.Load())))
		}
	}
}

// What is not coded, with what the client gets.
func TestCompressLeaves(t *testing.T) {
	t.Parallel()
	text := script(1)
	for _, c := range []struct {
		name, body string
		status     int
		fields     []string
		vary       bool
	}{
		{"no-transform", text, 200, []string{"Cache-Control: max-age=9, no-transform"}, false},
		{"no-transform beside a targeted field", text, 200,
			[]string{"Cache-Control: no-transform", "CDN-Cache-Control: max-age=9"}, false},
		{"another type", text, 200, []string{"Content-Type: image/png"}, false},
		{"no type", text, 200, []string{"Content-Type:"}, false},
		{"small", text[:1023], 200, nil, false},
		{"small enough", text[:1024], 200, nil, true},
		{"coded by the origin", text, 200, []string{"Content-Encoding: gzip"}, true},
		{"a digest", text, 200, []string{"Repr-Digest: sha-256=:AAAA:"}, false},
		{"another status", text, 404, nil, false},
		{"empty", "", 200, nil, false},
		{"random", randomText(2_000), 200, nil, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := newEdge(t, func(w http.ResponseWriter, _ *http.Request) {
				h := w.Header()
				h.Set("Content-Type", "text/plain")
				h.Set("Cache-Control", "max-age=9")
				for _, f := range c.fields {
					name, value, _ := strings.Cut(f, ":")
					h[http.CanonicalHeaderKey(name)] = []string{strings.TrimSpace(value)}
				}
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, c.body)
			}, coding)
			for range 5 {
				got := e.get("/a", "Accept-Encoding: br")
				got.wants(t, c.status, c.body)
				if (got.header.Get("Vary") != "") != c.vary {
					t.Errorf("Vary is %q", got.header["Vary"])
				}
				if c.name == "small enough" {
					return
				}
				e.settleCodings()
			}
			if n := e.cache.Codings().Done["br"].Objects; n > 0 {
				t.Errorf("%d bodies were coded", n)
			}
		})
	}
}

// randomText is a text that no coding makes much smaller.
func randomText(n int) string {
	b := make([]byte, n)
	x := uint32(1)
	for i := range b {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		b[i] = byte(x)
	}
	return string(b)
}

// A client of a site without compress, and another edge, get what is stored.
func TestCompressIsForClients(t *testing.T) {
	t.Parallel()
	body := script(1)
	e := newSecure(t, static(body, scriptFields...), 1, coding, withPeers)
	get := func(c rawClient) answer {
		return c.ask(rawRequest{method: "GET", authority: "www.example", target: "/a.js",
			fields: []hpack.HeaderField{{Name: "accept-encoding", Value: "br"}}})
	}
	clients := e.rawClients()
	for range 2 {
		get(clients["HTTP/2"])
		e.settle()
		e.settleCodings()
	}
	get(clients["HTTP/2"]).wantsCoded(t, "br", body)
	peer := get(clients["peers"])
	peer.wants(t, 200, body)
	if peer.header["Vary"] != nil || peer.header.Get("Etag") != `"v1"` {
		t.Errorf("another edge gets %v", peer.header)
	}
}

// Coded bodies outlast a restart. A store without a RAM tier has them on disk.
func TestCompressRestart(t *testing.T) {
	t.Parallel()
	body := script(1)
	e := newEdge(t, static(body, scriptFields...))
	dir, originURL := t.TempDir(), e.site.Origin.Origin.Servers[0].URL.String()
	e.stop()
	e.start(originURL, dir, coding)
	e.getCoded("/a.js", "br").wantsCoded(t, "br", body)
	e.stop()
	e.start(originURL, dir, coding)
	e.get("/a.js", "Accept-Encoding: br").wantsCoded(t, "br", body)
	if n := e.cache.Codings().Done["br"].Objects; n != 0 {
		t.Errorf("%d bodies were coded again", n)
	}
	e.stop()
	e.start(originURL, dir) // without compress
	got := e.get("/a.js", "Accept-Encoding: br")
	got.wants(t, 200, body)
	if got.header["Vary"] != nil || !got.isHit() {
		t.Errorf("a site without compress: %v", got.header)
	}
}

// What explain tells of codings.
func TestCompressExplained(t *testing.T) {
	t.Parallel()
	e := newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		setFields(w.Header(), scriptFields)
		if r.URL.Path == "/b" {
			w.Header().Set("Content-Type", "image/png")
		}
		_, _ = io.WriteString(w, script(1))
	}, coding)
	coded := e.getCoded("/a.js", "br")
	e.get("/b")
	for path, want := range map[string]string{
		"/a.js": fmt.Sprintf(`"codings":[{"coding":"br","size":%d,"state":"stored"},`+
			`{"coding":"zstd","state":"not requested"},{"coding":"gzip","state":"not requested"}]`, len(coded.body)),
		"/b": `"not_coded":"its Content-Type is not among the types"`,
	} {
		if got := e.admin("GET", "/v1/explain?url=http://www.example"+path, ""); !strings.Contains(got.body, want) {
			t.Errorf("%s: %s\nlacks %s", path, got.body, want)
		}
	}
	metrics := e.admin("GET", "/metrics", "").body
	for _, want := range []string{`kaiku_compress_objects_total{coding="br"} 1`, "kaiku_compress_waiting 0",
		fmt.Sprintf(`kaiku_compress_out_bytes_total{coding="br"} %d`, len(coded.body))} {
		if !strings.Contains(metrics, want+"\n") {
			t.Errorf("the metrics lack %s", want)
		}
	}
}
