package edge

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/site"
	"github.com/kaiku-cdn/kaiku/origin"
)

// lineOrigin is a server of HTTP/1.1 that is told what to do with each connection. It closes what
// it took when the test ends.
func lineOrigin(t testing.TB, serve func(c net.Conn, in *bufio.Reader)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			stop := context.AfterFunc(t.Context(), func() { c.Close() })
			go func() {
				defer stop()
				defer c.Close()
				serve(c, bufio.NewReader(c))
			}()
		}
	}()
	return "http://" + l.Addr().String()
}

// readHead reads a header block of a request, and returns its first line and its fields.
func readHead(in *bufio.Reader) (target, fields string, err error) {
	line, err := in.ReadString('\n')
	if err != nil {
		return "", "", err
	}
	_, target, _ = strings.Cut(line, " ")
	target, _, _ = strings.Cut(target, " ")
	for {
		f, err := in.ReadString('\n')
		if err != nil {
			return "", "", err
		}
		if f == "\r\n" {
			return target, fields, nil
		}
		fields += f
	}
}

// earlyOrigins are servers that answer with the status that a path names once they have a header
// block, and read nothing of the body before. Each returns its URL, and changes the site to trust
// it.
var earlyOrigins = map[string]func(t *testing.T) (string, func(*Server, *site.Site)){
	"HTTP/1.1": func(t *testing.T) (string, func(*Server, *site.Site)) {
		return rawEarly(t, "Content-Length: 3\r\n\r\nno\n", false), nil
	},
	"HTTP/1.1 with an empty body": func(t *testing.T) (string, func(*Server, *site.Site)) {
		return rawEarly(t, "Content-Length: 0\r\n\r\n", false), nil
	},
	"HTTP/1.1 with chunks": func(t *testing.T) (string, func(*Server, *site.Site)) {
		return rawEarly(t, "Transfer-Encoding: chunked\r\n\r\n3\r\nno\n\r\n0\r\n\r\n", false), nil
	},
	"HTTP/1.1 that closes": func(t *testing.T) (string, func(*Server, *site.Site)) {
		return rawEarly(t, "Connection: close\r\nContent-Length: 3\r\n\r\nno\n", true), nil
	},
	"HTTP/2": func(t *testing.T) (string, func(*Server, *site.Site)) {
		s := httptest.NewUnstartedServer(http.HandlerFunc(serveEarly))
		s.EnableHTTP2 = true
		s.StartTLS()
		t.Cleanup(s.Close)
		return s.URL, trusting(s)
	},
}

// trusting has a site trust a test server.
func trusting(s *httptest.Server) func(*Server, *site.Site) {
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	return func(_ *Server, site *site.Site) {
		site.Origin.Origin.TLS, site.Origin.Origin.SNI = &tls.Config{RootCAs: roots}, "example.com"
	}
}

func serveEarly(w http.ResponseWriter, r *http.Request) {
	var status int
	fmt.Sscanf(r.URL.Path, "/%d", &status)
	_ = http.NewResponseController(w).EnableFullDuplex()
	w.WriteHeader(status)
	_, _ = io.WriteString(w, "no\n")
}

func rawEarly(t *testing.T, rest string, closes bool) string {
	return lineOrigin(t, func(c net.Conn, in *bufio.Reader) {
		target, _, err := readHead(in)
		if err != nil {
			return
		}
		fmt.Fprintf(c, "HTTP/1.1 %s Early\r\n%s", target[1:4], rest)
		if !closes {
			_, _ = io.Copy(io.Discard, in)
		}
	})
}

// newBefore starts an edge for clients of all protocols before an origin.
func newBefore(t *testing.T, addr string, change func(*Server, *site.Site)) *testEdge {
	t.Helper()
	u, err := url.Parse(addr)
	if err != nil {
		t.Fatal(err)
	}
	return newSecure(t, static(""), 1, func(s *Server, site *site.Site) {
		site.Origin.Origin.Servers = []origin.Server{{URL: u}}
		if change != nil {
			change(s, site)
		}
	})
}

// earlyClients are clients by the name of their protocol.
var earlyClients = map[string]protocol{"HTTP/1.1": protoHTTP1, "HTTP/1.1 over TLS": protoTLS1, "HTTP/2": protoHTTP2,
	"HTTP/3": protoHTTP3}

// An answer that comes before the request's body reaches the client at once, over every protocol,
// and a client that waits to be told to go on is not told to by anybody who does not want the body.
func TestEarlyAnswers(t *testing.T) {
	for from, begin := range earlyOrigins {
		t.Run("from "+from, func(t *testing.T) {
			addr, change := begin(t)
			e := newBefore(t, addr, change)
			for to, p := range earlyClients {
				for _, c := range []struct {
					name      string
					expect    bool
					sent      int
					announced int64
				}{
					{"waits to be told", true, 0, 5 << 20},
					{"waits to be told, with chunks", true, 0, -1},
					{"waits to be told, with little", true, 0, 10},
					{"has sent nothing", false, 0, 5 << 20},
					{"has sent a part", false, 10, 5 << 20},
					{"has sent a large part", false, 1 << 20, 5 << 20},
					{"has sent a part of little", false, 10, 1000},
					{"has sent a chunk", false, 10, -1},
				} {
					t.Run(to+", "+c.name, func(t *testing.T) {
						t.Parallel()
						for _, status := range []int{401, 413, 417, 200, 307} {
							e.wantEarly(t, p, status, c.expect, c.sent, c.announced, from)
						}
					})
				}
			}
		})
	}
}

// upload is a request whose body the test sends.
type upload struct {
	*http.Request
	client *http.Client
	body   *io.PipeWriter
	told   chan struct{} // gets one when the client is told to send the body
}

// newUpload begins a POST of a client of a protocol. The caller calls end.
func (e *testEdge) newUpload(p protocol, path string, expect bool, announced int64) (u *upload, end func()) {
	u = &upload{client: e.newClientOf(p), told: make(chan struct{}, 8)}
	if tr, ok := u.client.Transport.(*http.Transport); ok {
		tr.ExpectContinueTimeout = time.Hour
	}
	ctx, cancel := context.WithTimeout(e.t.Context(), 20*time.Second)
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{Got100Continue: func() { u.told <- struct{}{} }})
	in, out := io.Pipe()
	u.body = out
	context.AfterFunc(ctx, func() { out.Close() })
	r, err := http.NewRequestWithContext(ctx, "POST", p.scheme()+"://www.example"+path, in)
	if err != nil {
		e.t.Fatal(err)
	}
	r.ContentLength = announced
	if expect {
		r.Header.Set("Expect", "100-continue")
	}
	u.Request = r
	return u, func() {
		cancel()
		u.client.CloseIdleConnections()
	}
}

// do sends the request and reads the answer.
func (u *upload) do() answer {
	resp, err := u.client.Do(u.Request)
	if err != nil {
		return answer{err: err}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(body), err}
}

func (e *testEdge) wantEarly(t *testing.T, p protocol, status int, expect bool, sent int, announced int64,
	from string) {
	t.Helper()
	u, end := e.newUpload(p, fmt.Sprint("/", status), expect, announced)
	defer end()
	if sent > 0 {
		go func() { _, _ = u.body.Write(make([]byte, sent)) }()
	}
	want := "no\n"
	if strings.Contains(from, "empty") {
		want = ""
	}
	if a := u.do(); a.status != status || a.body != want || a.err != nil {
		t.Errorf("got %d, %q, %v, want %d, %q", a.status, a.body, a.err, status, want)
	}
	if len(u.told) > 0 {
		t.Errorf("%d: the client was told to send the body", status)
	}
}

// A client that waits to be told to send its body is told once when the origin wants it, and when
// the origin says nothing of it.
func TestExpectation(t *testing.T) {
	echo := func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body) // which has net/http say that it wants it
		if err != nil {
			return
		}
		fmt.Fprintf(w, "%s %s", r.Header.Get("Expect"), body)
	}
	for from, begin := range map[string]func() (string, func(*Server, *site.Site)){
		"HTTP/1.1": func() (string, func(*Server, *site.Site)) {
			s := httptest.NewServer(http.HandlerFunc(echo))
			t.Cleanup(s.Close)
			return s.URL, nil
		},
		"HTTP/2": func() (string, func(*Server, *site.Site)) {
			s := httptest.NewUnstartedServer(http.HandlerFunc(echo))
			s.EnableHTTP2 = true
			s.StartTLS()
			t.Cleanup(s.Close)
			return s.URL, trusting(s)
		},
		"HTTP/1.1 that says nothing": func() (string, func(*Server, *site.Site)) {
			return lineOrigin(t, func(c net.Conn, in *bufio.Reader) {
				for {
					if _, _, err := readHead(in); err != nil {
						return
					}
					body := make([]byte, 4)
					if _, err := io.ReadFull(in, body); err != nil {
						return
					}
					fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n %s", body)
				}
			}), nil
		},
	} {
		addr, change := begin()
		e := newBefore(t, addr, change)
		for to, p := range earlyClients {
			t.Run(from+" to "+to, func(t *testing.T) {
				u, end := e.newUpload(p, "/echo", true, 4)
				defer end()
				go func() {
					select {
					case <-u.told:
						_, _ = u.body.Write([]byte("body"))
						u.body.Close()
					case <-u.Context().Done():
					}
				}()
				a := u.do()
				if a.err != nil || a.status != 200 || !strings.HasSuffix(a.body, " body") {
					t.Errorf("got %d, %q, %v", a.status, a.body, a.err)
				}
				if from == "HTTP/1.1" && a.body != "100-continue body" {
					t.Errorf("the origin was sent %q, want the expectation", a.body)
				}
				if n := len(u.told); n > 0 {
					t.Errorf("the client was told %d times more", n)
				}
			})
		}
	}
}

// Nothing of a body that an early answer left unread is taken for a request, and a client that has
// sent all of it may go on on its connection.
func TestEarlyAnswersEndConnections(t *testing.T) {
	const smuggled = "GET /200 HTTP/1.1\r\nHost: www.example\r\n\r\n"
	e := newBefore(t, lineOrigin(t, func(c net.Conn, in *bufio.Reader) {
		for {
			_, fields, err := readHead(in)
			if err != nil {
				return
			}
			if strings.Contains(fields, "Content-Length: 4\r\n") {
				if _, err := in.Discard(4); err != nil {
					return
				}
			}
			fmt.Fprint(c, "HTTP/1.1 401 Early\r\nContent-Length: 3\r\n\r\nno\n")
			if strings.Contains(fields, "Content-Length: 1000") || strings.Contains(fields, "Transfer-Encoding") {
				_, _ = io.Copy(io.Discard, in)
			}
		}
	}), nil)
	for _, c := range []struct {
		name, framing, sent, rest string
		answers                   int
	}{
		{"a body that comes late", "Content-Length: 1000", "", smuggled, 1},
		{"chunks that come late", "Transfer-Encoding: chunked", "", smuggled, 1},
		{"a body that is not told to come", "Content-Length: 1000\r\nExpect: 100-continue", "", smuggled, 1},
		{"a large body", "Content-Length: 1000000", "", strings.Repeat(smuggled, 4000), 1},
		{"a body that the origin reads", "Content-Length: 4", "body", smuggled, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn, err := net.Dial("tcp", e.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
			fmt.Fprintf(conn, "POST /401 HTTP/1.1\r\nHost: www.example\r\n%s\r\n\r\n%s", c.framing, c.sent)
			in := bufio.NewReader(conn)
			read := func() (*http.Response, error) {
				resp, err := http.ReadResponse(in, nil)
				if err == nil {
					_, err = io.Copy(io.Discard, resp.Body)
				}
				return resp, err
			}
			resp, err := read()
			if err != nil || resp.StatusCode != 401 {
				t.Fatalf("got %v, %v, want 401", resp, err)
			}
			if resp.Close != (c.answers == 1) {
				t.Errorf("Connection: close is %t", resp.Close)
			}
			_, _ = io.WriteString(conn, c.rest)
			if resp, err = read(); (err == nil) != (c.answers == 2) {
				t.Errorf("the second answer is %v, %v", resp, err)
			}
		})
	}
}
