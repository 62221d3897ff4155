package http2

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// A reset by the client or the end of its connection cancels the context of a request, and makes
// reads of the request body and writes of the response fail.
func TestResetEndsTheRequest(t *testing.T) {
	for name, end := range map[string]func(c *rawClient){
		"a reset":                 func(c *rawClient) { c.must(c.WriteRSTStream(1, xhttp2.ErrCodeCancel)) },
		"the end of a connection": func(c *rawClient) { _ = c.Close() },
		"a fault of the client's": func(c *rawClient) { c.must(c.WriteData(0, false, nil)) },
		"a fault of its stream's": func(c *rawClient) { c.must(c.WriteWindowUpdate(1, 0)) },
		"a frame that is too long": func(c *rawClient) {
			// The write may fail, because the server need not read all of it.
			_ = c.WriteRawFrame(xhttp2.FramePing, 0, 0, make([]byte, 1<<15))
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

// The server holds an unread body up to the window, and what comes beyond that is an error. What a
// handler leaves unread no longer counts after the handler has returned.
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
	for i := range 20 { // each body takes up a good part of the connection's window
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

// A client may have sent more for each of its requests when the server resets them all. That is no
// error.
func TestFramesForManyResetStreams(t *testing.T) {
	s := start(t, func(http.ResponseWriter, *http.Request) {})
	c := s.dial()
	const streams = 100
	for i := range uint32(streams) {
		c.ask(1+2*i, false, "POST", "/")
	}
	resets := 0
	c.until("resets", func(f xhttp2.Frame) bool {
		if _, ok := f.(*xhttp2.RSTStreamFrame); ok {
			resets++
		}
		return resets == streams
	})
	c.buf.Reset()
	_ = c.enc.WriteField(hpack.HeaderField{Name: "x-trailer", Value: "1"})
	c.must(c.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: c.buf.Bytes(), EndHeaders: true,
		EndStream: true}))
	c.must(c.WritePing(false, [8]byte{1}))
	c.until("the answer to a ping",
		func(f xhttp2.Frame) bool { p, ok := f.(*xhttp2.PingFrame); return ok && p.IsAck() })
}

// A body arrives whole through a window of a few bytes that becomes negative and grows again.
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

// Malformed requests are reset, and the connection stays usable.
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

// A request over TLS has Request.TLS, whatever scheme the client names.
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

// With ExtendedConnect the server announces extended CONNECT. The handler gets the protocol, and
// can read and write at the same time.
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

// If a client wants a smaller dynamic table, the next header block says so (RFC 7541, 4.2). nghttp2
// ends a connection whose next header block doesn't.
func TestSmallerTableIsConfirmed(t *testing.T) {
	t.Parallel()
	for size, want := range map[uint32]bool{0: true, 100: true, 4096: false, 65536: false} {
		s := start(t, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X-Name", "value") })
		c := s.dial(xhttp2.Setting{ID: xhttp2.SettingHeaderTableSize, Val: size})
		for i := range uint32(3) {
			if i == 2 {
				c.must(c.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingHeaderTableSize, Val: 4096}))
			}
			id := 2*i + 1
			c.ask(id, true, "GET", "/")
			c.until("a response", func(f xhttp2.Frame) bool {
				h, ok := f.(*xhttp2.HeadersFrame)
				if !ok || h.StreamID != id {
					return false
				}
				block := h.HeaderBlockFragment()
				if got := block[0] == noTable; got != (want && i == 0) {
					t.Errorf("table of %d bytes: header block %d begins with %#x", size, i, block[0])
				}
				if _, err := hpack.NewDecoder(min(size, 4096), nil).DecodeFull(block); err != nil {
					t.Errorf("table of %d bytes: header block %d: %v", size, i, err)
				}
				return true
			})
		}
	}
}
