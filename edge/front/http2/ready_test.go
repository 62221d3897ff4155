package http2

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// testReady has an answer for each path that is a number: a body of that many bytes. With the
// prefix "f" the body is in a file. With "b" it is in a file whose second half can't be read.
type testReady struct {
	t          testing.TB
	found      atomic.Int64
	done       atomic.Int64
	sent, torn atomic.Int64
	window     atomic.Int64 // Request.Window of the last request
}

func (r *testReady) Open(c Conn) any {
	if !c.Secure || c.ServerName != "example.com" || c.RemoteAddr == "" {
		r.t.Errorf("a connection is told as %+v", c)
	}
	return r
}

func (r *testReady) Find(c any, q *Request, b []byte) ([]byte, Answer, bool) {
	if c != any(r) {
		r.t.Error("not what Open made")
	}
	if q.Path == "/panic" {
		panic("find")
	}
	number := strings.TrimLeft(q.Path[1:], "fb")
	n, err := strconv.Atoi(number)
	if err != nil || q.Scheme != "https" {
		return nil, Answer{}, false
	}
	r.window.Store(q.Window)
	r.found.Add(1)
	b = AppendField(AppendField(AppendStatus(b, 200), "content-length", strconv.Itoa(n)), "x-fields",
		fmt.Sprint(len(q.Fields)))
	a, body := Answer{Release: &testRelease{r: r}}, bytes.Repeat([]byte("r"), n)
	switch file := (&testFile{bytes.NewReader(body), n, a.Release.(*testRelease)}); q.Path[1] {
	case 'b':
		file.bad = n / 2
		fallthrough
	case 'f':
		a.File = file
	default:
		a.Body = body
	}
	return b, a, true
}

// testRelease is the Release of one answer.
type testRelease struct {
	r    *testReady
	over atomic.Bool
}

func (a *testRelease) Done(sent int64, whole bool) {
	if a.over.Swap(true) {
		a.r.t.Error("released twice")
	}
	a.r.sent.Add(sent)
	if !whole {
		a.r.torn.Add(1)
	}
	a.r.done.Add(1)
}

// testFile is a body that can't be read beyond the offset bad.
type testFile struct {
	*bytes.Reader
	bad  int
	what *testRelease
}

func (f *testFile) Len() int64 { return int64(f.Reader.Len()) }

func (f *testFile) Read(p []byte) (int, error) {
	if f.what.over.Load() {
		f.what.r.t.Error("read when it was released")
	}
	if at := int(f.Size()) - f.Reader.Len(); at+len(p) > f.bad {
		return 0, errors.New("bad")
	}
	return f.Reader.Read(p)
}

func (r *testReady) wait(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); r.done.Load() != r.found.Load(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d of %d are released", r.done.Load(), r.found.Load())
		}
	}
}

func startReady(t *testing.T, change ...func(*Server)) (*testServer, *testReady) {
	r := &testReady{t: t}
	return start(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "handler")
	}, append(change, func(s *Server) { s.Ready = r })...), r
}

// A ready response is sent as it is, and released once. The handler gets all other requests.
func TestReady(t *testing.T) {
	s, ready := startReady(t, func(s *Server) { s.Panicked = func(*http.Request, any) {} })
	var clients sync.WaitGroup
	for range 4 {
		c := s.client()
		clients.Go(func() {
			for i, n := range []int{0, 1, 1000, 16 << 10, 16<<10 + 1, 70_000, 1 << 20, 0, 1, 16<<10 + 1, 1 << 20} {
				for _, method := range []string{"GET", "HEAD", "POST"} {
					r, _ := http.NewRequest(method, fmt.Sprint("https://example.com/", n), nil)
					if i > 6 {
						r.URL.Path = "/f" + r.URL.Path[1:]
					}
					resp, err := c.Do(r)
					if err != nil {
						t.Errorf("%s %d: %v", method, n, err)
						return
					}
					b, err := io.ReadAll(resp.Body)
					resp.Body.Close()
					want := strings.Repeat("r", n)
					switch method {
					case "HEAD":
						want = ""
					case "POST":
						want = "handler"
					}
					if string(b) != want || err != nil || method == "HEAD" && resp.ContentLength != int64(n) {
						t.Errorf("%s %d: got %d bytes, %v", method, n, len(b), err)
					}
				}
			}
		})
	}
	clients.Wait()
	for _, path := range []string{"/x", "/panic"} {
		if _, b := get(t, s.client(), path); b != "handler" {
			t.Errorf("%s: got %q", path, b)
		}
	}
	ready.wait(t)
	if n := ready.torn.Load(); n > 0 {
		t.Errorf("%d were not sent whole", n)
	}
}

// All of many requests that come in one packet are answered.
func TestReadyTogether(t *testing.T) {
	s, ready := startReady(t)
	c := s.dial()
	var all bytes.Buffer
	f := xhttp2.NewFramer(&all, nil)
	for i := range 50 {
		c.must(f.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: uint32(2*i + 1),
			BlockFragment: c.headersOf("GET", "/100"), EndHeaders: true, EndStream: true}))
	}
	if _, err := c.Conn.Write(all.Bytes()); err != nil {
		t.Fatal(err)
	}
	for ended := 0; ended < 50; {
		c.until("an answer", func(f xhttp2.Frame) bool {
			if d, ok := f.(*xhttp2.DataFrame); ok && d.StreamEnded() {
				ended++
			}
			return true
		})
	}
	ready.wait(t)
}

// A ready response is released when the client resets it, takes nothing in time, or disconnects.
func TestReadyReleased(t *testing.T) {
	s, ready := startReady(t, func(s *Server) {
		s.Limits = Limits{WriteTimeout: 100 * time.Millisecond, HeaderTimeout: 100 * time.Millisecond}
	})
	c := s.dial(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 10})
	c.ask(1, true, "GET", "/100")
	c.until("data", func(f xhttp2.Frame) bool { d, ok := f.(*xhttp2.DataFrame); return ok && len(d.Data()) == 10 })
	c.must(c.WriteRSTStream(1, xhttp2.ErrCodeCancel))
	ready.wait(t)
	c.ask(3, true, "GET", "/f100")
	c.resetOf(3)
	ready.wait(t)
	c.ask(5, true, "GET", "/100")
	c.until("data", func(f xhttp2.Frame) bool { d, ok := f.(*xhttp2.DataFrame); return ok && d.StreamID == 5 })
	_ = c.Close()
	ready.wait(t)
	if torn, sent := ready.torn.Load(), ready.sent.Load(); torn != 3 || sent != 30 {
		t.Errorf("%d were torn, after %d bytes", torn, sent)
	}
}

// If a file can't be read, its response is reset. The responses that are sent along with it arrive
// whole. They get what the unread bytes had taken of the connection's window.
func TestReadyUnreadable(t *testing.T) {
	s, ready := startReady(t, func(s *Server) { s.Log = slog.New(slog.DiscardHandler) })
	c := s.dial(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 1 << 20})
	c.must(c.WriteWindowUpdate(0, 1<<30))
	got, over := map[uint32]int{}, map[uint32]string{}
	want := map[uint32]string{1: "whole", 3: "reset", 5: "whole", 7: "reset", 9: "whole"}
	for i, path := range []string{"/f100000", "/b100000", "/100000", "/b2", "/f20000"} {
		c.ask(uint32(2*i+1), true, "GET", path, "priority", "i")
	}
	c.until("all answers", func(f xhttp2.Frame) bool {
		switch f := f.(type) {
		case *xhttp2.DataFrame:
			got[f.StreamID] += len(f.Data())
			if f.StreamEnded() {
				over[f.StreamID] = "whole"
			}
		case *xhttp2.RSTStreamFrame:
			over[f.StreamID] = "reset"
		}
		return len(over) == len(want)
	})
	ready.wait(t)
	if !maps.Equal(over, want) || got[1] != 100_000 || got[5] != 100_000 || got[9] != 20_000 || got[3] > 50_000 {
		t.Errorf("got %v, %v", over, got)
	}
	if torn := ready.torn.Load(); torn < 2 {
		t.Errorf("%d were torn", torn)
	}
}

// Request.Window is what the client's windows admit, without what is sent and what already waits to
// be sent. A reset frees what the response still had to send.
func TestReadyWindow(t *testing.T) {
	s, ready := startReady(t)
	c := s.dial(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 60_000})
	got := 0
	wants := func(id uint32, path string, data int, want int64) {
		t.Helper()
		c.ask(id, true, "GET", path)
		answered := false
		c.until("an answer", func(f xhttp2.Frame) bool {
			switch f := f.(type) {
			case *xhttp2.HeadersFrame:
				answered = answered || f.StreamID == id
			case *xhttp2.DataFrame:
				got += len(f.Data())
			}
			return answered && got == data
		})
		if w := ready.window.Load(); w != want {
			t.Errorf("%d: the windows have room for %d, want %d", id, w, want)
		}
	}
	wants(1, "/f60001", 60_000, 60_000)
	wants(3, "/0", 60_000, 5_534)
	c.must(c.WriteRSTStream(1, xhttp2.ErrCodeCancel))
	wants(5, "/1000", 61_000, 5_535)
	wants(7, "/f4000", 65_000, 4_535)
	wants(9, "/0", 65_000, 535)
	c.must(c.WriteWindowUpdate(0, 100_000))
	wants(11, "/0", 65_000, 60_000)
	_ = c.Close()
	ready.wait(t)
}

// Any field is decoded to what it was, by any decoder.
func FuzzAppendField(f *testing.F) {
	f.Add(":status", "200")
	f.Add("content-type", "text/html")
	f.Add("x-long", strings.Repeat("\x00ü", 300))
	f.Add("set-cookie", "a=b")
	f.Fuzz(func(t *testing.T, name, value string) {
		if name == "" {
			return
		}
		for i, b := range [][]byte{AppendField(nil, name, value), AppendPlain(nil, name, []byte(value))} {
			var got []hpack.HeaderField
			d := hpack.NewDecoder(0, func(f hpack.HeaderField) { got = append(got, f) })
			if _, err := d.Write(b); err != nil || d.Close() != nil || len(got) != 1 || got[0].Name != name ||
				got[0].Value != value {
				t.Fatalf("%q: %q is %v, %v", name, value, got, err)
			}
			if got[0].Sensitive != (name == "set-cookie" && i == 0) {
				t.Error("set-cookie alone is never to be indexed")
			}
		}
	})
}

func TestAppendStatus(t *testing.T) {
	for status := 100; status < 1000; status++ {
		fields, err := hpack.NewDecoder(0, nil).DecodeFull(AppendStatus(nil, status))
		if err != nil || len(fields) != 1 || fields[0].Name != ":status" || fields[0].Value != strconv.Itoa(status) {
			t.Fatalf("%d is %v, %v", status, fields, err)
		}
	}
}
