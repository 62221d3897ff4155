package http2

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"
)

// Each wait for a client has a time limit.
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

// The server keeps a silent connection whose client answers its pings.
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

// A stream whose client takes too little in time is reset. If the connection takes nothing in time,
// it ends.
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

// The deadlines that a handler sets end its waits for the request body and for sending the
// response. They don't affect other streams.
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
		case "/rest": // this response is sent after the handler has returned
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

// Draining loses no request: those that come after the first GOAWAY are answered, and those under
// way are finished.
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
	idle.ended() // it ends although this client doesn't answer the ping
	down.Wait()
}
