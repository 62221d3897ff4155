package origin

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// serveText starts a server that reads a request on each connection, sends what text returns, and
// closes the connection.
func serveText(t testing.TB, text func() string) (addr string) {
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
			head := make([]byte, 0, 1<<10)
			for !strings.Contains(string(head), "\r\n\r\n") {
				n, err := c.Read(head[len(head):cap(head)])
				if err != nil {
					break
				}
				head = head[:len(head)+n]
			}
			_, _ = io.WriteString(c, text())
			_ = c.(*net.TCPConn).CloseWrite()
			_, _ = io.Copy(io.Discard, c)
			c.Close()
		}
	}()
	return l.Addr().String()
}

// responseText is what a client sees of a response.
func responseText(resp *http.Response, err error) string {
	if err != nil {
		return "an error"
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return fmt.Sprintf("%d %s %d %v %q %q, error %t\n%q", resp.StatusCode, resp.Proto, resp.ContentLength, resp.Close,
		resp.Header, resp.Trailer, err != nil, body)
}

// Any response is read as net/http's client reads it.
func FuzzResponse(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok too much",
		"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: A\r\n\r\n2\r\nok\r\n0\r\nA: b\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
		"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 200 OK\r\n\r\nuntil the end",
		"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nok",
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
		"HTTP/1.1 200 OK\r\nA: b\r\n c\r\nConnection: close\r\n\r\n",
		"HTTP/1.1 200 OK\r\ncontent-length:  02 \r\nx-a: 1\r\nX-A:\t2\r\nConnection: Keep-Alive\r\nB:\r\n\r\nok",
		"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX A: 1\r\n\r\n", "HTTP/1.1 200 O\nK\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nA: \xe4\nB: c\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nPragma: no-cache\r\nContent-Length: +2\r\n\r\nok",
		"\r\nHTTP/1.1 200 OK\r\n\r\n", "HTTP/2.0 200 OK\r\n\r\n", "nonsense", "",
	} {
		f.Add(s, false)
		f.Add(s, true)
	}
	var text atomic.Value
	addr := serveText(f, func() string { return text.Load().(string) })
	p := startPool(f, &Pool{Servers: []Server{serverAt(f, "http://"+addr)}, Log: discardLog})
	reference := &http.Transport{DisableCompression: true, DisableKeepAlives: true, MaxResponseHeaderBytes: maxHeader,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, addr)
		}}
	f.Fuzz(func(t *testing.T, response string, head bool) {
		text.Store(response)
		method := http.MethodGet
		if head {
			method = http.MethodHead
		}
		r := request(t, method, "/", "")
		r.URL.Scheme, r.URL.Host = "http", "www.example"
		r.Header.Set("Connection", "close") // as the reference sends
		got := responseText(p.all[0].transport.Load().roundTrip(r, &probeProgress{}))
		r.Header.Del("Connection")
		want := responseText(reference.RoundTrip(r))
		if got != want && !strings.Contains(response, " 101") && strings.Count(response, "HTTP/") < maxInterim {
			t.Errorf("%q:\n%s\nnet/http has\n%s", response, got, want)
		}
	})
}

// A response that says 101 to a request without Upgrade is an error, and so is one whose interim
// responses don't end.
func TestResponsesThatNobodyAskedFor(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
		strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", maxInterim+1) + "HTTP/1.1 204 No Content\r\n\r\n",
		"HTTP/1.1 200 OK\r\nA: " + strings.Repeat("a", maxHeader) + "\r\n\r\n",
	} {
		addr := serveText(t, func() string { return text })
		p := startPool(t, &Pool{Servers: []Server{serverAt(t, "http://"+addr)}, Log: discardLog})
		if resp, err := p.Fetch(request(t, "GET", "/", ""), FetchOptions{}); err == nil {
			resp.Body.Close()
			t.Errorf("%.60q: status %d", text, resp.StatusCode)
		}
		noPlaceTaken(t, p)
	}
}

// An idle connection closes soon after its server has closed it.
func TestIdleConnectionsEnd(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p := startPool(t, &Pool{Servers: []Server{serverAt(t, "http://"+l.Addr().String())}, Log: discardLog})
	open := func() int { return p.Status().Servers[0].Connections }
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = c.Read(make([]byte, 1<<10))
		_, _ = io.WriteString(c, "HTTP/1.1 204 No Content\r\n\r\n")
	}()
	if _, err := fetchBody(t, p, request(t, "GET", "/", "")); err != nil {
		t.Fatal(err)
	}
	<-done
	testwait.Until(t, "none is open", func() bool { return open() == 0 })
}

// A server that no longer chooses HTTP/2 gets HTTP/1.1, and one that chooses it again gets HTTP/2.
func TestServerChangesProtocol(t *testing.T) {
	t.Parallel()
	cert, roots := selfSigned(t, time.Now().Add(time.Hour), "www.example")
	var http2 atomic.Bool
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%d %s", r.ProtoMajor, body)
	}))
	s.EnableHTTP2 = true
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	s.TLS.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		protocols := []string{"http/1.1"}
		if http2.Load() {
			protocols = []string{"h2", "http/1.1"}
		}
		return &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: protocols}, nil
	}
	s.StartTLS()
	defer s.Close()
	p := startPool(t, &Pool{Servers: []Server{serverAt(t, s.URL)}, Log: discardLog, SNI: "www.example",
		TLS: &tls.Config{RootCAs: roots}})
	for _, c := range []struct {
		http2 bool
		want  string
	}{{true, "2 body"}, {false, "1 body"}, {true, "2 body"}} {
		http2.Store(c.http2)
		s.CloseClientConnections()
		testwait.Until(t, "no connection is open", func() bool { return p.Status().Servers[0].Connections == 0 })
		if got, err := fetchBody(t, p, request(t, "POST", "/", "body")); err != nil || got != c.want {
			t.Errorf("HTTP/2 is %t: got %q, %v", c.http2, got, err)
		}
	}
	wantNoFailures(t, p)
}
