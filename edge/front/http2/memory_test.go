//go:build !race

// The race detector makes everything larger.

package http2

import (
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	xhttp2 "golang.org/x/net/http2"
)

// quietConn is a Waiter that holds little. Its client sends what is in it, and then nothing.
type quietConn struct {
	net.Conn // nil; the other methods aren't called
	in       string
	ended    chan struct{}
	mu       sync.Mutex
	until    time.Time
}

func (c *quietConn) Read(b []byte) (int, error) {
	if c.in == "" {
		return 0, c.Wait()
	}
	n := copy(b, c.in)
	c.in = c.in[n:]
	return n, nil
}

func (c *quietConn) Wait() error {
	c.mu.Lock()
	left := time.Until(c.until)
	c.mu.Unlock()
	select {
	case <-c.ended:
		return io.EOF
	case <-time.After(left):
		return os.ErrDeadlineExceeded
	}
}

func (c *quietConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.until = t
	return nil
}

func (*quietConn) Write(p []byte) (int, error)      { return len(p), nil }
func (*quietConn) SetWriteDeadline(time.Time) error { return nil }
func (*quietConn) Close() error                     { return nil }
func (*quietConn) RemoteAddr() net.Addr             { return nil }
func (*quietConn) LocalAddr() net.Addr              { return nil }

// held returns the bytes of the heap and of stacks that are in use.
func held() int {
	for range 3 { // the first ones shrink stacks
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc + m.StackInuse)
}

// What a connection and a stream hold is within what the package comment says.
func TestMemoryOfIdle(t *testing.T) {
	for _, c := range []struct {
		name         string
		conns, asked int
		limit        int // bytes of each
	}{{"connections", 500, 0, 8 << 10}, {"streams", 10, 50, 8 << 10}} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				release := make(chan struct{})
				s := &Server{Limits: Limits{PingAfter: time.Hour, IdleTimeout: time.Hour}, Ready: &plainReady{},
					Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release })}
				var b []byte
				client := newRawClient(t, nil)
				in := xhttp2.ClientPreface + string(appendFrame(nil, 0, xhttp2.FrameSettings, 0, 0))
				for i := range 1 + c.asked {
					method, flags := "GET", xhttp2.FlagHeadersEndHeaders|xhttp2.FlagHeadersEndStream
					if i > 0 {
						method = "POST"
					}
					block := client.headersOf(method, "/")
					b = append(appendFrame(b, len(block), xhttp2.FrameHeaders, flags, uint32(1+2*i)), block...)
				}
				in += string(b)
				before := held()
				ended := make(chan struct{})
				var served sync.WaitGroup
				for range c.conns {
					served.Go(func() { s.ServeConn(t.Context(), &quietConn{in: in, ended: ended}) })
				}
				time.Sleep(5 * time.Second)
				synctest.Wait()
				number := c.conns * max(1, c.asked)
				each := (held() - before) / number
				t.Logf("each of %d %s holds %d bytes", number, c.name, each)
				if each > c.limit {
					t.Errorf("each of the %s holds %d bytes, of %d at most", c.name, each, c.limit)
				}
				close(release)
				close(ended)
				served.Wait()
			})
		})
	}
}
