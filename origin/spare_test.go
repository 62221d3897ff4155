package origin

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
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// closingServer is a server that closes each connection after its response. Connecting to it takes
// some milliseconds.
type closingServer struct {
	url       string
	tls       *tls.Config
	keepsOpen bool // keeps connections open instead

	mu          sync.Mutex
	open        map[net.Conn]bool
	maxOpen     int // maximum of len(open)
	requests    int
	unreachable atomic.Bool // dials block
	dials       atomic.Int64
}

func startClosing(t *testing.T, secure bool) *closingServer {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &closingServer{url: "http://" + l.Addr().String(), open: map[net.Conn]bool{}}
	if secure {
		h := httptest.NewTLSServer(nil) // provides a certificate
		t.Cleanup(h.Close)
		roots := x509.NewCertPool()
		roots.AddCert(h.Certificate())
		s.url, s.tls = "https://"+l.Addr().String(), &tls.Config{RootCAs: roots}
		l = tls.NewListener(l, &tls.Config{Certificates: h.TLS.Certificates})
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.open[c] = true
			s.maxOpen = max(s.maxOpen, len(s.open))
			s.mu.Unlock()
			go s.serve(c)
		}
	}()
	return s
}

func (s *closingServer) serve(c net.Conn) {
	defer func() {
		s.mu.Lock()
		delete(s.open, c)
		s.mu.Unlock()
		c.Close()
	}()
	in := bufio.NewReader(c)
	for {
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, r.Body)
		s.mu.Lock()
		s.requests++
		s.mu.Unlock()
		if s.keepsOpen {
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			continue
		}
		s.mu.Lock()
		delete(s.open, c) // before the pool learns that the connection ends
		s.mu.Unlock()
		fmt.Fprint(c, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
		return
	}
}

// pool starts a pool of this server.
func (s *closingServer) pool(t *testing.T, connections int) *Pool {
	return startPool(t, &Pool{Servers: []Server{serverAt(t, s.url)}, TLS: s.tls, SNI: "example.com", Log: discardLog,
		MaxConnections:      connections,
		BetweenBytesTimeout: time.Hour, // no test may depend on a write that times out
		Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			s.dials.Add(1)
			if s.unreachable.Load() {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			time.Sleep(2 * worthSpares) // makes connecting take long enough for spares
			return (&net.Dialer{}).DialContext(ctx, network, addr)
		}})
}

// get sends n requests for path concurrently.
func (s *closingServer) get(t *testing.T, p *Pool, method, path string, n int) {
	t.Helper()
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			body := ""
			if method == "POST" {
				body = "body"
			}
			if got, err := fetchBody(t, p, request(t, method, path, body)); err != nil || got != "ok" {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
	all.Wait()
}

// openSpares returns the number of open spares.
func openSpares(p *Pool) int {
	s := &p.all[0].spares
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, o := range s.list {
		select {
		case <-o.opened:
			n++
		default:
		}
	}
	return n
}

// keepSpares makes spares last for the whole test, however slow the machine is.
func keepSpares(p *Pool) {
	s := &p.all[0].spares
	s.mu.Lock()
	defer s.mu.Unlock()
	s.setupTime = time.Hour
}

// For a server that closes its connections, the pool opens connections in advance, as many as were
// needed lately. Requests use them and need not wait.
func TestSpares(t *testing.T) {
	for _, secure := range []bool{false, true} {
		for _, method := range []string{"GET", "POST"} {
			t.Run(fmt.Sprintf("%s, TLS %t", method, secure), func(t *testing.T) {
				s := startClosing(t, secure)
				p := s.pool(t, 0)
				s.get(t, p, "GET", "/", 1)
				keepSpares(p)
				s.get(t, p, "GET", "/", 6)
				testwait.Until(t, "as many are open as were needed", func() bool { return openSpares(p) == 7 })
				s.unreachable.Store(true)
				s.get(t, p, method, "/", 7)
				wantNoFailures(t, p)
			})
		}
	}
}

// A server that keeps its connections open gets no spares.
func TestNoSparesWhereConnectionsStay(t *testing.T) {
	s := startClosing(t, false)
	s.keepsOpen = true
	p := s.pool(t, 0)
	for range 20 {
		s.get(t, p, "GET", "/", 1)
	}
	keepSpares(p)
	s.get(t, p, "GET", "/", 1)
	if n := openSpares(p); n != 0 {
		t.Errorf("%d are open in advance", n)
	}
}

// Spares and used connections together stay within MaxConnections.
func TestSparesWithinMaxConnections(t *testing.T) {
	s := startClosing(t, false)
	p := s.pool(t, 4)
	s.get(t, p, "GET", "/", 1)
	keepSpares(p)
	for range 5 {
		s.get(t, p, "GET", "/", 4)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.maxOpen > 4 {
		t.Errorf("%d connections at a time", s.maxOpen)
	}
}

// A spare that the server has closed does not make a request fail.
func TestSpareThatTheServerClosed(t *testing.T) {
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("TLS %t", secure), func(t *testing.T) {
			s := startClosing(t, secure)
			p := s.pool(t, 0)
			s.get(t, p, "GET", "/", 1)
			keepSpares(p)
			s.get(t, p, "GET", "/", 3)
			testwait.Until(t, "as many are open as were needed", func() bool { return openSpares(p) == 4 })
			testwait.Until(t, "the server has them too", func() bool {
				s.mu.Lock()
				defer s.mu.Unlock()
				return len(s.open) == 4
			})
			s.mu.Lock()
			for c := range s.open {
				c.Close()
			}
			s.mu.Unlock()
			list := func() []*spareConn {
				s := &p.all[0].spares
				s.mu.Lock()
				defer s.mu.Unlock()
				return append([]*spareConn(nil), s.list...)
			}
			for _, o := range list() {
				testwait.Until(t, "its end has come", func() bool { return !isOpen(o.conn) })
			}
			s.get(t, p, "POST", "/", 4)
			wantNoFailures(t, p)
		})
	}
}

// Unused spares close by themselves, and all close with the pool.
func TestSparesEnd(t *testing.T) {
	connections := func(p *Pool) int { return p.Status().Servers[0].Connections }
	s := startClosing(t, false)
	p := s.pool(t, 0)
	s.get(t, p, "GET", "/", 1)
	s.get(t, p, "GET", "/", 6)
	testwait.Until(t, "there are none any more", func() bool { return connections(p) == 0 })
	keepSpares(p)
	s.get(t, p, "GET", "/", 1)
	testwait.Until(t, "one is open", func() bool { return openSpares(p) > 0 })
	p.Close()
	testwait.Until(t, "there are none after the end", func() bool { return connections(p) == 0 })
}

// When a burst begins, the pool opens as many spares as the previous burst needed, and half as many
// after each smaller burst. After a minute the previous bursts are forgotten.
func TestSparesOfBursts(t *testing.T) {
	s := &spares{connectionCloses: true, setupTime: 100 * time.Millisecond}
	now := time.Now()
	for _, c := range []struct {
		after       time.Duration
		needs, want int
	}{{0, 1, 1}, {time.Second, 12, 12}, {time.Second, 1, 12}, {time.Second, 1, 6}, {time.Second, 2, 3},
		{time.Second, 1, 2}, {time.Second, 20, 20}, {2 * time.Minute, 1, 1}, {50 * time.Millisecond, 1, 2}} {
		now = now.Add(c.after)
		for range c.needs {
			s.need(now)
		}
		if got := s.target(now); got != c.want {
			t.Errorf("after %v and %d needs: %d, want %d", c.after, c.needs, got, c.want)
		}
	}
}
