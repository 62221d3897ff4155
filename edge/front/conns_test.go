package front

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// A connection that never made a request doesn't delay the end for long. One whose request has
// begun to arrive is waited for.
func TestFreshConnections(t *testing.T) {
	e := newFront(t, answer("x")) // without a hit lane, whose rules differ
	dial := func() net.Conn {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", e.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	quiet, asks := dial(), dial()
	var fresh map[*clientConn]int64
	testwait.Until(t, "both are known", func() bool { fresh = e.conns.closeFresh(nil); return len(fresh) == 2 })
	begin := "GET /a HTTP/1.1\r\n"
	fmt.Fprint(asks, begin)
	testwait.Until(t, "the first line has come", func() bool {
		e.conns.mu.Lock()
		defer e.conns.mu.Unlock()
		for cc := range fresh {
			if cc.read.Load() == int64(len(begin)) {
				return true
			}
		}
		return false
	})
	e.conns.closeFresh(fresh)
	if _, err := quiet.Read(make([]byte, 1)); err == nil {
		t.Error("the connection that asks for nothing is still there")
	}
	fmt.Fprint(asks, "Host: www.example\r\nConnection: close\r\n\r\n")
	if b, err := io.ReadAll(asks); err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 200") {
		t.Errorf("%q, %v", b, err)
	}
}

// Connections are limited in all and by network. A closed one frees its place, and a new one may
// take the place of an idle one.
func TestConnections(t *testing.T) {
	c := newConns(3, 2, slog.New(slog.DiscardHandler))
	from := func(ip string) net.Addr { return &net.TCPAddr{IP: net.ParseIP(ip), Port: 1} }
	take := func(a net.Addr, want bool) func() {
		t.Helper()
		release, ok := c.admit(a)
		if ok != want {
			t.Fatalf("%v: %v, want %v", a, ok, want)
		}
		return release
	}
	first := take(from("2001:db8::1"), true)
	take(from("2001:db8::2"), true)
	take(from("2001:db8::3"), false) // in the same /64
	first()
	first() // a second call does nothing
	take(from("2001:db8::3"), true)
	take(from("203.0.113.1"), true)
	take(from("203.0.113.2"), false) // all places are taken
	var cut atomic.Int64
	idle := &client{cut: func() error { cut.Add(1); return nil }}
	c.markIdle(idle)
	take(from("203.0.113.2"), true)
	if cut.Load() != 1 {
		t.Error("the idle connection was not closed for the new one")
	}
	busy := &client{cut: idle.cut}
	c.markIdle(busy)
	c.begin(busy)
	take(from("203.0.113.3"), false)
	c.expire(time.Now().Add(time.Hour))
	c.finish(busy)
	c.expire(time.Now().Add(IdleTimeout))
	if cut.Load() != 1 {
		t.Error("a connection was cut that had something under way, or a moment ago")
	}
	c.expire(time.Now().Add(IdleTimeout + HeaderTimeout))
	if cut.Load() != 2 {
		t.Error("a connection that has asked for nothing for long is still there")
	}
}
