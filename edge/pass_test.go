package edge

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/site"
	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

func TestMethodsPass(t *testing.T) { overProtocols(t, testMethodsPass) }

func testMethodsPass(t *testing.T, p protocol) {
	e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=1000")
		w.Header().Set("X-Method", r.Method)
		if r.Method != http.MethodHead {
			b, _ := io.ReadAll(r.Body)
			_, _ = fmt.Fprintf(w, "%s %s", r.Method, b)
		}
	})
	for n, method := range []string{"POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "PURGE", "get"} {
		for range 2 {
			body := "body"
			if method == "TRACE" {
				body = "" // has none (RFC 9110, 9.3.8)
			}
			got := e.do(e.request(method, "/a", body))
			got.wants(t, 200, method+" "+body)
			if cs := got.cacheStatus(); cs["fwd"] != "method" || cs["fwd-status"] != "200" || cs["stored"] != "" {
				t.Errorf("%s: Cache-Status %q", method, got.header["Cache-Status"])
			}
		}
		e.wantHits(int64(2 * (n + 1)))
	}
	if got := e.get("/a"); got.isHit() {
		t.Error("a response to another method answers a GET")
	}
}

// A large body streams to the origin: it sees the first bytes before the client has sent the last.
func TestUploadStreams(t *testing.T) { overProtocols(t, testUploadStreams) }

func testUploadStreams(t *testing.T, p protocol) {
	const size = 8 << 20
	first := make(chan struct{})
	e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		b := make([]byte, 5)
		if _, err := io.ReadFull(r.Body, b); err != nil || string(b) != "first" {
			t.Errorf("the origin reads %q, %v", b, err)
		}
		close(first)
		n, err := io.Copy(io.Discard, r.Body)
		_, _ = fmt.Fprintf(w, "%d %v %d", n, err, r.ContentLength)
	})
	body, send := io.Pipe()
	go func() {
		_, _ = io.WriteString(send, "first")
		<-first // or nothing ever arrives
		for left := size; left > 0; left -= 1 << 16 {
			if _, err := send.Write(make([]byte, 1<<16)); err != nil {
				return
			}
		}
		send.Close()
	}()
	r := e.request("PUT", "/upload", "")
	r.Body, r.ContentLength = body, -1
	e.do(r).wants(t, 200, fmt.Sprintf("%d <nil> -1", size))
}

func TestForwardingFields(t *testing.T) { overProtocols(t, testForwardingFields) }

func testForwardingFields(t *testing.T, p protocol) {
	saw := make(chan *http.Request, 1)
	e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		saw <- r
		_, _ = io.WriteString(w, "x")
	})
	scheme, version := p.scheme(), "1.1"
	switch p {
	case protoHTTP2, protoHTTP2Go:
		version = "2"
	case protoHTTP3:
		version = "3"
	}
	forged := []string{
		"Forwarded: for=6.6.6.6", "X-Forwarded-For: 6.6.6.6", "X-Forwarded-Host: evil.example",
		"X-Forwarded-Proto: https", "X-Forwarded-Port: 1",
		"X-Real-IP: 6.6.6.6", "X-Original-URL: /admin", "X-Rewrite-URL: /admin", "X-HTTP-Method-Override: DELETE",
		"X-Forwarded-Prefix: /p",
		"Via: 1.0 laptop", "User-Agent: test", "Accept-Encoding: gzip", "X-Own: kept",
	}
	for _, method := range []string{"GET", "POST"} {
		e.do(e.request(method, "/a", "", forged...)).wants(t, 200, "x")
		r := <-saw
		for name, want := range map[string]string{
			"Forwarded":       `for=127.0.0.1;proto=` + scheme + `;host="www.example"`,
			"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Host": "www.example", "X-Forwarded-Proto": scheme,
			"X-Forwarded-Port": "", "X-Real-Ip": "", "X-Original-Url": "", "X-Rewrite-Url": "",
			"X-Http-Method-Override": "", "X-Forwarded-Prefix": "",
			"Via": "1.0 laptop, " + version + " hel1", "User-Agent": "test", "Accept-Encoding": "gzip", "X-Own": "kept",
		} {
			if got := strings.Join(r.Header[name], ", "); got != want {
				t.Errorf("%s: the origin sees %s: %q, want %q", method, name, got, want)
			}
		}
		if r.Host != "www.example" {
			t.Errorf("%s: Host is %q", method, r.Host)
		}
	}
	// What the client doesn't send is not made up.
	for _, method := range []string{"GET", "POST"} {
		r := e.request(method, "/b", "")
		r.Header["User-Agent"] = nil
		e.do(r).wants(t, 200, "x")
		saw := <-saw
		for _, name := range []string{"User-Agent", "Accept-Encoding"} {
			if v, ok := saw.Header[name]; ok {
				t.Errorf("%s: the origin sees %s: %q", method, name, v)
			}
		}
	}
}

// Fields of one connection stay on it (RFC 9110, 7.6.1).
func TestHopByHop(t *testing.T) {
	saw := make(chan http.Header, 1)
	e := newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		saw <- r.Header
		setFields(w.Header(), []string{"Cache-Control: public, max-age=1000", "Connection: X-Hop", "X-Hop: 1",
			"Keep-Alive: timeout=1",
			"Proxy-Authenticate: Basic", "X-End: 1", "Proxy-Connection: close"})
		_, _ = io.WriteString(w, "x")
	})
	for i, method := range []string{"POST", "GET", "GET"} {
		got := e.do(e.request(method, "/a", "", "Connection: X-Mine, keep-alive", "X-Mine: 1", "Keep-Alive: timeout=9",
			"TE: gzip",
			"Proxy-Authorization: Basic eDp5", "Proxy-Connection: keep-alive", "X-End: 1", "Authorization: Basic eDp5"))
		e.settle()
		got.wants(t, 200, "x")
		for _, name := range []string{"X-Hop", "Keep-Alive", "Proxy-Authenticate", "Proxy-Connection"} {
			if v, ok := got.header[name]; ok {
				t.Errorf("%s: the client sees %s: %q", method, name, v)
			}
		}
		if got.header.Get("X-End") != "1" {
			t.Errorf("%s: the client lost X-End", method)
		}
		if got.isHit() != (i == 2) {
			t.Errorf("%s: Cache-Status %q", method, got.header["Cache-Status"])
		}
		if i == 2 {
			break
		}
		h := <-saw
		for _, name := range []string{"X-Mine", "Keep-Alive", "Te", "Proxy-Authorization", "Proxy-Connection",
			"Connection"} {
			if v, ok := h[name]; ok {
				t.Errorf("%s: the origin sees %s: %q", method, name, v)
			}
		}
		if h.Get("X-End") != "1" || h.Get("Authorization") == "" {
			t.Errorf("%s: the origin lost a field: %v", method, h)
		}
	}
}

// A response to a request with credentials is for who sent them, unless the origin says otherwise
// (RFC 9111, 3.5).
func TestAuthorization(t *testing.T) { overProtocols(t, testAuthorization) }

func testAuthorization(t *testing.T, p protocol) {
	for _, c := range []struct {
		cc     string
		shared bool
	}{
		{"max-age=1000", false}, {"public, max-age=1000", true}, {"s-maxage=1000", true},
		{"must-revalidate, max-age=1000", true}, {"private, public", false},
	} {
		t.Run(c.cc, func(t *testing.T) {
			e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Cache-Control", c.cc)
				_, _ = io.WriteString(w, "for "+r.Header.Get("Authorization"))
			})
			e.get("/a", "Authorization: Bearer ann").wants(t, 200, "for Bearer ann")
			want := map[bool]string{true: "for Bearer ann", false: "for Bearer bob"}[c.shared]
			e.get("/a", "Authorization: Bearer bob").wants(t, 200, want)
		})
	}
}

// Nobody waits for a fetch with another's credentials, whose response would not be for them.
func TestAuthorizationOfWaiters(t *testing.T) { overProtocols(t, testAuthorizationOfWaiters) }

func testAuthorizationOfWaiters(t *testing.T, p protocol) {
	first := make(chan struct{})
	e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.Header.Get("Authorization"), "ann") {
			<-first
		}
		setFields(w.Header(), []string{"Cache-Control: max-age=1000", "X-For: " + r.Header.Get("Authorization")})
		_, _ = io.WriteString(w, "secret of "+r.Header.Get("Cookie"))
	})
	ann := make(chan answer)
	go func() { ann <- e.do(e.request("GET", "/a", "", "Authorization: Bearer ann", "Cookie: ann")) }()
	testwait.Until(t, "ann's request is at the origin", func() bool { return e.hits.Load() == 1 })
	e.do(e.request("GET", "/a", "", "Authorization: Bearer bob", "Cookie: bob")).wants(t, 200, "secret of bob")
	e.do(e.request("GET", "/a", "", "Cookie: cid")).wants(t, 200, "secret of cid")
	close(first)
	(<-ann).wants(t, 200, "secret of ann")
	e.wantHits(3)
}

func TestOriginTimeout(t *testing.T) { overProtocols(t, testOriginTimeout) }

func testOriginTimeout(t *testing.T, p protocol) {
	e := p.newEdge(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}, func(_ *Server, s *site.Site) { s.Origin.Origin.FirstByteTimeout = 50 * time.Millisecond })
	for _, method := range []string{"GET", "POST"} {
		if got := e.do(e.request(method, "/a", "")); got.status != 504 || got.cacheStatus()["detail"] != "timeout" {
			t.Errorf("%s: %d, %q", method, got.status, got.header["Cache-Status"])
		}
	}
}

// A protocol switch passes whole.
func TestUpgrade(t *testing.T) { overProtocols(t, testUpgrade) }

func testUpgrade(t *testing.T, p protocol) {
	e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "websocket" || !strings.EqualFold(r.Header.Get("Connection"), "upgrade") {
			t.Errorf("the origin sees %v", r.Header)
		}
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		_ = rw.Flush()
		line, _ := rw.ReadString('\n')
		_, _ = rw.WriteString("echo " + line)
		_ = rw.Flush()
	})
	conn, err := net.Dial("tcp", e.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "GET /a HTTP/1.1\r\nHost: www.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != 101 || resp.Header.Get("Upgrade") != "websocket" {
		t.Fatalf("got %v, %v", resp, err)
	}
	_, _ = io.WriteString(conn, "hello\n")
	if line, err := r.ReadString('\n'); line != "echo hello\n" {
		t.Errorf("read %q, %v", line, err)
	}
}

// A response without Content-Type is passed on without one: nobody guesses.
func TestNoContentTypeIsGuessed(t *testing.T) { overProtocols(t, testNoContentTypeIsGuessed) }

func testNoContentTypeIsGuessed(t *testing.T, p protocol) {
	e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Content-Type"] = nil
		w.Header().Set("Cache-Control", "max-age=1000")
		_, _ = io.WriteString(w, "<html>"+r.Method)
	})
	for _, method := range []string{"POST", "GET", "GET"} {
		r := e.do(e.request(method, "/a", ""))
		if v, ok := r.header["Content-Type"]; ok || r.status != 200 {
			t.Errorf("%s: %d, Content-Type: %q", method, r.status, v)
		}
	}
}

// rawTalk sends bytes to an edge over plain HTTP/1.1, and returns all that comes up to the end
// of the connection.
func rawTalk(t *testing.T, e *testEdge, text string) string {
	t.Helper()
	conn, err := net.Dial("tcp", e.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	_, _ = io.WriteString(conn, text)
	got, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	return string(got)
}

// What is passed through has no interim response for HTTP/1.0 (RFC 9110, 15.2), and one does not
// change the fields of the final response.
func TestInterimOfPassed(t *testing.T) {
	t.Parallel()
	e := newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Del("Link")
		_, _ = io.WriteString(w, "body")
	})
	const chunked = "POST / HTTP/1.1\r\nHost: www.example\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"
	got := rawTalk(t, e, chunked)
	if interim, final, _ := strings.Cut(got, "\r\n\r\n"); !strings.HasPrefix(interim, "HTTP/1.1 103 ") ||
		!strings.HasPrefix(final, "HTTP/1.1 200 ") || !strings.Contains(final, "\r\nConnection: close\r\n") {
		t.Errorf("a request in chunks: %q", got)
	}
	for _, method := range []string{"GET", "POST"} {
		got := rawTalk(t, e, method+" / HTTP/1.0\r\nHost: www.example\r\nIf-Match: \"x\"\r\nContent-Length: 0\r\n\r\n")
		if !strings.HasPrefix(got, "HTTP/1.0 200 ") || strings.Contains(got, "103") {
			t.Errorf("%s of HTTP/1.0: %q", method, got)
		}
	}
}

// What a client sends right after its request for a tunnel reaches the origin.
func TestTunnelHasEarlyBytes(t *testing.T) {
	t.Parallel()
	e := newEdge(t, func(w http.ResponseWriter, _ *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		_ = rw.Flush()
		line, _ := rw.ReadString('\n')
		fmt.Fprintf(rw, "got %s", line)
		_ = rw.Flush()
	})
	got := rawTalk(t, e, "GET /a HTTP/1.1\r\nHost: www.example\r\nConnection: Upgrade\r\n"+
		"Upgrade: websocket\r\n\r\nearly\n")
	resp, err := http.ReadResponse(bufio.NewReader(strings.NewReader(got)), nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols ||
		!strings.HasSuffix(got, "\r\n\r\ngot early\n") {
		t.Errorf("%q, %v", got, err)
	}
}
