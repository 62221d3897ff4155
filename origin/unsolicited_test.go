package origin

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// newSurplusServer starts a server that sends extra data after each response.
func newSurplusServer(t *testing.T, response string, conf *tls.Config) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if conf != nil {
		l = tls.NewListener(l, conf)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for r := bufio.NewReader(c); ; {
					if _, err := http.ReadRequest(r); err != nil {
						return
					}
					_, _ = io.WriteString(c, response+"HTTP/1.1 418 No\r\nContent-Length: 4\r\n\r\nevil")
				}
			}()
		}
	}()
	return l.Addr().String()
}

// Data that a server sends after a response is never taken for another response, and ends the
// connection.
func TestSurplusIsNoAnswer(t *testing.T) {
	t.Parallel()
	cert, roots := selfSigned(t, time.Now().Add(time.Hour), "www.example")
	for _, c := range []struct {
		name, method, response string
		secure                 bool
	}{
		{"length", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwell", false},
		{"chunked", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nwell\r\n0\r\n\r\n", false},
		{"empty", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false},
		{"no content", "POST", "HTTP/1.1 204 No Content\r\n\r\n", false},
		{"HEAD", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n", false},
		{"TLS", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := &Pool{MaxConnections: 4, Host: "www.example", TLS: &tls.Config{RootCAs: roots}, Log: discardLog}
			if c.secure {
				p.Servers = []Server{serverAt(t,
					"https://"+newSurplusServer(t, c.response, &tls.Config{Certificates: []tls.Certificate{cert}}))}
			} else {
				p.Servers = []Server{serverAt(t, "http://"+newSurplusServer(t, c.response, nil))}
			}
			startPool(t, p)
			var evil atomic.Int64
			var work sync.WaitGroup
			for range 16 {
				work.Go(func() {
					for range 25 {
						resp, err := p.Fetch(request(t, c.method, "/", ""), FetchOptions{})
						if err != nil {
							t.Error(err)
							return
						}
						if resp.StatusCode == http.StatusTeapot {
							evil.Add(1)
						}
						_, _ = io.Copy(io.Discard, resp.Body)
						resp.Body.Close()
					}
				})
			}
			work.Wait()
			if n := evil.Load(); n > 0 {
				t.Errorf("%d of 400 requests were answered by what nobody asked for", n)
			}
			noPlaceTaken(t, p)
		})
	}
}

// A connection on which something has arrived since the last response gets no request.
func TestSurplusAfterTheResponse(t *testing.T) {
	t.Parallel()
	cert, roots := selfSigned(t, time.Now().Add(time.Hour), "www.example")
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("TLS %t", secure), func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			scheme, conf := "http", (*tls.Config)(nil)
			if secure {
				l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{cert}})
				scheme, conf = "https", &tls.Config{RootCAs: roots}
			}
			p := startPool(t, &Pool{Servers: []Server{serverAt(t, scheme+"://"+l.Addr().String())}, Log: discardLog})
			accepted := make(chan net.Conn, 1)
			go func() {
				c, _ := l.Accept()
				if s, ok := c.(*tls.Conn); ok {
					_ = s.Handshake()
				}
				accepted <- c
			}()
			c, err := p.open(t.Context(), p.all[0], "tcp", "www.example:443", conf)
			if err != nil {
				t.Fatal(err)
			}
			h := newHTTP1Conn(p.all[0].transport.Load(), c, "")
			h.idleSince = time.Now()
			defer h.close()
			server := <-accepted
			defer server.Close()
			for range 3 {
				if !h.isFit(time.Now()) {
					t.Fatal("it may have no request")
				}
			}
			_, _ = io.WriteString(server, "HTTP")
			testwait.Until(t, "it is unfit", func() bool { return !h.isFit(time.Now()) })
		})
	}
}
