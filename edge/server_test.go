package edge

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/admin"
	"github.com/kaiku-cdn/kaiku/fleet/freeport"
	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// raw sends bytes over a connection of its own, closes it for writing, and reads one response. An
// answer without status is a connection that was closed.
func (e *testEdge) raw(request string) answer {
	e.t.Helper()
	conn, err := net.Dial("tcp", e.Addr().String())
	if err != nil {
		e.t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		e.t.Fatal(err)
	}
	go func() { _, _ = io.WriteString(conn, request) }()
	method, _, _ := strings.Cut(request, " ")
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		return answer{err: err}
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(b), err}
}

func TestRawRequests(t *testing.T) {
	for _, c := range []struct {
		name, request string
		status        int
		body          string // "" means that the origin is not reached
	}{
		{"plain", "GET /a HTTP/1.1\r\nHost: www.example\r\nConnection: close\r\n\r\n", 200, "www.example /a"},
		{"no Host", "GET /a HTTP/1.1\r\n\r\n", 400, ""},                                             // RFC 9112, 3.2
		{"two Hosts", "GET /a HTTP/1.1\r\nHost: www.example\r\nHost: www.example\r\n\r\n", 400, ""}, // the same
		{"empty Host", "GET /a HTTP/1.1\r\nHost:\r\n\r\n", 400, ""},                                 // RFC 9110, 4.2.1
		{"malformed Host", "GET /a HTTP/1.1\r\nHost: www.example/b\r\n\r\n", 400, ""},
		{"HTTP/1.0 without Host", "GET /a HTTP/1.0\r\n\r\n", 421, ""},
		{"HTTP/1.0", "GET /a HTTP/1.0\r\nHost: www.example\r\n\r\n", 200, "www.example /a"},
		// RFC 9112, 3.2.2: the target's host counts, not the field's.
		{"absolute-form", "GET http://www.example/a?x HTTP/1.1\r\nHost: other.example\r\nConnection: close\r\n\r\n",
			200, "www.example /a?x"},
		{"absolute-form without path",
			"GET http://www.example?x HTTP/1.1\r\nHost: other.example\r\nConnection: close\r\n\r\n", 200,
			"www.example /?x"},
		{"absolute-form of another", "GET http://other.example/a HTTP/1.1\r\nHost: www.example\r\n\r\n", 421, ""},
		{"CONNECT", "CONNECT www.example:443 HTTP/1.1\r\nHost: www.example:443\r\n\r\n", 405, ""},
		{"not a path", "GET a HTTP/1.1\r\nHost: www.example\r\n\r\n", 400, ""},
		{"bad escape", "GET /%zz HTTP/1.1\r\nHost: www.example\r\n\r\n", 400, ""},
		{"a space in the target", "GET /a b HTTP/1.1\r\nHost: www.example\r\n\r\n", 400, ""},
		// RFC 9112, 6.1 to 6.3: framing that can be read in two ways smuggles requests.
		{"length and chunked", "POST /a HTTP/1.1\r\nHost: www.example\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n1\r\nx\r\n0\r\n\r\n", 200, "www.example /a x"},
		{"two lengths", "POST /a HTTP/1.1\r\nHost: www.example\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
			400, ""},
		{"a list of lengths", "POST /a HTTP/1.1\r\nHost: www.example\r\nContent-Length: 4, 5\r\n\r\nabcde", 400, ""},
		{"negative length", "POST /a HTTP/1.1\r\nHost: www.example\r\nContent-Length: -1\r\n\r\n", 400, ""},
		{"length with plus", "POST /a HTTP/1.1\r\nHost: www.example\r\nContent-Length: +4\r\n\r\nabcd", 400, ""},
		{"unknown coding", "POST /a HTTP/1.1\r\nHost: www.example\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
			501, ""},
		{"obfuscated coding", "POST /a HTTP/1.1\r\nHost: www.example\r\nTransfer-Encoding: xchunked\r\nContent-Length: 4\r\n\r\nabcd", 501, ""},
		{"two codings", "POST /a HTTP/1.1\r\nHost: www.example\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", 501, ""},
		{"space before the colon", "POST /a HTTP/1.1\r\nHost: www.example\r\nContent-Length : 4\r\n\r\nabcd", 400, ""},
		{"folded first field", "GET /a HTTP/1.1\r\n Host: www.example\r\n\r\n", 400, ""},
		// RFC 9112, 5.2: or a space
		{"folded field", "GET /a HTTP/1.1\r\nHost: www.example\r\nX: a\r\n b\r\nConnection: close\r\n\r\n", 200,
			"www.example /a"},
		// RFC 9112, 2.2: may
		{"bare LF", "GET /a HTTP/1.1\nHost: www.example\nConnection: close\n\n", 200, "www.example /a"},
		{"bare CR", "GET /a HTTP/1.1\r\nHost: www.example\r\nX: a\rb\r\n\r\n", 400, ""},
		{"NUL in a field", "GET /a HTTP/1.1\r\nHost: www.example\r\nX: a\x00b\r\n\r\n", 400, ""},
		{"NUL in a name", "GET /a HTTP/1.1\r\nHost: www.example\r\nX\x00: a\r\n\r\n", 400, ""},
		{"NUL in the target", "GET /a\x00 HTTP/1.1\r\nHost: www.example\r\n\r\n", 400, ""},
		{"field without a name", "GET /a HTTP/1.1\r\nHost: www.example\r\n: a\r\n\r\n", 400, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := newEdge(t, func(w http.ResponseWriter, r *http.Request) {
				b, _ := io.ReadAll(r.Body)
				_, _ = io.WriteString(w, strings.TrimSuffix(r.Host+" "+r.RequestURI+" "+string(b), " "))
			})
			got := e.raw(c.request)
			if got.status != c.status || c.body != "" && got.body != c.body {
				t.Errorf("got %d, %q, %v, want %d, %q", got.status, got.body, got.err, c.status, c.body)
			}
			if reached := e.hits.Load() > 0; reached != (c.body != "") {
				t.Errorf("the origin was reached: %v", reached)
			}
		})
	}
}

// TestChunkedRequestEndsItsConnection holds that nothing behind a request with both framings is
// read as another one (RFC 9112, 6.1). net/http does not tell whether Content-Length was there too,
// so all chunked requests end theirs.
func TestChunkedRequestEndsItsConnection(t *testing.T) {
	overProtocols(t, testChunkedRequestEndsItsConnection)
}

func testChunkedRequestEndsItsConnection(t *testing.T, p protocol) {
	e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
	c, err := net.Dial("tcp", e.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.WriteString(c, "POST /a HTTP/1.1\r\nHost: www.example\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"+
		"GET /smuggled HTTP/1.1\r\nHost: www.example\r\n\r\n")
	all, _ := io.ReadAll(c) // up to the connection's end, which may be a reset because of what was not read
	if n := strings.Count(string(all), "HTTP/1.1 "); n != 1 {
		t.Errorf("%d responses: %q", n, all)
	}
	e.wantHits(1)
}

func TestHealthAndMetrics(t *testing.T) { overProtocols(t, testHealthAndMetrics) }

func testHealthAndMetrics(t *testing.T, p protocol) {
	e := p.newEdge(t, static("hello", "Cache-Control: max-age=1000"))
	e.get("/a").wants(t, 200, "hello")
	e.get("/a").wants(t, 200, "hello")
	for _, host := range []string{"www.example", "anything.example"} {
		got := e.get(admin.HealthPath, "Host: "+host)
		got.wants(t, 200, "ok\n")
		if got.header.Get("Cache-Control") != "no-store" {
			t.Errorf("health on %s: %v", host, got.header)
		}
	}
	e.admin("GET", admin.HealthPath, "").wants(t, 200, "ok\n")
	e.wantHits(1)

	want := regexp.MustCompile(`(?s)kaiku_edge_body_bytes_total\{cache="hit",site="www"\} 5\n.*` +
		`kaiku_edge_requests_total\{cache="hit",site="www",status="200"\} 1\n.*` +
		`kaiku_edge_requests_total\{cache="miss",site="www",status="200"\} 1\n.*` +
		`kaiku_store_objects 1\n`)
	var metrics answer
	// A request is counted a moment after its client has the answer.
	testwait.Until(t, "the requests are counted", func() bool {
		metrics = e.admin("GET", "/metrics", "")
		return want.MatchString(metrics.body)
	})
	if metrics.status != 200 {
		t.Errorf("metrics: %d", metrics.status)
	}
}

// What is under way when an edge stops is finished, and no more is taken.
func TestShutdown(t *testing.T) { overProtocols(t, testShutdown) }

func testShutdown(t *testing.T, p protocol) {
	h, step := gated([]string{"Cache-Control: max-age=1000"}, "one", "two")
	e := p.newEdge(t, h)
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		step <- struct{}{}
	}()
	resp := e.open(context.Background(), "/a")
	wantNext(t, resp.Body, "one")
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		e.stop()
	}()
	testwait.Until(t, "no connection is taken any more", func() bool {
		conn, err := net.Dial("tcp", e.Addr().String())
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	select {
	case <-stopped:
		t.Error("the edge stopped before the request was finished")
	default:
	}
	<-sent
	close(step)
	wantRest(t, resp.Body, "two")
	<-stopped
}

func TestListenFails(t *testing.T) { overProtocols(t, testListenFails) }

func testListenFails(t *testing.T, p protocol) {
	e := p.newEdge(t, static("x"))
	taken := e.Addr().String()
	if err := (&Server{HTTP: taken, Store: e.Store}).Listen(t.Context()); err == nil ||
		!strings.Contains(err.Error(), taken) {
		t.Errorf("on a taken address: %v", err)
	}
	// Where the second listener fails, the first is closed again.
	addr := freeport.Addr(t)
	if err := (&Server{HTTP: addr, Admin: taken, Store: e.Store}).Listen(t.Context()); err == nil ||
		!strings.Contains(err.Error(), "(--admin, or edge.admin)") {
		t.Errorf("an admin listener on a taken address: %v", err)
	}
	again, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatalf("the first listener is still open: %v", err)
	}
	again.Close()
}
