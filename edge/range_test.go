package edge

import (
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"strings"
	"testing"

	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

func TestRanges(t *testing.T) { overProtocols(t, testRanges) }

func testRanges(t *testing.T, p protocol) {
	const lm = "Wed, 01 Jul 2020 12:00:00 GMT"
	const body = "0123456789"
	for _, c := range []struct {
		name    string
		request []string
		status  int
		body    string
		content string // Content-Range
	}{
		{"first", []string{"Range: bytes=0-3"}, 206, "0123", "bytes 0-3/10"},
		{"middle", []string{"Range: bytes=3-5"}, 206, "345", "bytes 3-5/10"},
		{"open", []string{"Range: bytes=7-"}, 206, "789", "bytes 7-9/10"},
		{"suffix", []string{"Range: bytes=-3"}, 206, "789", "bytes 7-9/10"},
		{"suffix longer than all", []string{"Range: bytes=-30"}, 206, body, "bytes 0-9/10"},
		{"over the end", []string{"Range: bytes=5-99"}, 206, "56789", "bytes 5-9/10"},
		{"beyond the end", []string{"Range: bytes=10-"}, 416, "", "bytes */10"},
		{"zero suffix", []string{"Range: bytes=-0"}, 416, "", "bytes */10"},
		{"several that overlap", []string{"Range: bytes=0-6,5-9"}, 200, body, ""},
		{"two lines", []string{"Range: bytes=0-1", "Range: bytes=5-6"}, 200, body, ""},
		{"another unit", []string{"Range: lines=0-1"}, 200, body, ""},
		{"malformed", []string{"Range: bytes=5-3"}, 200, body, ""},
		{"If-Range tag", []string{"Range: bytes=0-3", `If-Range: "1"`}, 206, "0123", "bytes 0-3/10"},
		{"If-Range other tag", []string{"Range: bytes=0-3", `If-Range: "2"`}, 200, body, ""},
		{"If-Range weak tag", []string{"Range: bytes=0-3", `If-Range: W/"1"`}, 200, body, ""},
		{"If-Range date", []string{"Range: bytes=0-3", "If-Range: " + lm}, 206, "0123", "bytes 0-3/10"},
		{"If-Range other date", []string{"Range: bytes=0-3", "If-Range: Wed, 01 Jul 2020 12:00:01 GMT"}, 200, body, ""},
		{"If-Range other tag, beyond the end", []string{"Range: bytes=99-", `If-Range: "2"`}, 200, body, ""},
		{"If-None-Match goes first", []string{"Range: bytes=0-3", `If-None-Match: "1"`}, 304, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, step := gated([]string{"Cache-Control: max-age=1000", `Etag: "1"`, "Last-Modified: " + lm,
				"Content-Length: 10"}, body[:1], body[1:])
			e := p.newEdge(t, h)
			go func() { step <- struct{}{} }()
			whole := e.open(t.Context(), "/a") // keeps the fill going, whatever the other one is satisfied with
			wantNext(t, whole.Body, body[:1])
			part := make(chan answer, 1)
			go func() { part <- e.do(e.request("GET", "/a", "", c.request...)) }()
			testwait.Until(t, "the part is waited for", func() bool { return e.followers() == 2 || len(part) == 1 })
			close(step)
			wantRest(t, whole.Body, body[1:])
			for _, from := range []string{"flight", "store"} {
				var got answer
				if from == "flight" {
					got = <-part
					e.settle()
				} else {
					got = e.get("/a", c.request...)
				}
				if got.status != c.status || got.body != c.body || got.err != nil ||
					got.header.Get("Content-Range") != c.content {
					t.Errorf("from the %s: %d, %q, Content-Range %q, error %v", from, got.status, got.body,
						got.header.Get("Content-Range"), got.err)
				}
				if got.isHit() != (from == "store") {
					t.Errorf("from the %s: Cache-Status %q", from, got.header["Cache-Status"])
				}
				if got.status != 304 && got.number(t, "Content-Length") != len(c.body) {
					t.Errorf("from the %s: Content-Length %q", from, got.header["Content-Length"])
				}
			}
			head := e.do(e.request("HEAD", "/a", "", c.request...))
			if want := map[bool]int{true: 304, false: 200}[c.status == 304]; head.status != want {
				// RFC 9110, 14.2: Range is for GET
				t.Errorf("HEAD: %d, want %d", head.status, want)
			}
			e.wantHits(1)
		})
	}
}

// A suffix is asked for as it is; an origin that sends the whole instead has it stored whole.
func TestRangeOnAMiss(t *testing.T) { overProtocols(t, testRangeOnAMiss) }

func testRangeOnAMiss(t *testing.T, p protocol) {
	e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Range") != "bytes=-3" || r.Header.Get("If-Range") != "" {
			t.Errorf("the origin is asked for %v", r.Header)
		}
		setFields(w.Header(), []string{"Cache-Control: max-age=1000", `Etag: "1"`, "Content-Length: 10"})
		_, _ = io.WriteString(w, "0123456789")
	})
	e.get("/a", "Range: bytes=-3", `If-Range: "1"`).wants(t, 206, "789")
	if got := e.get("/a"); !got.isHit() || got.body != "0123456789" {
		t.Errorf("after a miss that wanted the end: %q, %q", got.body, got.header["Cache-Status"])
	}
	e.wantHits(1)
}

// Several parts come as multipart/byteranges (RFC 9110, 14.6), from the store and from a flight.
func TestSeveralRanges(t *testing.T) { overProtocols(t, testSeveralRanges) }

func testSeveralRanges(t *testing.T, p protocol) {
	const body = "0123456789"
	e := p.newEdge(t, static(body, "Cache-Control: max-age=1000", "Content-Type: text/x", "Content-Length: 10"))
	for range 2 {
		a := e.get("/a", "Range: bytes=0-1,-2,4-4")
		kind, params, err := mime.ParseMediaType(a.header.Get("Content-Type"))
		if err != nil || a.status != 206 || kind != "multipart/byteranges" ||
			a.number(t, "Content-Length") != len(a.body) {
			t.Fatalf("%d %v", a.status, a.header)
		}
		r := multipart.NewReader(strings.NewReader(a.body), params["boundary"])
		for _, want := range []struct{ text, where string }{{"01", "bytes 0-1/10"}, {"89", "bytes 8-9/10"},
			{"4", "bytes 4-4/10"}} {
			p, err := r.NextPart()
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(p)
			if err != nil || string(b) != want.text || p.Header.Get("Content-Range") != want.where ||
				p.Header.Get("Content-Type") != "text/x" {
				t.Errorf("part %q %v, error %v, want %q", b, p.Header, err, want.text)
			}
		}
		if _, err := r.NextPart(); err != io.EOF {
			t.Errorf("after the last part: %v", err)
		}
	}
}

// The size isn't known yet when a body of unknown length comes, so that the whole is sent; from the
// store it is.
func TestRangeOfUnknownLength(t *testing.T) { overProtocols(t, testRangeOfUnknownLength) }

func testRangeOfUnknownLength(t *testing.T, p protocol) {
	h, step := gated([]string{"Cache-Control: max-age=1000"}, "01234", "56789")
	close(step)
	e := p.newEdge(t, h)
	e.get("/a", "Range: bytes=2-3").wants(t, 200, "0123456789")
	e.get("/a", "Range: bytes=2-3").wants(t, 206, "23")
	e.wantHits(1)
}

// A part that lies past the first chunk, and over the border of two.
func TestRangeOfALargeBody(t *testing.T) { overProtocols(t, testRangeOfALargeBody) }

func testRangeOfALargeBody(t *testing.T, p protocol) {
	body := strings.Repeat("0123456789abcdef", 1<<17) // 2 MiB
	e := p.newEdge(t, static(body, "Cache-Control: max-age=1000", "Content-Length: 2097152"))
	e.get("/flight", "Range: bytes=1048570-1048585").wants(t, 206, body[1048570:1048586])
	e.get("/store").wants(t, 200, body)
	e.get("/store", "Range: bytes=1048570-1048585").wants(t, 206, body[1048570:1048586])
	got := e.get("/store", "Range: bytes=-20")
	got.wants(t, 206, body[len(body)-20:])
	if !got.isHit() {
		t.Errorf("Cache-Status %q", got.header["Cache-Status"])
	}
}

// Only a 200 has parts (RFC 9110, 14.2).
func TestRangeOf404(t *testing.T) { overProtocols(t, testRangeOf404) }

func testRangeOf404(t *testing.T, p protocol) {
	e := p.newEdge(t, func(w http.ResponseWriter, _ *http.Request) {
		setFields(w.Header(), []string{"Cache-Control: max-age=1000", "Content-Length: 7"})
		w.WriteHeader(404)
		_, _ = io.WriteString(w, "nothing")
	})
	e.get("/a").wants(t, 404, "nothing")
	e.get("/a", "Range: bytes=0-1").wants(t, 404, "nothing")
	e.wantHits(1)
}
