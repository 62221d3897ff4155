package http2

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// A client's reset, and the end of its connection, end the context of the request, its body and its
// response.
func TestResetEndsTheRequest(t *testing.T) {
	for name, end := range map[string]func(c *rawClient){
		"a reset":                 func(c *rawClient) { c.must(c.WriteRSTStream(1, xhttp2.ErrCodeCancel)) },
		"the end of a connection": func(c *rawClient) { _ = c.Close() },
		"a fault of the client's": func(c *rawClient) { c.must(c.WriteData(0, false, nil)) },
		"a fault of its stream's": func(c *rawClient) { c.must(c.WriteWindowUpdate(1, 0)) },
		"a frame that is too long": func(c *rawClient) {
			c.must(c.WriteRawFrame(xhttp2.FramePing, 0, 0,
				make([]byte, 1<<15)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			began, seen := make(chan bool), make(chan error, 3)
			s := start(t, func(w http.ResponseWriter, r *http.Request) {
				go func() {
					_, err := io.Copy(io.Discard, r.Body)
					seen <- err
				}()
				close(began)
				<-r.Context().Done()
				seen <- r.Context().Err()
				_, err := w.Write(make([]byte, 100<<10))
				seen <- err
			})
			c := s.dial()
			c.ask(1, false, "POST", "/")
			<-began
			end(c)
			for range 3 {
				if <-seen == nil {
					t.Error("no error")
				}
			}
		})
	}
}

// A body that nobody reads is held up to the window, and what is sent beyond it is an error. What a
// handler leaves unread counts no more when it has returned.
func TestWindowOfBodies(t *testing.T) {
	release := make(chan struct{})
	s := start(t, func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			<-release
		}
	}, func(s *Server) { s.Limits = Limits{StreamWindow: 40 << 10, ConnWindow: 80 << 10} })
	c := s.dial()
	c.ask(1, false, "POST", "/wait")
	for range 2 {
		c.must(c.WriteData(1, false, make([]byte, 16<<10)))
	}
	c.must(c.WriteData(1, false, make([]byte, 8<<10+1)))
	if code := c.resetOf(1); code != xhttp2.ErrCodeFlowControl {
		t.Errorf("reset with %v", code)
	}
	close(release)
	for i := range 20 { // each time what the connection lets in, nearly
		id := uint32(3 + 2*i)
		c.ask(id, false, "POST", "/")
		for range 2 {
			c.must(c.WriteData(id, false, make([]byte, 16<<10)))
		}
		if code := c.resetOf(id); code != xhttp2.ErrCodeNo {
			t.Fatalf("reset with %v", code)
		}
	}
}

// Windows of a few bytes, that shrink below nothing and grow again, let all of a body through.
func TestSmallWindows(t *testing.T) {
	s := start(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(http.TrailerPrefix+"X-End", "1")
		_, _ = io.WriteString(w, strings.Repeat("0123456789", 20))
	})
	c := s.dial(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 7})
	c.ask(1, true, "GET", "/")
	var got []byte
	for step := 0; ; {
		f, err := c.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		switch f := f.(type) {
		case *xhttp2.DataFrame:
			got = append(got, f.Data()...)
			c.must(c.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 0}))
			if step++; step%2 == 0 {
				c.must(c.WriteWindowUpdate(1, 3))
			}
			c.must(c.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: uint32(len(got) + 5)}))
		case *xhttp2.HeadersFrame:
			if f.StreamEnded() {
				if string(got) != strings.Repeat("0123456789", 20) {
					t.Errorf("got %q", got)
				}
				return
			}
		}
	}
}

// Each way of waiting for a client has an end.
func TestDeadlines(t *testing.T) {
	limits := Limits{HeaderTimeout: 50 * time.Millisecond, DataTimeout: 50 * time.Millisecond, IdleTimeout: time.Hour,
		PingAfter: time.Hour, WriteTimeout: time.Hour}
	for _, d := range []struct {
		name string
		do   func(c *rawClient)
		set  func(l *Limits)
	}{
		{name: "a frame's header", do: func(c *rawClient) { _, _ = c.Write([]byte{0, 0, 8, 6}) },
			set: func(l *Limits) { l.IdleTimeout = 50 * time.Millisecond }},
		{name: "a frame", do: func(c *rawClient) { _, _ = c.Write([]byte{0, 0, 8, 6, 0, 0, 0, 0, 0, 1}) }},
		{name: "DATA", do: func(c *rawClient) {
			c.ask(1, false, "POST", "/")
			_, _ = c.Write([]byte{0, 0, 8, 0, 0, 0, 0, 0, 1, 1})
		}},
		{name: "a header block", do: func(c *rawClient) {
			c.must(c.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: c.headersOf("GET", "/"),
				EndStream: true}))
		}},
		{name: "a request", do: func(*rawClient) {}, set: func(l *Limits) { l.IdleTimeout = 50 * time.Millisecond }},
		{name: "a request after another", do: func(c *rawClient) { c.ask(1, true, "GET", "/") },
			set: func(l *Limits) { l.IdleTimeout = 50 * time.Millisecond }},
		{name: "an answer to a ping", do: func(c *rawClient) { c.ask(1, false, "POST", "/body") },
			set: func(l *Limits) { l.PingAfter, l.PingTimeout = 50*time.Millisecond, 50*time.Millisecond }},
	} {
		t.Run(d.name, func(t *testing.T) {
			t.Parallel()
			s := start(t, func(_ http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/body" {
					_, _ = io.Copy(io.Discard, r.Body)
				}
			}, func(s *Server) {
				s.Limits = limits
				if d.set != nil {
					d.set(&s.Limits)
				}
			})
			c := s.dial()
			d.do(c)
			c.ended()
		})
	}
}

// Pings of the server keep a connection that answers them.
func TestPings(t *testing.T) {
	s := start(t, func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }, func(s *Server) {
		s.Limits = Limits{PingAfter: 20 * time.Millisecond, PingTimeout: 5 * time.Second}
	})
	c := s.dial()
	c.ask(1, false, "POST", "/")
	for range 3 {
		c.until("a ping", func(f xhttp2.Frame) bool {
			p, ok := f.(*xhttp2.PingFrame)
			if ok && !p.IsAck() {
				c.must(c.WritePing(true, p.Data))
			}
			return ok
		})
	}
	c.must(c.WriteData(1, true, nil))
	c.until("the answer", func(f xhttp2.Frame) bool { h, ok := f.(*xhttp2.HeadersFrame); return ok && h.StreamEnded() })
}

// A client that takes nothing in time loses its response, or its connection if that takes nothing.
func TestSlowReaders(t *testing.T) {
	for _, name := range []string{"of a stream", "of a stream that trickles", "of a connection"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			failed := make(chan error, 1)
			s := start(t, func(w http.ResponseWriter, _ *http.Request) {
				var err error
				for range 1000 {
					if _, err = w.Write(make([]byte, 64<<10)); err != nil {
						break
					}
				}
				failed <- err
			}, func(s *Server) {
				s.Limits = Limits{WriteTimeout: 200 * time.Millisecond, HeaderTimeout: 500 * time.Millisecond,
					PingAfter: 100 * time.Millisecond}
			})
			c := s.dial()
			c.ask(1, true, "GET", "/")
			switch name {
			case "of a connection":
				c.must(c.WriteWindowUpdate(0, 1<<30))
				c.must(c.WriteWindowUpdate(1, 1<<30))
			case "of a stream that trickles":
				go func() {
					for c.WriteWindowUpdate(1, 1) == nil && c.WriteWindowUpdate(0, 1) == nil {
						time.Sleep(20 * time.Millisecond)
					}
				}()
				fallthrough
			default:
				c.resetOf(1)
			}
			if err := <-failed; err == nil {
				t.Error("all was written")
			}
		})
	}
}

// A deadline of a stream has no effect on others, and ends what waits on either side.
func TestDeadlinesOfStreams(t *testing.T) {
	s := start(t, func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		switch r.URL.Path {
		case "/read":
			_ = control.SetReadDeadline(time.Now().Add(30 * time.Millisecond))
			_, err := io.Copy(io.Discard, r.Body)
			fmt.Fprint(w, errors.Is(err, os.ErrDeadlineExceeded), r.Context().Err())
		case "/later":
			go func() {
				time.Sleep(10 * time.Millisecond)
				_ = control.SetReadDeadline(time.Now())
			}()
			_, err := io.Copy(io.Discard, r.Body)
			fmt.Fprint(w, errors.Is(err, os.ErrDeadlineExceeded), r.Context().Err())
		case "/write":
			_ = control.SetWriteDeadline(time.Now().Add(30 * time.Millisecond))
			_, _ = w.Write(make([]byte, 1<<20))
		case "/rest": // which is sent when the handler has returned
			_ = control.SetWriteDeadline(time.Now().Add(30 * time.Millisecond))
			_, _ = w.Write(make([]byte, 10))
		}
	})
	for _, path := range []string{"/read", "/later"} {
		r, w := io.Pipe()
		defer w.Close()
		resp, err := s.client().Post("https://example.com"+path, "", r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if b, err := io.ReadAll(resp.Body); string(b) != "true <nil>" {
			t.Errorf("%s: %s, %v", path, b, err)
		}
	}
	c := s.dial(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 0})
	for i, path := range []string{"/write", "/rest"} {
		id := uint32(2*i + 1)
		c.ask(id, true, "GET", path)
		if code := c.resetOf(id); code != xhttp2.ErrCodeInternal {
			t.Errorf("%s: reset with %v", path, code)
		}
	}
}

// Draining loses no request that is on its way: those that come after the first GOAWAY are
// answered, and none of those that are under way ends.
func TestDrain(t *testing.T) {
	release := make(chan struct{})
	s := start(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			<-release
		}
		_, _ = io.WriteString(w, "x")
	})
	c, idle := s.dial(), s.dial()
	ready := func(c *rawClient) {
		c.until("settings", func(f xhttp2.Frame) bool { s, ok := f.(*xhttp2.SettingsFrame); return ok && s.IsAck() })
	}
	ready(c)
	ready(idle)
	c.ask(1, true, "GET", "/slow")
	c.ask(3, true, "GET", "/")
	answered := func(id uint32) {
		c.until("an answer", func(f xhttp2.Frame) bool {
			d, ok := f.(*xhttp2.DataFrame)
			return ok && d.StreamID == id && d.StreamEnded()
		})
	}
	answered(3)
	var down sync.WaitGroup
	down.Go(func() {
		if err := s.Shutdown(context.Background()); err != nil {
			t.Errorf("shut down: %v", err)
		}
	})
	var ping [8]byte
	c.until("the first GOAWAY", func(f xhttp2.Frame) bool {
		g, ok := f.(*xhttp2.GoAwayFrame)
		if ok && (g.LastStreamID != 1<<31-1 || g.ErrCode != xhttp2.ErrCodeNo) {
			t.Errorf("GOAWAY says %v", g)
		}
		return ok
	})
	c.until("a ping", func(f xhttp2.Frame) bool {
		p, ok := f.(*xhttp2.PingFrame)
		if ok {
			ping = p.Data
		}
		return ok
	})
	c.ask(5, true, "GET", "/")
	answered(5)
	c.must(c.WritePing(true, ping))
	c.until("the second GOAWAY", func(f xhttp2.Frame) bool {
		g, ok := f.(*xhttp2.GoAwayFrame)
		if ok && g.LastStreamID != 5 {
			t.Errorf("GOAWAY says %v", g)
		}
		return ok
	})
	c.ask(7, true, "GET", "/")
	close(release)
	answered(1)
	if code, told := c.ended(); told && code != xhttp2.ErrCodeNo {
		t.Errorf("ended with %v", code)
	}
	idle.ended() // whose client answers no ping
	down.Wait()
}

// order is the order in which DATA frames of streams come, each after the first bytes of all. The
// window of the connection is opened when all wait.
func order(t *testing.T, s *testServer, frames int, prepare func(c *rawClient), priorities ...string) []uint32 {
	t.Helper()
	c := s.dial(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 1 << 20})
	c.ask(1, true, "GET", "/all")
	c.until("the window is used", func(f xhttp2.Frame) bool {
		d, ok := f.(*xhttp2.DataFrame)
		return ok &&
			d.StreamEnded()
	})
	if prepare != nil {
		prepare(c)
	}
	began := map[uint32]bool{}
	for i, p := range priorities {
		c.ask(uint32(2*i+3), true, "GET", "/", "priority", p)
	}
	for len(began) < len(priorities) {
		c.until("headers", func(f xhttp2.Frame) bool {
			h, ok := f.(*xhttp2.HeadersFrame)
			began[f.Header().StreamID] = true
			return ok && h != nil
		})
	}
	waiting(t, s, len(priorities))
	c.must(c.WriteWindowUpdate(0, 1<<24))
	var list []uint32
	for len(list) < frames {
		c.until("data", func(f xhttp2.Frame) bool {
			d, ok := f.(*xhttp2.DataFrame)
			if ok {
				list = append(list, d.StreamID)
			}
			return ok
		})
	}
	return list
}

// waiting waits until so many responses wait for a window.
func waiting(t *testing.T, s *testServer, n int) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		stalled := 0
		s.mu.Lock()
		for c := range s.conns {
			c.mu.Lock()
			for _, st := range c.streams {
				if st.stalled() {
					stalled++
				}
			}
			c.mu.Unlock()
		}
		s.mu.Unlock()
		if stalled == n {
			return
		}
	}
	t.Fatal("the responses don't wait")
}

// Responses are sent by urgency; of one urgency in order, or in turns if they are incremental; and
// none starves.
func TestPriorities(t *testing.T) {
	s := start(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/all" {
			_, _ = w.Write(make([]byte, 1<<16-1))
			return
		}
		_, _ = w.Write(make([]byte, 512<<10))
	})
	count := func(list []uint32, id uint32) (n int) {
		for _, l := range list {
			if l == id {
				n++
			}
		}
		return n
	}
	t.Run("urgency", func(t *testing.T) {
		list := order(t, s, 32, nil, "u=7", "u=0")
		if n := count(list, 5); n < 26 || n == 32 {
			t.Errorf("the urgent one has %d frames of %v", n, list)
		}
	})
	t.Run("in order", func(t *testing.T) {
		list := order(t, s, 24, nil, "u=3", "u=3")
		if n := count(list, 3); n < 20 {
			t.Errorf("the first one has %d frames of %v", n, list)
		}
	})
	t.Run("in turns", func(t *testing.T) {
		list := order(t, s, 24, nil, "i", "i, u=3", "u=3;x=1, i=?1")
		for _, id := range []uint32{3, 5, 7} {
			if n := count(list, id); n < 6 || n > 10 {
				t.Errorf("%d has %d frames of %v", id, n, list)
			}
		}
	})
	t.Run("PRIORITY_UPDATE before and after", func(t *testing.T) {
		list := order(t, s, 32, func(c *rawClient) {
			c.must(c.WritePriorityUpdate(5, "u=1"))
			c.must(c.WritePriorityUpdate(9, "u=2"))
		}, "u=3", "u=7", "u=4")
		if n := count(list, 5); n < 26 {
			t.Errorf("the urgent one has %d frames of %v", n, list)
		}
	})
}

func TestParsePriority(t *testing.T) {
	for v, want := range map[string]priority{"": {3, false}, "u=0": {0, false}, "u=7,i": {7, true},
		" i , u=5": {5, true}, "u=8": {3, false}, "u=-1": {3, false},
		"u": {3, false}, "i=?0": {3, false}, "i=?1": {3, true}, "i;a=b": {3, true}, "i=1": {3, false}, "u=2.5, x": {3,
			false}, "u=1, u=2": {2, false}, ",,=": {3, false}} {
		if got := parsePriority(v); got != want {
			t.Errorf("%q: %v, want %v", v, got, want)
		}
	}
}

// Malformed requests are reset, and the connection goes on.
func TestMalformed(t *testing.T) {
	s := start(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "x") })
	c := s.dial()
	id := uint32(1)
	for _, fields := range [][]string{
		{":method", "GET", ":scheme", "https", ":path", ""}, {":method", "GET", ":scheme", "https"}, {":scheme",
			"https", ":path", "/"}, {":method", "GET", ":path", "/"},
		{":method", "GET", ":scheme", "ftp", ":path", "/"}, {":method", "GET", ":scheme", "https", ":path", "/",
			":path", "/"},
		{":method", "GET", ":scheme", "https", ":path", "/", "a", "b", ":authority", "x"}, {":method", "GET", ":scheme",
			"https", ":path", "/", ":status", "200"},
		{":method", "GET", ":scheme", "https", ":path", "/", "connection", "x"}, {":method", "GET", ":scheme", "https",
			":path", "/", "te", "gzip"},
		{":method", "GET", ":scheme", "https", ":path", "/", "transfer-encoding", "chunked"}, {":method", "GET",
			":scheme", "https", ":path", "/", "upgrade", "x"},
		{":method", "GET", ":scheme", "https", ":path", "/", "X", "y"}, {":method", "GET", ":scheme", "https", ":path",
			"/", "", "y"}, {":method", "GET", ":scheme", "https", ":path", "/", "x", "a\r\nb"},
		{":method", "GET", ":scheme", "https", ":path", "/", ":authority", "user@example.com"}, {":method", "GET",
			":scheme", "https", ":path", "/", "host", "user@example.com"},
		{":method", "GET", ":scheme", "https", ":path", "no slash"}, {":method", "CONNECT", ":authority", "x:1",
			":path", "/", ":scheme", "https"},
		{":method", "CONNECT", ":authority", "x:1", ":path", "/", ":scheme", "https", ":protocol", "websocket"},
		{":method", "CONNECT"},
	} {
		c.buf.Reset()
		for i := 0; i < len(fields); i += 2 {
			_ = c.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
		}
		c.must(c.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: id, BlockFragment: c.buf.Bytes(), EndHeaders: true,
			EndStream: true}))
		if code := c.resetOf(id); code != xhttp2.ErrCodeProtocol {
			t.Errorf("%q: reset with %v", fields, code)
		}
		id += 2
		c.ask(id, true, "GET", "/")
		c.until("an answer", func(f xhttp2.Frame) bool { d, ok := f.(*xhttp2.DataFrame); return ok && d.StreamEnded() })
		id += 2
	}
}

// A request over TLS is one, whatever scheme the client names.
func TestSchemeIsNotBelieved(t *testing.T) {
	s := start(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.TLS != nil) })
	c := s.dial()
	c.buf.Reset()
	for _, f := range []hpack.HeaderField{{Name: ":method", Value: "GET"}, {Name: ":scheme", Value: "http"},
		{Name: ":authority", Value: "example.com"}, {Name: ":path", Value: "/"}} {
		_ = c.enc.WriteField(f)
	}
	c.must(c.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: c.buf.Bytes(), EndHeaders: true,
		EndStream: true}))
	c.until("an answer", func(f xhttp2.Frame) bool {
		d, ok := f.(*xhttp2.DataFrame)
		if ok && string(d.Data()) != "true" {
			t.Errorf("over TLS: %s", d.Data())
		}
		return ok
	})
}

// With ExtendedConnect the client is told so, and the handler gets the protocol and both ways.
func TestExtendedConnect(t *testing.T) {
	s := start(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Protocol", r.Header.Get(":protocol"))
		control := http.NewResponseController(w)
		_ = control.Flush()
		b := make([]byte, 100)
		for {
			n, err := r.Body.Read(b)
			if err != nil {
				return
			}
			_, _ = w.Write(slices.Concat([]byte("<"), b[:n], []byte(">")))
			_ = control.Flush()
		}
	}, func(s *Server) { s.ExtendedConnect = true })
	c := s.dial()
	c.until("settings", func(f xhttp2.Frame) bool {
		s, ok := f.(*xhttp2.SettingsFrame)
		if v, given := s.Value(xhttp2.SettingEnableConnectProtocol); ok && (!given || v != 1) {
			t.Error("extended CONNECT is not offered")
		}
		return ok
	})
	c.ask(1, false, "CONNECT", "/chat", ":protocol", "websocket")
	for _, word := range []string{"one", "two"} {
		c.must(c.WriteData(1, false, []byte(word)))
		c.until(word, func(f xhttp2.Frame) bool {
			d, ok := f.(*xhttp2.DataFrame)
			return ok && string(d.Data()) == "<"+word+">"
		})
	}
	c.must(c.WriteData(1, true, nil))
	c.until("the end", func(f xhttp2.Frame) bool { d, ok := f.(*xhttp2.DataFrame); return ok && d.StreamEnded() })
}
