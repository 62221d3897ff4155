package edge

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/site"
)

// bothWays is an edge with a hit lane, and one without on the same store.
type bothWays struct {
	*testEdge
	ordinary *testEdge
}

func newBothWays(t *testing.T, more ...func(*site.Site)) *bothWays {
	t.Helper()
	hsts := func(s *Server, site *site.Site) {
		site.HSTS, site.IgnoreQuery = "max-age=1000", []string{"utm_*"}
		for _, change := range more {
			change(site)
		}
	}
	b := &bothWays{testEdge: newSecure(t, answerKinds, 1, hsts)}
	b.ordinary = newSecure(t, answerKinds, 1, hsts, func(s *Server, site *site.Site) {
		s.Store, s.NoHitLane = b.Store, true
		s.Certificates = b.Certificates
	})
	return b
}

// answerKinds is an origin with responses of all kinds. They depend on nothing but the request.
func answerKinds(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h["Date"] = []string{started.Format(http.TimeFormat)}
	h.Set("Cache-Control", "max-age=100000")
	h.Set("Surrogate-Key", "a b")
	h.Set("Strict-Transport-Security", "max-age=7")
	h.Set("Etag", `"`+r.URL.Path+`"`)
	h.Set("Last-Modified", started.Add(-time.Hour).Format(http.TimeFormat))
	h.Add("X-Twice", "one")
	h.Add("X-Twice", " two ")
	body := r.Method + " " + r.URL.RequestURI()
	switch r.URL.Path {
	case "/vary":
		h.Set("Vary", "Accept-Encoding, X-Kind")
		body += r.Header.Get("Accept-Encoding") + r.Header.Get("X-Kind")
	case "/byconn":
		h.Set("Vary", "Connection")
	case "/undated":
		h["Date"] = nil
	case "/weak":
		h.Set("Etag", `W/"weak"`)
	case "/plain":
		delete(h, "Etag")
		delete(h, "Last-Modified")
		h["Content-Type"] = nil
	case "/private":
		h.Set("Cache-Control", `max-age=100000, private="X-Twice"`)
	case "/nocache":
		h.Set("Cache-Control", `max-age=100000, no-cache="X-Twice"`)
	case "/validate":
		h.Set("Cache-Control", "no-cache")
	case "/store":
		h.Set("Cache-Control", "no-store")
	case "/aged":
		h.Set("Age", "500")
	case "/empty":
		body = ""
	case "/large":
		body = strings.Repeat("0123456789", 10_000)
	case "/huge": // in files, not in the RAM tier
		body = strings.Repeat("0123456789", 70_000)
	case "/404":
		w.WriteHeader(http.StatusNotFound)
	case "/301":
		h.Set("Location", "/a")
		w.WriteHeader(http.StatusMovedPermanently)
	}
	_, _ = io.WriteString(w, body)
}

var started = time.Now().UTC().Truncate(time.Second)

var lanePaths = []string{"/a", "/a?x=1", "/a?utm_source=7", "/a?utm_a=1&x=1&", "/a?", "/vary", "/byconn", "/undated",
	"/weak", "/plain", "/private", "/nocache", "/validate", "/store", "/aged", "/empty", "/large", "/huge",
	"/404", "/301", "/a%20b", "/%61", "/a;b=(c)'*~!$,@:", "//a", "/./a", "/a/../b", "/.kaiku/health",
	"/%2ekaiku/health", "/a#b", "*", "http://www.example/a", "/a\"", "/a|b", "/\xff", "/%zz", "/a b", ""}

var laneMethods = []string{"GET", "GET", "GET", "GET", "HEAD", "HEAD", "POST", "OPTIONS", "TRACE", "PURGE", "get",
	"G ET"}

var laneHosts = []string{"Host: www.example", "Host: www.example", "Host: www.example", "Host: www.example",
	"Host: WWW.Example:80", "hOST:www.example.", "Host: www.example:81", "Host: other.example",
	"Host: www.example\r\nHost: www.example",
	"Host:", "Host: [::1]", "Host: www.example:x", "Host: a b", "X: y", "Host : www.example"}

var laneFields = []string{"Accept: */*", "Accept-Encoding: gzip", "Accept-Encoding: gzip, br",
	"accept-encoding:\tbr \t", "X-Kind: 1", "X-Kind: 1\r\nX-Kind: 2", "Cookie: a=b; c=d", "User-Agent: x",
	"Connection: keep-alive", "Range: bytes=1-",
	"Connection: Keep-Alive", "Range: bytes=-70000", "range:bytes=0-99999 ", "Range: bytes=9-1",
	"Range: bytes=99999999-", "Range: items=0-1", "Range:",
	"Range: bytes=300000-699999",
	"Connection: close", "Connection: X-Kind", "Range: bytes=0-3", "Range: bytes=1-2,4-5", "If-Range: \"/a\"",
	"If-None-Match: \"/a\"", "If-None-Match: *", "If-None-Match: W/\"weak\", \"/vary\"", "If-None-Match: \"no\"",
	"If-Modified-Since: " + started.Format(http.TimeFormat), "If-Modified-Since: Mon, 02 Jan 2006 15:04:05 GMT",
	"If-Modified-Since: nonsense", "If-Match: \"/a\"", "If-Unmodified-Since: " + started.Format(http.TimeFormat),
	"Cache-Control: no-cache", "Cache-Control: max-age=0", "Cache-Control: only-if-cached", "Cache-Control: no-store",
	"Pragma: no-cache", "Authorization: Basic eDp5", "Content-Length: 0", "Content-Length: 3",
	"Transfer-Encoding: chunked",
	"Expect: 100-continue", "Upgrade: websocket", "TE: trailers", "Trailer: X", "Max-Forwards: 0", "Via: 1.1 a",
	"CDN-Loop: x", "X-Forwarded-Proto: https", "X-Forwarded-For: 192.0.2.1", "Kaiku-Purges: 1 1", "X-Obs: \xe4\xf6",
	"X-Ctl: a\x01b", "X-Fold: a\r\n b", "X Y: z", ": x", "X-Empty:", "X-Long: " + strings.Repeat("y", 5000),
	"Sec-Fetch-Mode: navigate", "Surrogate-Key: a", "Accept-Language: fi"}

// laneRequest makes a request that is for the lane, or nearly so, or not at all.
func laneRequest(r *rand.Rand) []byte {
	pick := func(of []string) string { return of[r.IntN(len(of))] }
	path := pick(lanePaths[:22])
	if r.IntN(4) == 0 {
		path = pick(lanePaths)
	}
	version := "HTTP/1.1"
	if r.IntN(20) == 0 {
		version = pick([]string{"HTTP/1.0", "HTTP/2.0", "HTTP/1.1 ", "http/1.1", ""})
	}
	methods, hosts, fields := laneMethods, laneHosts, laneFields
	if r.IntN(3) > 0 { // what browsers send
		methods, hosts, fields = methods[:6], hosts[:4], fields[:10]
	}
	lines := []string{pick(methods) + " " + path + " " + version, pick(hosts)}
	for range r.IntN(4) {
		lines = append(lines, pick(fields))
	}
	if r.IntN(30) == 0 {
		for range 50 {
			lines = append(lines, pick(laneFields[:9]))
		}
	}
	end := "\r\n"
	if r.IntN(30) == 0 {
		end = "\n"
	}
	return []byte(strings.Join(lines, end) + end + end)
}

// lastRequest ends a connection.
const lastRequest = "GET /a HTTP/1.1\r\nHost: www.example\r\nX-Kind: last\r\nConnection: close\r\n\r\n"

// exchange sends a request, and after it lastRequest: at once, or when it is answered. It returns
// all that came.
func (e *testEdge) exchange(t *testing.T, request []byte, secure, pipelined bool) []byte {
	t.Helper()
	addr := e.Addr().String()
	if secure {
		addr = e.SecureAddr().String()
	}
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if secure {
		conf := e.trust()
		conf.NextProtos = []string{"http/1.1"}
		conn = tls.Client(conn, conf)
	}
	var got bytes.Buffer
	send := func(b []byte) {
		_ = conn.SetWriteDeadline(time.Now().Add(10 * time.Second))
		_, _ = conn.Write(b) // the edge may have closed it
	}
	if pipelined {
		send(append(bytes.Clone(request), lastRequest...))
	} else {
		send(request)
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		r := bufio.NewReader(io.TeeReader(conn, &got))
		method, _, _ := bytes.Cut(request, []byte(" "))
		wait := 200 * time.Millisecond // for what is no whole request
		if bytes.HasSuffix(request, []byte("\r\n\r\n")) && !bytes.Contains(request, []byte("Content-Length: 3")) &&
			!bytes.Contains(request, []byte("chunked")) && len(method) > 0 {
			wait = 10 * time.Second
		}
		_ = conn.SetReadDeadline(time.Now().Add(wait))
		if resp, err := http.ReadResponse(r, &http.Request{Method: string(method)}); err == nil {
			_, _ = io.Copy(io.Discard, resp.Body)
		}
		send([]byte(lastRequest))
	}
	// What waits for more than comes is told that no more does.
	_ = conn.SetReadDeadline(time.Now().Add(time.Second))
	if _, err := got.ReadFrom(conn); errors.Is(err, os.ErrDeadlineExceeded) {
		if c, ok := conn.(interface{ CloseWrite() error }); ok {
			_ = c.CloseWrite()
		}
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		_, _ = got.ReadFrom(conn)
	}
	return got.Bytes()
}

var (
	ttlParam = regexp.MustCompile(`ttl=-?\d+`)
	ports    = regexp.MustCompile(`h3=":\d+"`)
	boundary = regexp.MustCompile(`[A-Z2-7]{26}`)
)

// normal is what was received without what differs from one time to the next.
func normal(t *testing.T, received []byte, method string) (all []map[string]any) {
	t.Helper()
	r := bufio.NewReader(bytes.NewReader(received))
	for n := 0; ; n++ {
		if _, err := r.Peek(1); err != nil {
			return all
		}
		request := &http.Request{Method: method}
		if n > 0 {
			request.Method = "GET"
		}
		resp, err := http.ReadResponse(r, request)
		if err != nil {
			rest, _ := io.ReadAll(r)
			return append(all, map[string]any{"error": err.Error(), "rest": string(rest)})
		}
		body, err := io.ReadAll(resp.Body)
		h := resp.Header
		dated := len(h["Date"])
		delete(h, "Date")
		delete(h, "Age")
		for _, lines := range h {
			for i := range lines {
				// with the fetch of the same request before it
				lines[i] = strings.Replace(lines[i], "; collapsed", "", 1)
				lines[i] = boundary.ReplaceAllString(ports.ReplaceAllString(ttlParam.ReplaceAllString(lines[i], "ttl="),
					"h3"), "BOUNDARY")
			}
		}
		all = append(all, map[string]any{"status": resp.StatusCode, "header": h, "length": resp.ContentLength,
			"close": resp.Close, "dated": dated,
			"body": boundary.ReplaceAllString(string(body), "BOUNDARY"), "error": fmt.Sprint(err)})
	}
}

// warm has the RAM tier hold what can be there.
func (b *bothWays) warm(t *testing.T) {
	t.Helper()
	for range 4 {
		for _, path := range lanePaths[:22] {
			for _, fields := range []string{"", "Accept-Encoding: gzip\r\n", "X-Kind: 1\r\n", "X-Kind: last\r\n"} {
				for _, secure := range []bool{false, true} {
					b.ordinary.exchange(t, []byte("GET "+path+" HTTP/1.1\r\nHost: www.example\r\n"+fields+"\r\n"),
						secure, true)
				}
			}
		}
	}
}

// compare sends a request both ways.
func (b *bothWays) compare(t *testing.T, request []byte, secure, pipelined bool) {
	t.Helper()
	method, _, _ := strings.Cut(string(request), " ")
	var want, got []map[string]any
	for range 3 {
		// what it changes is changed then, if what it fetched is stored yet
		b.ordinary.exchange(t, request, secure, pipelined)
		want = normal(t, b.ordinary.exchange(t, request, secure, pipelined), method)
		got = normal(t, b.exchange(t, request, secure, pipelined), method)
		if reflect.DeepEqual(got, want) {
			break
		}
		b.settleCodings() // with compress, the next request gets what these have ordered
		b.ordinary.settleCodings()
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("TLS %v, pipelined %v: %.500q\nby the lane: %.1500v\nwithout it:  %.1500v", secure, pipelined, request,
			fmt.Sprint(got), fmt.Sprint(want))
	}
}

func (b *bothWays) answered(t *testing.T) float64 {
	return counted(t, b.testEdge, "kaiku_edge_hit_lane_total")
}

// A client can't tell whether the hit lane answered.
func TestLaneDiffers(t *testing.T) {
	b := newBothWays(t)
	b.warm(t)
	before := b.answered(t)
	const seed, requests = 7, 1500
	r := rand.New(rand.NewPCG(seed, seed))
	for i := range requests {
		b.compare(t, laneRequest(r), i%3 == 0, i%2 == 0)
		if t.Failed() {
			t.Fatalf("request %d", i)
		}
	}
	if n := b.answered(t) - before; n < requests/4 {
		t.Errorf("the lane answered %v requests only", n)
	}
	for _, request := range fuzzCorpus(t) {
		b.compare(t, request, false, true)
	}
}

// fuzzCorpus is what FuzzLaneRequest found.
func fuzzCorpus(t *testing.T) (all [][]byte) {
	t.Helper()
	files, err := filepath.Glob("testdata/fuzz/FuzzLaneRequest/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		_, line, _ := strings.Cut(string(b), "\n")
		s, err := strconv.Unquote(strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(line), "[]byte("), ")"))
		if err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		all = append(all, []byte(s))
	}
	return all
}

// These are for the lane, and the last two are not in the first place.
func TestLaneAnswers(t *testing.T) {
	b := newBothWays(t)
	b.warm(t)
	for _, c := range []struct {
		request string
		lane    float64
	}{
		{"GET /a HTTP/1.1\r\nHost: www.example\r\n\r\n", 1},
		{"HEAD /a HTTP/1.1\r\nHost: www.example\r\nConnection: keep-alive\r\n\r\n", 1},
		{"GET /a?utm_source=5 HTTP/1.1\r\nHost: WWW.example\r\nCookie: x\r\n\r\n", 1},
		{"GET /vary HTTP/1.1\r\nHost: www.example\r\nAccept-Encoding: gzip\r\n\r\n", 1},
		{"GET /a HTTP/1.1\r\nHost: www.example\r\nIf-None-Match: \"/a\"\r\n\r\n", 1},
		{"GET /large HTTP/1.1\r\nHost: www.example\r\n\r\n", 1},
		{"GET /a HTTP/1.1\r\nHost: www.example\r\n\r\nGET /weak HTTP/1.1\r\nHost: www.example\r\n\r\n", 2},
		{"GET /a HTTP/1.1\r\nHost: www.example\r\nRange: bytes=0-1\r\n\r\n", 1},
		{"GET /huge HTTP/1.1\r\nHost: www.example\r\n\r\n", 1},
		{"GET /huge HTTP/1.1\r\nHost: www.example\r\nRange: bytes=200000-\r\n\r\nGET /a HTTP/1.1\r\nHost: www.example\r\n\r\n", 2},
		{"GET /huge HTTP/1.1\r\nHost: www.example\r\nRange: bytes=0-1, 4-5\r\n\r\n", 0},
		{"GET /a HTTP/1.1\r\nHost: www.example\r\nRange: bytes=1000-\r\n\r\n", 0},
		{"GET /a HTTP/1.1\r\nHost: www.example\r\nRange: bytes=0-1\r\nIf-Range: \"/a\"\r\n\r\n", 0},
		{"GET /404 HTTP/1.1\r\nHost: www.example\r\n\r\n", 0},
		{"GET /a HTTP/1.1\r\nHost: www.example\r\n" + strings.Repeat("Connection: keep-alive\r\n", 250) + "\r\n", 0},
		{"GET /byconn HTTP/1.1\r\nHost: www.example\r\nConnection: keep-alive\r\n\r\n", 0},
		{"GET /validate HTTP/1.1\r\nHost: www.example\r\n\r\n", 0},
		{"GET /a HTTP/1.1\r\nHost: www.example\r\nCache-Control: no-cache\r\n\r\n", 0},
	} {
		for _, secure := range []bool{false, true} {
			before := b.answered(t)
			b.compare(t, []byte(c.request), secure, true)
			if n := b.answered(t) - before; n != c.lane {
				t.Errorf("TLS %v, %q: the lane answered %v, want %v", secure, c.request, n, c.lane)
			}
		}
	}
}

// A connection goes to net/http with a request that is not for the lane, and comes back after it,
// but for one whose request had a body.
func TestLaneComesBack(t *testing.T) {
	b := newBothWays(t)
	b.warm(t)
	for _, secure := range []bool{false, true} {
		conn := b.dialRaw(t, secure)
		r := bufio.NewReader(conn)
		ask := func(request, want string) float64 {
			t.Helper()
			before := b.answered(t)
			if _, err := io.WriteString(conn, request); err != nil {
				t.Fatal(err)
			}
			method, _, _ := strings.Cut(request, " ")
			resp, err := http.ReadResponse(r, &http.Request{Method: method})
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			if err != nil || !strings.HasPrefix(string(body), want) {
				t.Fatalf("%q: %s, %q, %v", request, resp.Status, body, err)
			}
			return b.answered(t) - before
		}
		hit := "GET /a HTTP/1.1\r\nHost: www.example\r\n\r\n"
		for i := range 50 {
			if n := ask(hit, "GET /a"); n != 1 {
				t.Fatalf("TLS %v, %d: a hit was not answered by the lane", secure, i)
			}
			if n := ask("GET /new"+strconv.Itoa(i)+" HTTP/1.1\r\nHost: www.example\r\n\r\n", "GET /new"); n != 0 {
				t.Fatal("the lane answered a miss")
			}
			ask("GET /a HTTP/1.1\r\nHost: www.example\r\nRange: bytes=0-2\r\n\r\n", "GET")
		}
		if n := ask("POST /p HTTP/1.1\r\nHost: www.example\r\nContent-Length: 3\r\n\r\nabc", "POST /p"); n != 0 {
			t.Error("the lane answered a POST")
		}
		if n := ask(hit, "GET /a"); n != 0 {
			t.Error("the lane has a connection that had a body")
		}
	}
}

func (e *testEdge) dialRaw(t *testing.T, secure bool) net.Conn {
	t.Helper()
	addr := e.Addr().String()
	if secure {
		addr = e.SecureAddr().String()
	}
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	if secure {
		conf := e.trust()
		conf.NextProtos = []string{"http/1.1"}
		return tls.Client(conn, conf)
	}
	return conn
}
