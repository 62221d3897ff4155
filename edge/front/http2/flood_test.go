package http2

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"
)

var largeField = strings.Repeat("y", 4000)

// postNumber sends the header block of a request with a method that has a body.
func postNumber(c *rawClient, i int, end bool) error {
	return c.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: uint32(2*i + 1),
		BlockFragment: c.headersOf("POST", "/"), EndHeaders: true, EndStream: end})
}

// floods are attacks: once is one step, which the client repeats, and code is the error code of the
// GOAWAY that ends it. 0 means ENHANCE_YOUR_CALM.
var floods = []struct {
	name string
	once func(c *rawClient, i int) error
	code xhttp2.ErrCode
}{
	{name: "rapid reset", once: func(c *rawClient, i int) error {
		return errors.Join(postNumber(c, i, true), c.WriteRSTStream(uint32(2*i+1), xhttp2.ErrCodeCancel))
	}},
	{name: "resets by too large a window", once: func(c *rawClient, i int) error {
		return errors.Join(postNumber(c, i, true), c.WriteWindowUpdate(uint32(2*i+1), 1<<31-1))
	}},
	{name: "resets by an empty window", once: func(c *rawClient, i int) error {
		return errors.Join(postNumber(c, i, true), c.WriteWindowUpdate(uint32(2*i+1), 0))
	}},
	{name: "resets by DATA after the end", once: func(c *rawClient, i int) error {
		return errors.Join(postNumber(c, i, true), c.WriteData(uint32(2*i+1), false, []byte("x")))
	}},
	{name: "resets by a second header block", once: func(c *rawClient, i int) error {
		return errors.Join(postNumber(c, i, true), postNumber(c, i, true))
	}},
	{name: "resets by a stream that depends on itself", once: func(c *rawClient, i int) error {
		return errors.Join(postNumber(c, i, true),
			c.WritePriority(uint32(2*i+1), xhttp2.PriorityParam{StreamDep: uint32(2*i + 1)}))
	}},
	{name: "resets by a PRIORITY of another length", once: func(c *rawClient, i int) error {
		return errors.Join(postNumber(c, i, true), c.WriteRawFrame(xhttp2.FramePriority, 0, uint32(2*i+1),
			[]byte("abc")))
	}, code: xhttp2.ErrCodeFrameSize},
	{name: "malformed requests", once: func(c *rawClient, i int) error {
		return c.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: uint32(2*i + 1),
			BlockFragment: c.headersOf("GET", "/", "Upper", "x"), EndHeaders: true, EndStream: true})
	}},
	{name: "requests with too large fields", once: func(c *rawClient, i int) error {
		var fields []string
		for range 17 { // each is one byte once HPACK's table has it
			fields = append(fields, "x-large", largeField)
		}
		return c.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: uint32(2*i + 1),
			BlockFragment: c.headersOf("GET", "/", fields...), EndHeaders: true, EndStream: true})
	}},
	{name: "requests without end", once: func(c *rawClient, i int) error { return postNumber(c, i, false) }},
	{name: "pings", once: func(c *rawClient, _ int) error { return c.WritePing(false, [8]byte{1}) }},
	{name: "answers to no ping", once: func(c *rawClient, _ int) error { return c.WritePing(true, [8]byte{1}) }},
	{name: "settings", once: func(c *rawClient, _ int) error {
		return c.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 1000})
	}},
	{name: "acknowledgements", once: func(c *rawClient, _ int) error { return c.WriteSettingsAck() }},
	{name: "empty data", once: func(c *rawClient, i int) error {
		if i == 0 {
			return postNumber(c, 0, false)
		}
		return c.WriteData(1, false, nil)
	}},
	{name: "padding", once: func(c *rawClient, i int) error {
		if i == 0 {
			return postNumber(c, 0, false)
		}
		return c.WriteDataPadded(1, false, nil, make([]byte, 255))
	}},
	{name: "window updates", once: func(c *rawClient, _ int) error { return c.WriteWindowUpdate(0, 1) }},
	{name: "priorities", once: func(c *rawClient, i int) error {
		return c.WritePriority(uint32(2*i+1), xhttp2.PriorityParam{})
	}},
	{name: "priority updates", once: func(c *rawClient, i int) error {
		return c.WritePriorityUpdate(uint32(2*i+1), "u=1")
	}},
	{name: "unknown frames", once: func(c *rawClient, _ int) error {
		return c.WriteRawFrame(0xbb, 0, 0, []byte("x"))
	}},
	{name: "goodbyes", once: func(c *rawClient, _ int) error { return c.WriteGoAway(0, xhttp2.ErrCodeNo, nil) }},
	{name: "continuations", once: func(c *rawClient, i int) error {
		if i == 0 {
			return c.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: c.headersOf("GET", "/"),
				EndStream: true})
		}
		return c.WriteContinuation(1, false, nil)
	}},
	{name: "large continuations", once: func(c *rawClient, i int) error {
		if i == 0 {
			return c.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: c.headersOf("GET", "/"),
				EndStream: true})
		}
		c.buf.Reset()
		c.headersOf("GET", "/", "x-large", largeField)
		return c.WriteContinuation(1, false, c.buf.Bytes())
	}},
}

// An attack ends with GOAWAY and the end of the connection. Meanwhile the connection never has more
// handlers than twice Limits.MaxStreams.
func TestFloods(t *testing.T) {
	for _, f := range floods {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			var handlers, most atomic.Int64
			told := make(chan string, 1)
			s := start(t, func(_ http.ResponseWriter, r *http.Request) {
				n := handlers.Add(1)
				defer handlers.Add(-1)
				for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
				}
				<-r.Context().Done()
				time.Sleep(time.Millisecond) // a handler may return late
			}, func(s *Server) {
				s.Limits = Limits{MaxStreams: 10, Frames: 2000, ResetsEach: time.Hour}
				s.Flooding = func(_ net.Conn, why string) { told <- why }
			})
			c := s.dial()
			go func() {
				for i := range 100_000 {
					if f.once(c, i) != nil {
						return
					}
				}
			}()
			want := f.code
			if want == 0 {
				want = xhttp2.ErrCodeEnhanceYourCalm
			}
			if code, said := c.ended(); said && code != want {
				t.Errorf("ended with %v, want %v", code, want)
			}
			if len(told) != 1 && want == xhttp2.ErrCodeEnhanceYourCalm {
				t.Error("nobody was told")
			}
			if n := most.Load(); n > 20 {
				t.Errorf("%d handlers at once", n)
			}
		})
	}
}

// A client may cancel requests after it has received much of the responses, and may cancel few
// requests of many.
func TestHonestResets(t *testing.T) {
	s := start(t, func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(make([]byte, 1<<20)) },
		func(s *Server) {
			s.Limits = Limits{Resets: 5, ResetsEach: time.Hour}
		})
	c := s.client()
	for range 50 {
		resp, err := c.Get("https://example.com/")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.CopyN(io.Discard, resp.Body, 128<<10); err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	for range 50 {
		ctx, cancel := context.WithCancel(t.Context())
		r, _ := http.NewRequestWithContext(ctx, "GET", "https://example.com/", nil)
		resp, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.CopyN(io.Discard, resp.Body, 1<<20)
		resp.Body.Close()
		cancel()
	}
}

// The memory of requests under way is bounded. For bodies that no handler reads, the bound is the
// window of the connection. For responses that the client doesn't take, it is a buffer a handler.
func TestMemory(t *testing.T) {
	release := make(chan struct{})
	s := start(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "GET" {
			_, _ = w.Write(huge)
			return
		}
		<-release
	})
	before := heap()
	for _, method := range []string{"POST", "GET"} {
		c := s.dial(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 1<<31 - 1})
		for i := range 90 {
			c.ask(uint32(2*i+1), method == "GET", method, "/")
		}
		if method == "POST" {
			for i := range 60 {
				for range 1 {
					c.must(c.WriteData(uint32(2*i+1), false, make([]byte, 16<<10)))
				}
			}
		}
		c.must(c.WritePing(false, [8]byte{9}))
		if method == "POST" {
			c.until("the answer", func(f xhttp2.Frame) bool { p, ok := f.(*xhttp2.PingFrame); return ok && p.IsAck() })
		}
	}
	if grown := heap() - before; grown > 4<<20 {
		t.Errorf("the heap grew by %d KiB", grown>>10)
	}
	close(release)
}

var huge = make([]byte, 16<<20)

// heap returns the bytes of the heap in use after a garbage collection.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse)
}
