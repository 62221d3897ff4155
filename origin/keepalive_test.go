package origin

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"
)

// keepAliveServer is an HTTP/1.1 server, with or without TLS, whose responses have a Keep-Alive
// field. Unless keepsOpen is set, it closes a connection when a second request arrives, like a
// server whose idle timeout expires at that moment.
type keepAliveServer struct {
	url         string
	tls         *tls.Config
	keepAlive   string
	keepsOpen   bool
	connections atomic.Int64
	requests    atomic.Int64
}

func (s *keepAliveServer) start(t *testing.T, secure bool) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	s.url = "http://" + l.Addr().String()
	if secure {
		h := httptest.NewTLSServer(nil) // provides a certificate
		t.Cleanup(h.Close)
		roots := x509.NewCertPool()
		roots.AddCert(h.Certificate())
		s.url, s.tls = "https://"+l.Addr().String(), &tls.Config{RootCAs: roots}
		l = tls.NewListener(l, &tls.Config{Certificates: h.TLS.Certificates})
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.connections.Add(1)
			go s.serve(c)
		}
	}()
}

func (s *keepAliveServer) serve(c net.Conn) {
	defer c.Close()
	in := bufio.NewReader(c)
	for first := true; ; first = false {
		if !first && !s.keepsOpen {
			_, _ = in.Peek(1)
			return
		}
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, r.Body)
		s.requests.Add(1)
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n%s\r\nok", s.keepAlive)
	}
}

// A connection that was idle for almost as long as its server allows gets no further request, so
// that a POST is not lost. Other connections are reused.
func TestKeepAliveHint(t *testing.T) {
	for _, c := range []struct {
		name, hint string
		keeps      bool
		idle       time.Duration
		reused     bool // the connection is reused
	}{
		{"the time is nearly over", "Keep-Alive: timeout=1\r\n", false, 510 * time.Millisecond, false},
		{"no time at all", "Keep-Alive: timeout=0\r\n", false, 0, false},
		{"there is time", "Keep-Alive: timeout=100, max=5\r\n", true, 0, true},
		{"nothing is said", "", true, 0, true},
		{"nothing is said of the time", "Keep-Alive: max=100\r\n", true, 0, true},
	} {
		for _, secure := range []bool{false, true} {
			for _, length := range []int64{0, 4, -1} {
				t.Run(fmt.Sprintf("%s, TLS %t, a body of %d", c.name, secure, length), func(t *testing.T) {
					s := &keepAliveServer{keepAlive: c.hint, keepsOpen: c.keeps}
					s.start(t, secure)
					p := startPool(t, &Pool{Servers: []Server{serverAt(t, s.url)}, TLS: s.tls, SNI: "example.com",
						Log: discardLog})
					for range 3 {
						body := ""
						if length != 0 {
							body = "body"
						}
						r := request(t, "POST", "/", body)
						r.ContentLength = length
						if got, err := fetchBody(t, p, r); err != nil || got != "ok" {
							t.Fatalf("got %q, %v", got, err)
						}
						time.Sleep(c.idle) // lets the connection become idle for at least this long
					}
					if n := s.connections.Load(); (n < 3) != c.reused || s.requests.Load() != 3 {
						t.Errorf("%d requests on %d connections", s.requests.Load(), n)
					}
					wantNoFailures(t, p)
				})
			}
		}
	}
}

func FuzzKeepAlive(f *testing.F) {
	f.Add("timeout=5, max=100")
	f.Add("max=1,TIMEOUT = 0")
	f.Add("timeout=99999999999999999999")
	f.Fuzz(func(t *testing.T, line string) {
		idle, ok := keepAlive(http.Header{"Keep-Alive": {line}})
		if idle < 0 || !ok && idle != 0 {
			t.Errorf("%q: %v, %t", line, idle, ok)
		}
	})
}
