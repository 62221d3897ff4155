package edge

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/kaiku-cdn/kaiku/edge/site"
	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// answerHit asks over HTTP/2, and returns the answer but for what differs from one edge to another.
func answerHit(t *testing.T, client *http.Client, method, path string, fields ...string) string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "https://www.example"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(fields); i += 2 {
		r.Header.Add(fields[i], fields[i+1])
	}
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	status := strings.Split(resp.Header.Get("Cache-Status"), "ttl=")[0]
	resp.Header.Set("Cache-Status", status)
	if kind, _, parts := strings.Cut(resp.Header.Get("Content-Type"), "boundary="); parts {
		resp.Header.Set("Content-Type", kind)
		body = body[:0]
	}
	for _, name := range []string{"Age", "Date", "Alt-Svc"} {
		resp.Header.Del(name)
	}
	return fmt.Sprintln(resp.Status, resp.Header, len(body), fmt.Sprintf("%.40q", body), err)
}

type hitRequest struct {
	method, path string
	fields       []string
	lane         bool
}

// http2Hits are requests for what is stored, and whether they are answered by the lane.
var http2Hits = []hitRequest{
	{"GET", "/a", nil, true},
	{"HEAD", "/a", nil, true},
	{"GET", "/a", []string{"If-None-Match", `"x"`}, true},
	{"GET", "/a", []string{"If-None-Match", `"y"`}, true},
	{"GET", "/a", []string{"If-Modified-Since", started.Format(http.TimeFormat)}, true},
	{"GET", "/undated", nil, true},
	{"GET", "/first", nil, true},
	{"GET", "/vary", []string{"X-Kind", "1"}, true},
	{"GET", "/vary", []string{"X-Kind", "2", "Cookie", "a=b"}, true},
	{"GET", "/vary", []string{"X-Kind", "2", "Cookie", "a=b", "Cookie", "c=d"}, true},
	{"GET", "/a?q", nil, true},
	{"GET", "/a", []string{"Range", "bytes=1-2"}, true},
	{"HEAD", "/a", []string{"Range", "bytes=1-2"}, true},
	{"GET", "/a", []string{"Range", "bytes=-100", "If-None-Match", `"y"`}, true},
	{"GET", "/a", []string{"Range", "bytes=1-2,5-6"}, false},
	{"GET", "/a", []string{"Range", "bytes=9999-"}, false},
	{"GET", "/a", []string{"Range", "bytes=1-2", "If-Range", `"x"`}, false},
	{"GET", "/a", []string{"Cache-Control", "no-cache"}, false},
	{"GET", "/.kaiku/health", nil, false},
	{"GET", "//a", nil, false},
	{"GET", middlePath, nil, true},
	{"GET", middlePath, []string{"Range", "bytes=100-40000"}, true},
	{"GET", largePath, nil, true},
	{"HEAD", largePath, nil, true},
	{"GET", largePath, []string{"Range", "bytes=300000-699999"}, true},
}

// originOfHits is an origin whose bodies are 1000 times as long as the path.
func originOfHits(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "max-age=1000")
	h.Set("Etag", `"x"`)
	h.Set("Last-Modified", started.Format(http.TimeFormat))
	h["Date"] = []string{started.Format(http.TimeFormat)}
	switch r.URL.Path {
	case "/vary":
		h.Set("Vary", "X-Kind, Cookie")
	case "/undated":
		h["Date"] = nil
	case "/first":
		h.Set("Priority", "u=0")
	}
	_, _ = io.WriteString(w, strings.Repeat("0123456789", len(r.URL.Path)*100)+r.Header.Get("X-Kind")+
		r.Header.Get("Cookie"))
}

// The bodies of middlePath (49 KB) are sent from memory, those of largePath (800 KB) from files.
var middlePath, largePath = "/" + strings.Repeat("long", 12), "/" + strings.Repeat("long", 200)

func (c hitRequest) String() string { return fmt.Sprintf("%s %.20s %q", c.method, c.path, c.fields) }

// wantAlike fails the test unless a request gets the same from e, by its lane or not as c says, as
// from an edge without a lane. other is a client of that.
func wantAlike(t *testing.T, e *testEdge, client, other *http.Client, c hitRequest) {
	t.Helper()
	before := counted(t, e, "kaiku_edge_hit_lane_total")
	got, want := answerHit(t, client, c.method, c.path, c.fields...), answerHit(t, other, c.method, c.path, c.fields...)
	if got != want {
		t.Errorf("%s: the lane answers\n%s, and the ordinary path\n%s", c, got, want)
	}
	if lane := counted(t, e, "kaiku_edge_hit_lane_total") > before; lane != c.lane {
		t.Errorf("%s: answered by the lane: %t", c, lane)
	}
}

// Hits over the edge's own HTTP/2 are answered before a handler is asked, and the same as by that.
func TestHitsOfOwnHTTP2(t *testing.T) {
	e := newSecure(t, originOfHits, 1, func(s *Server, _ *site.Site) { s.OwnHTTP2 = true })
	ordinary := newSecure(t, originOfHits, 1, func(s *Server, _ *site.Site) { s.OwnHTTP2, s.NoHitLane = true, true })
	client, other, narrow := e.newClientOf(protoHTTP2), ordinary.newClientOf(protoHTTP2), e.newClientOf(protoHTTP2)
	client.Transport.(*http.Transport).HTTP2.MaxReceiveBufferPerStream = 4 << 20
	for _, c := range http2Hits {
		for range 2 {
			answerHit(t, client, "GET", c.path, c.fields...)
			answerHit(t, other, "GET", c.path, c.fields...)
		}
		if c.lane {
			testwait.Until(t, c.String()+" is for the lane", func() bool {
				before := counted(t, e, "kaiku_edge_hit_lane_total")
				answerHit(t, client, c.method, c.path, c.fields...)
				return counted(t, e, "kaiku_edge_hit_lane_total") > before
			})
		}
		wantAlike(t, e, client, other, c)
	}
	before := counted(t, e, "kaiku_edge_hit_lane_total")
	if got, want := answerHit(t, narrow, "GET", largePath), answerHit(t, other, "GET", largePath); got != want {
		t.Errorf("with a window of 64 KiB: %s, want %s", got, want)
	}
	if counted(t, e, "kaiku_edge_hit_lane_total") != before {
		t.Error("the lane answers what waits for the window of its client, where nothing gives that up")
	}
	e.settle()
}
