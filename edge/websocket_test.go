package edge

import (
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/kaiku-cdn/kaiku/edge/site"
)

// switchTo answers the handshake of RFC 6455, and serves the connection.
func switchTo(t testing.TB, w http.ResponseWriter, r *http.Request, serve func(io.ReadWriter)) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close()
	sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	_, _ = fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n"+
		"Sec-WebSocket-Accept: %s\r\nSec-WebSocket-Protocol: chat\r\n\r\n", base64.StdEncoding.EncodeToString(sum[:]))
	_ = rw.Flush()
	serve(struct {
		io.Reader
		io.Writer
	}{rw.Reader, conn})
}

// echo sends back what comes, up to its end, and then a last word.
func echo(rw io.ReadWriter) {
	_, _ = io.Copy(rw, rw)
	_, _ = io.WriteString(rw, "bye")
}

// connect asks for a WebSocket, and returns its stream.
func (a *attacker) connect(path string, more ...hpack.HeaderField) uint32 {
	a.t.Helper()
	a.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	_ = a.conn.SetDeadline(time.Now().Add(30 * time.Second))
	id := a.next
	a.next += 2
	fields := append([]hpack.HeaderField{{Name: ":protocol", Value: "websocket"},
		{Name: "sec-websocket-version", Value: "13"}, {Name: "sec-websocket-protocol", Value: "chat"}}, more...)
	if err := a.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndHeaders: true,
		BlockFragment: a.headers("CONNECT", path, fields...)}); err != nil {
		a.t.Fatal(err)
	}
	return id
}

// wantAnswer reads up to the header block of a stream, and returns its fields.
func (a *attacker) wantAnswer(id uint32, status string) map[string]string {
	a.t.Helper()
	for {
		frame, err := a.ReadFrame()
		if err != nil {
			a.t.Fatal(err)
		}
		switch f := frame.(type) {
		case *http2.MetaHeadersFrame:
			fields := map[string]string{}
			for _, field := range f.Fields {
				fields[field.Name] = field.Value
			}
			if f.StreamID != id || fields[":status"] != status {
				a.t.Fatalf("stream %d: %v, want %d and %s", f.StreamID, fields, id, status)
			}
			return fields
		case *http2.RSTStreamFrame:
			if f.StreamID == id {
				a.t.Fatalf("stream %d was reset: %v", f.StreamID, f.ErrCode)
			}
		}
	}
}

// wantData reads what a stream sends, as long as what is wanted, and reports whether the stream has
// ended. It gives the windows back.
func (a *attacker) wantData(id uint32, want string) (ended bool) {
	a.t.Helper()
	var got bytes.Buffer
	for got.Len() < len(want) || want == "" && !ended {
		frame, err := a.ReadFrame()
		if err != nil {
			a.t.Fatalf("%v after %d bytes", err, got.Len())
		}
		switch f := frame.(type) {
		case *http2.DataFrame:
			got.Write(f.Data())
			ended = f.StreamEnded()
			if n := uint32(len(f.Data())); n > 0 {
				_, _ = a.WriteWindowUpdate(0, n), a.WriteWindowUpdate(id, n)
			}
		case *http2.RSTStreamFrame:
			a.t.Fatalf("stream %d was reset: %v", f.StreamID, f.ErrCode)
		}
	}
	if got.String() != want {
		a.t.Errorf("%.60q came, want %.60q", got.String(), want)
	}
	return ended
}

// A WebSocket over HTTP/2 reaches an origin as one over HTTP/1.1, also one that is over TLS and
// speaks HTTP/2 otherwise. Each side may end its half first.
func TestWebSocketOverHTTP2(t *testing.T) {
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("origin over TLS is %v", secure), func(t *testing.T) {
			o := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				key, err := base64.StdEncoding.DecodeString(r.Header.Get("Sec-WebSocket-Key"))
				if r.Method != "GET" || r.Proto != "HTTP/1.1" || r.URL.String() != "/chat?a=1" || len(key) != 16 ||
					err != nil || r.Header.Get("Sec-WebSocket-Version") != "13" || r.ContentLength != 0 ||
					r.Header.Get("Sec-WebSocket-Protocol") != "chat" || r.Header[":protocol"] != nil {
					t.Errorf("the origin got %s %s %s, %v", r.Method, r.URL, r.Proto, r.Header)
				}
				switchTo(t, w, r, echo)
			}))
			o.EnableHTTP2 = true
			if secure {
				o.StartTLS()
			} else {
				o.Start()
			}
			t.Cleanup(o.Close)
			e := newSecure(t, nil, 1, func(_ *Server, s *site.Site) {
				u, _ := url.Parse(o.URL)
				s.Origin.Origin.Servers[0].URL, s.Origin.Origin.TLS = u, &tls.Config{InsecureSkipVerify: true}
			})
			a := e.attack()
			id := a.connect("/chat?a=1", hpack.HeaderField{Name: "sec-websocket-key", Value: "of the client"})
			fields := a.wantAnswer(id, "200")
			for _, name := range []string{"connection", "upgrade", "sec-websocket-accept", "content-length"} {
				if v, ok := fields[name]; ok {
					t.Errorf("the client got %s: %s", name, v)
				}
			}
			if fields["sec-websocket-protocol"] != "chat" {
				t.Errorf("the client got %v", fields)
			}
			for _, text := range []string{"one", strings.Repeat("long", 10_000)} {
				for rest := text; rest != ""; {
					n := min(len(rest), 16<<10)
					if err := a.WriteData(id, false, []byte(rest[:n])); err != nil {
						t.Fatal(err)
					}
					rest = rest[n:]
				}
				a.wantData(id, text)
			}
			if err := a.WriteData(id, true, nil); err != nil {
				t.Fatal(err)
			}
			if !a.wantData(id, "bye") {
				a.wantData(id, "")
			}
		})
	}
}

// What is no WebSocket is refused, and what an origin answers without one is never taken for it.
func TestWebSocketRefusals(t *testing.T) {
	e := newSecure(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/forbidden":
			http.Error(w, "not you", http.StatusForbidden)
		case "/forged":
			r.Header.Set("Sec-WebSocket-Key", "another")
			switchTo(t, w, r, echo)
		case "/other":
			conn, rw, _ := http.NewResponseController(w).Hijack()
			defer conn.Close()
			_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
			_ = rw.Flush()
		default:
			_, _ = io.WriteString(w, "no WebSocket here")
		}
	}, 1)
	a := e.attack()
	for path, want := range map[string]string{"/forbidden": "403", "/forged": "502", "/other": "502", "/page": "502"} {
		a.wantAnswer(a.connect(path), want)
	}
	for _, c := range []struct {
		status int
		fields []hpack.HeaderField
	}{
		{405, []hpack.HeaderField{{Name: ":method", Value: "CONNECT"}, {Name: ":authority", Value: "a.example:443"}}},
		{501, []hpack.HeaderField{{Name: ":method", Value: "CONNECT"}, {Name: ":protocol", Value: "connect-udp"},
			{Name: ":scheme", Value: "https"}, {Name: ":authority", Value: "www.example"}, {Name: ":path",
				Value: "/"}}},
	} {
		client := &rawHTTP2{edge: e, addr: e.SecureAddr()}
		if got := client.send(rawMessage{replaced: c.fields}); got.status != c.status {
			t.Errorf("%v: %d, %v; want %d", c.fields, got.status, got.err, c.status)
		}
	}
}

// A WebSocket ends when it is idle for too long, and the origin's connection ends with it.
func TestWebSocketIdle(t *testing.T) {
	ended := make(chan struct{})
	e := newSecure(t, func(w http.ResponseWriter, r *http.Request) {
		defer close(ended)
		switchTo(t, w, r, echo)
	}, 1, func(s *Server, _ *site.Site) { s.tunnelIdle = 100 * time.Millisecond })
	a := e.attack()
	id := a.connect("/")
	a.wantAnswer(id, "200")
	a.wantData(id, "")
	<-ended
	if n := counted(t, e, "kaiku_edge_tunnels_idle_total"); n != 1 {
		t.Errorf("%v idle tunnels are counted", n)
	}
}

// A client that resets the stream of a WebSocket ends the connection to the origin.
func TestWebSocketReset(t *testing.T) {
	ended := make(chan struct{})
	e := newSecure(t, func(w http.ResponseWriter, r *http.Request) {
		defer close(ended)
		switchTo(t, w, r, echo)
	}, 1)
	a := e.attack()
	id := a.connect("/")
	a.wantAnswer(id, "200")
	if err := a.WriteRSTStream(id, http2.ErrCodeCancel); err != nil {
		t.Fatal(err)
	}
	<-ended
}

// What goes through a WebSocket is no flood, however little is asked for.
func TestWebSocketIsNoFlood(t *testing.T) {
	const size = 8 << 20
	e := newSecure(t, func(w http.ResponseWriter, r *http.Request) {
		switchTo(t, w, r, func(rw io.ReadWriter) {
			n, _ := io.CopyN(io.Discard, rw, size)
			fmt.Fprint(rw, n)
		})
	}, 1)
	a := e.attack()
	id := a.connect("/")
	a.wantAnswer(id, "200")
	window := make(chan int, 1000)
	go func() { // it writes as the windows allow
		have := 256 << 10
		for left := size; left > 0; {
			for have == 0 {
				have += <-window
			}
			n := min(left, have, 16<<10)
			if err := a.WriteData(id, false, make([]byte, n)); err != nil {
				return
			}
			left, have = left-n, have-n
		}
	}()
	for {
		frame, err := a.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		switch f := frame.(type) {
		case *http2.WindowUpdateFrame:
			if f.StreamID == id {
				window <- int(f.Increment)
			}
		case *http2.DataFrame:
			if string(f.Data()) != fmt.Sprint(size) {
				t.Errorf("%q came", f.Data())
			}
			return
		}
	}
}

// A WebSocket that is open when the edge ends is cut off when its time is over, and counted.
func TestWebSocketDrains(t *testing.T) {
	e := newSecure(t, func(w http.ResponseWriter, r *http.Request) { switchTo(t, w, r, echo) }, 1,
		func(s *Server, _ *site.Site) { s.DrainTimeout = 300 * time.Millisecond })
	a := e.attack()
	id := a.connect("/")
	a.wantAnswer(id, "200")
	stopped, stop := context.WithCancel(t.Context())
	go func() {
		defer stop()
		e.stop()
	}()
	for told := false; !told; {
		frame, err := a.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		_, told = frame.(*http2.GoAwayFrame)
	}
	if err := a.WriteData(id, false, []byte("still here")); err != nil {
		t.Fatal(err)
	}
	a.wantData(id, "still here")
	<-stopped.Done()
	if n := counted(t, e, "kaiku_edge_requests_cut_total"); n != 1 {
		t.Errorf("%v are counted as cut, want 1", n)
	}
	if e.front.Active() != 0 {
		t.Error("something is still under way")
	}
}
