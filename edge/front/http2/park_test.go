package http2

import (
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	xhttp2 "golang.org/x/net/http2"
)

// waitingPipe is the server's end of a pipe, and a Waiter.
type waitingPipe struct {
	net.Conn
	kept  []byte // what Wait has read
	waits atomic.Int64
}

func (p *waitingPipe) Wait() error {
	p.waits.Add(1)
	var b [1]byte
	n, err := p.Conn.Read(b[:])
	p.kept = append(p.kept, b[:n]...)
	return err
}

func (p *waitingPipe) Read(b []byte) (int, error) {
	if len(p.kept) > 0 {
		n := copy(b, p.kept)
		p.kept = p.kept[n:]
		return n, nil
	}
	return p.Conn.Read(b)
}

// pipeClient is a client whose connection is a pipe, so that its time may be that of synctest.
type pipeClient struct {
	*rawClient
	pipe   *waitingPipe
	frames chan xhttp2.FrameHeader
	served sync.WaitGroup
}

// dialPipe connects to s by a pipe. It answers pings.
func dialPipe(t *testing.T, s *Server) *pipeClient {
	near, far := net.Pipe()
	c := &pipeClient{rawClient: newRawClient(t, near), pipe: &waitingPipe{Conn: far},
		frames: make(chan xhttp2.FrameHeader, 100)}
	c.served.Go(func() { s.ServeConn(context.Background(), c.pipe) })
	go func() {
		defer close(c.frames)
		for {
			f, err := c.ReadFrame()
			if err != nil {
				return
			}
			c.frames <- f.Header()
		}
	}()
	if _, err := io.WriteString(near, xhttp2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	c.must(c.WriteSettings())
	return c
}

// answered waits for the end of a response.
func (c *pipeClient) answered(id uint32) bool {
	for f := range c.frames {
		if f.StreamID == id && f.Flags.Has(xhttp2.FlagDataEndStream) {
			return true
		}
	}
	return false
}

// A connection whose requests Ready answers is no idle connection.
func TestAnsweredConnectionStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Server{Handler: http.NotFoundHandler(), Ready: &plainReady{}}
		c := dialPipe(t, s)
		for i := range uint32(10) {
			time.Sleep(25 * time.Second)
			c.ask(1+2*i, true, "GET", "/")
			if !c.answered(1 + 2*i) {
				t.Fatalf("the connection ended after %d requests", i)
			}
		}
		_ = c.Close()
		c.served.Wait()
	})
}

// plainReady has one answer for all requests.
type plainReady struct{}

func (plainReady) Open(Conn) any { return true }

func (plainReady) Find(_ any, _ *Request, b []byte) ([]byte, Answer, bool) {
	return AppendField(AppendStatus(b, 200), "content-length", "1"), Answer{Body: []byte("x")}, true
}

// An idle connection holds nothing to read with. It answers when the client asks again, and the
// deadlines hold for it too.
func TestParked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(500 * time.Millisecond)
			_, _ = io.WriteString(w, r.URL.Path)
		})}
		c := dialPipe(t, s)
		for i := range uint32(3) {
			id := 1 + 4*i
			b := c.headersOf("GET", "/")
			// The header block comes in two parts, with time between.
			frame := appendFrame(nil, len(b), xhttp2.FrameHeaders,
				xhttp2.FlagHeadersEndHeaders|xhttp2.FlagHeadersEndStream, id)
			frame = append(frame, b...)
			cut := []int{1, 5, 9}[i]
			for _, part := range [][]byte{frame[:cut], frame[cut:]} {
				if _, err := c.Write(part); err != nil {
					t.Fatal(err)
				}
				time.Sleep(3 * time.Second)
			}
			if !c.answered(id) {
				t.Fatal("the connection ended")
			}
			time.Sleep(20 * time.Second)
			if n := c.pipe.waits.Load(); n <= int64(i) {
				t.Errorf("parked %d times, after %d requests", n, i+1)
			}
		}
		for range c.frames { // until the client is given up: it answers no ping
		}
		c.served.Wait()
		_ = c.Close()
	})
}
