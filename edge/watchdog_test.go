package edge

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/kaiku-cdn/kaiku/edge/admin"
	"github.com/kaiku-cdn/kaiku/edge/front"
	"github.com/kaiku-cdn/kaiku/edge/site"
	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// few lets so many writes wait before slow ones are given up.
func few(n int) func(*Server, *site.Site) { return func(s *Server, _ *site.Site) { s.maxWaiting = n } }

// stall has a client ask n times for what it does not take.
func (e *testEdge) stall(path string, n int) *attacker {
	e.t.Helper()
	a := e.attack(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	go a.drain()
	for range n {
		if _, err := a.ask(path); err != nil {
			e.t.Fatal(err)
		}
	}
	return a
}

// wantWhole has a client of HTTP/2 fetch a body of size bytes.
func (e *testEdge) wantWhole(path string, size int64) {
	e.t.Helper()
	resp, err := e.newClientOf(protoHTTP2).Get("https://www.example" + path)
	if err != nil {
		e.t.Fatal(err)
	}
	defer resp.Body.Close()
	if n, err := io.Copy(io.Discard, resp.Body); err != nil || n != size {
		e.t.Fatalf("%d bytes, %v", n, err)
	}
}

// Clients that take nothing are given up, with the places that they hold, however little they asked
// for.
func TestStalledClients(t *testing.T) {
	e := newSecure(t, static(strings.Repeat("x", 32<<10), "Cache-Control: max-age=1000"), 1)
	e.stall("/a", 50)
	testwait.Until(t, "all wait to write", func() bool { return e.front.Waiting() == 50 })
	e.front.Expire(time.Now().Add(front.SendTimeout - time.Minute/2))
	if n := e.front.Waiting(); n != 50 {
		t.Errorf("%d wait before their time is over", n)
	}
	e.front.Expire(time.Now().Add(front.SendTimeout))
	testwait.Until(t, "they are given up", func() bool { return e.front.Active() == 0 })
}

// Slow readers of large bodies hold a buffer each; when there are too many, those who have taken
// nothing for a while are given up.
func TestSlowReaders(t *testing.T) {
	const size, most, slow = 8 << 20, 40, 50
	e := newSecure(t, static(strings.Repeat("x", size), "Cache-Control: max-age=1000"), 1, few(most))
	e.wantWhole("/large", size)
	e.settle()
	before := heap()
	e.stall("/large", slow)
	testwait.Until(t, "all wait to write", func() bool { return e.front.Waiting() == slow })
	if grown := heap() - before; grown > slow*(512<<10) {
		t.Errorf("the heap grew by %d KiB for each slow reader", grown/slow>>10)
	}
	e.wantWhole("/large", size)
	e.front.Expire(time.Now().Add(front.SlowSend))
	testwait.Until(t, "those over the limit are given up", func() bool { return e.front.Waiting() == most })
	e.wantWhole("/large", size)
	e.front.Expire(time.Now().Add(front.SendTimeout))
	testwait.Until(t, "all are given up", func() bool { return e.front.Active() == 0 })
}

// A client of HTTP/2 whose connection takes nothing at all can't be told that its requests are
// given up. It goes, with what it holds.
func TestStuckConnection(t *testing.T) {
	e := newSecure(t, static(strings.Repeat("x", 8<<20), "Cache-Control: max-age=1000"), 1)
	a := e.attack(http2.Setting{ID: http2.SettingInitialWindowSize, Val: math.MaxInt32})
	if err := a.WriteWindowUpdate(0, math.MaxInt32-1<<16); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if _, err := a.ask("/large"); err != nil {
			t.Fatal(err)
		}
	}
	testwait.Until(t, "all wait to write", func() bool { return e.front.Waiting() == 20 })
	begun := time.Now()
	e.front.Expire(begun.Add(front.SendTimeout))
	if e.front.Active() == 0 {
		t.Fatal("the connection still takes something, so that this shows nothing")
	}
	e.front.Expire(begun.Add(front.SendTimeout + front.SlowSend + time.Second))
	testwait.Until(t, "it is gone", func() bool { return e.front.Active() == 0 && e.front.Waiting() == 0 })
}

// However many requests stall, no more than a number wait: the connection of the oldest is ended.
func TestTooManySenders(t *testing.T) {
	e := newSecure(t, static(strings.Repeat("x", 1<<20), "Cache-Control: max-age=1000"), 1, few(8))
	e.wantWhole("/a", 1<<20)
	first := e.stall("/a", 20)
	testwait.Until(t, "the first wait", func() bool { return e.front.Waiting() == 20 })
	e.stall("/a", 20)
	testwait.Until(t, "only the others wait", func() bool { return e.front.Active() == 20 && e.front.Waiting() == 20 })
	if _, err := first.conn.Read(make([]byte, 1)); err == nil {
		t.Error("the first connection is still there")
	}
	e.wantWhole("/a", 1<<20)
}

// Requests of one connection share its line, so that each is written in pieces, of which a hundred
// may wait.
func TestPieces(t *testing.T) {
	e := newSecure(t, static(strings.Repeat("x", 1<<20), "Cache-Control: max-age=1000"), 1)
	e.wantWhole("/a", 1<<20)
	before := e.Sent()
	a := e.attack(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 200 << 10})
	if err := a.WriteWindowUpdate(0, 1<<20); err != nil {
		t.Fatal(err)
	}
	go a.drain()
	if _, err := a.ask("/a"); err != nil {
		t.Fatal(err)
	}
	testwait.Until(t, "three pieces are sent of what the window lets through",
		func() bool { return e.Sent()-before == 3*front.SendPiece })
}

// A user who scrolls a map takes many requests back, more than half of all, and is no flood.
func TestTakenBack(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	e := newSecure(t, func(http.ResponseWriter, *http.Request) { <-release }, 1)
	a := e.attack()
	go a.drain()
	for i := range 190 {
		id, err := a.ask(fmt.Sprintf("/%d", i))
		testwait.Until(t, "it has come", func() bool { return e.front.Active() == 1 })
		if err == nil {
			err = a.WriteRSTStream(id, http2.ErrCodeCancel)
		}
		if err != nil {
			t.Fatalf("after %d: %v", i, err)
		}
		testwait.Until(t, "it is taken back", func() bool { return e.front.Active() == 0 })
	}
	if n := counted(t, e, "kaiku_edge_connections_flooding_total"); n != 0 {
		t.Error("the client counts as a flood")
	}
}

// narrow has little room for what clients don't read.
type narrow struct{ net.Listener }

func (l narrow) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return c, c.(*net.TCPConn).SetWriteBuffer(4 << 10)
}

// A client that asks for many small responses and reads none is given up, though the server sends
// those after the handler has returned.
func TestSmallResponsesThatNobodyReads(t *testing.T) {
	for _, request := range []string{"GET " + admin.HealthPath, "HEAD /a"} {
		for _, secure := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s secure %v", request, secure), func(t *testing.T) {
				e := newSecure(t, func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("X-Filler", strings.Repeat("a", 3000))
					w.WriteHeader(http.StatusNotFound)
				}, 1, func(s *Server, _ *site.Site) {
					s.lastWrite = time.Second / 10
					s.ListenTCP = func(ctx context.Context, addr string) (net.Listener, error) {
						l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
						return narrow{l}, err
					}
				})
				addr := e.Addr()
				if secure {
					addr = e.SecureAddr()
				}
				conn, err := net.DialTCP("tcp", nil, addr.(*net.TCPAddr))
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				if err := conn.SetReadBuffer(4 << 10); err != nil {
					t.Fatal(err)
				}
				to := net.Conn(conn)
				if secure {
					to = tls.Client(conn, e.trust())
				}
				many := []byte(strings.Repeat(request+" HTTP/1.1\r\nHost: www.example\r\n\r\n", 200))
				ended := make(chan error, 1)
				go func() {
					for {
						if _, err := to.Write(many); err != nil {
							ended <- err
							return
						}
					}
				}()
				testwait.Until(t, "the connection is ended", func() bool {
					// what waits in a handler is not what this is about
					e.front.Expire(time.Now().Add(front.SendTimeout + front.SlowSend))
					return len(ended) > 0
				})
			})
		}
	}
}
