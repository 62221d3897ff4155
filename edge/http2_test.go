package edge

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// attacker is a client of HTTP/2 that does as it likes.
type attacker struct {
	t    *testing.T
	conn *tls.Conn
	*http2.Framer
	buf  bytes.Buffer
	hp   *hpack.Encoder
	next uint32 // stream
}

func (e *testEdge) attack(settings ...http2.Setting) *attacker {
	e.t.Helper()
	conf := e.trust()
	conf.NextProtos = []string{"h2"}
	conn, err := (&tls.Dialer{Config: conf}).DialContext(e.t.Context(), "tcp", e.SecureAddr().String())
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { conn.Close() })
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		e.t.Fatal(err)
	}
	a := &attacker{t: e.t, conn: conn.(*tls.Conn), Framer: http2.NewFramer(conn, conn), next: 1}
	a.AllowIllegalWrites = true
	a.hp = hpack.NewEncoder(&a.buf)
	if err := a.WriteSettings(settings...); err != nil {
		e.t.Fatal(err)
	}
	return a
}

// headers is a header block that asks for a path.
func (a *attacker) headers(method, path string, more ...hpack.HeaderField) []byte {
	a.buf.Reset()
	for _, f := range append([]hpack.HeaderField{{Name: ":method", Value: method}, {Name: ":scheme", Value: "https"}, {Name: ":authority", Value: "www.example"}, {Name: ":path", Value: path}}, more...) {
		_ = a.hp.WriteField(f)
	}
	return a.buf.Bytes()
}

// ask sends a request and returns its stream.
func (a *attacker) ask(path string) (uint32, error) {
	id := a.next
	a.next += 2
	return id, a.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: a.headers("GET", path), EndHeaders: true, EndStream: true})
}

// drain reads what comes until the connection ends.
func (a *attacker) drain() {
	_, _ = io.Copy(io.Discard, a.conn)
}

// Floods of frames end their connection, cost little memory, and honest clients are served meanwhile.
func TestHTTP2Floods(t *testing.T) {
	plainOnly(t, "it has a client of its own")
	for _, c := range []struct {
		name string
		once func(a *attacker, i int) error
	}{
		{"rapid reset", func(a *attacker, i int) error {
			id, err := a.ask(fmt.Sprintf("/slow%d", i))
			return errors.Join(err, a.WriteRSTStream(id, http2.ErrCodeCancel))
		}},
		{"pings", func(a *attacker, _ int) error { return a.WritePing(false, [8]byte{1}) }},
		{"settings", func(a *attacker, _ int) error {
			return a.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20})
		}},
		{"empty data", func(a *attacker, i int) error {
			if i == 0 {
				if err := a.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: a.headers("POST", "/slow"), EndHeaders: true}); err != nil {
					return err
				}
			}
			return a.WriteData(1, false, nil)
		}},
		{"window updates", func(a *attacker, _ int) error { return a.WriteWindowUpdate(0, 1) }},
		{"priorities", func(a *attacker, i int) error {
			return a.WritePriority(uint32(2*i+1), http2.PriorityParam{Weight: 1})
		}},
		{"continuations", func(a *attacker, i int) error {
			if i == 0 {
				return a.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: a.headers("GET", "/a"), EndStream: true})
			}
			return a.WriteContinuation(1, false, a.headers("GET", "/a", hpack.HeaderField{Name: "x", Value: strings.Repeat("y", 4096)}))
		}},
		{"a header list without end", func(a *attacker, i int) error {
			var list []hpack.HeaderField
			for range 100 {
				list = append(list, hpack.HeaderField{Name: "x-cookie", Value: strings.Repeat("y", 4000)}) // one byte each once it is in the table
			}
			return a.WriteHeaders(http2.HeadersFrameParam{StreamID: uint32(2*i + 1), BlockFragment: a.headers("GET", "/a", list...), EndHeaders: true, EndStream: true})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			release := make(chan struct{})
			e := newSecure(t, func(w http.ResponseWriter, r *http.Request) {
				if strings.HasPrefix(r.URL.Path, "/slow") {
					select {
					case <-release:
					case <-r.Context().Done():
					}
				}
				w.Header().Set("Cache-Control", "max-age=1000")
				_, _ = io.WriteString(w, "x")
			}, 1)
			defer close(release)
			honest := e.newClientOf("h2")
			get := func() error {
				resp, err := honest.Get("https://www.example/a")
				if err != nil {
					return err
				}
				defer resp.Body.Close()
				if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != 200 {
					return fmt.Errorf("%s, %w", resp.Status, err)
				}
				return nil
			}
			if err := get(); err != nil {
				t.Fatal(err)
			}
			before := heap()
			var ended atomic.Bool
			var served atomic.Int64
			var clients sync.WaitGroup
			clients.Go(func() {
				for !ended.Load() {
					if err := get(); err != nil {
						t.Errorf("an honest client: %v", err)
						return
					}
					served.Add(1)
				}
			})
			a := e.attack()
			go a.drain()
			sent := 0
			for end := time.Now().Add(20 * time.Second); ; sent++ {
				if err := c.once(a, sent); err != nil {
					break
				}
				if time.Now().After(end) {
					t.Errorf("after %d frames the connection is still there", sent)
					break
				}
			}
			ended.Store(true)
			clients.Wait()
			if grown := heap() - before; grown > 32<<20 {
				t.Errorf("the heap grew by %d MiB", grown>>20)
			}
			t.Logf("ended after %d; an honest client was served %d times", sent, served.Load())
			a.conn.Close()
			until(t, "nothing of it is under way", func() bool { return e.active.Load() == 0 })
		})
	}
}

// heap is what is in use after a collection.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse)
}

// Clients that take nothing are given up, with the places that they hold, however little they asked for.
func TestStalledClients(t *testing.T) {
	plainOnly(t, "it has a client of its own")
	e := newSecure(t, static(strings.Repeat("x", 32<<10), "Cache-Control: max-age=1000"), 1)
	a := e.attack(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	go a.drain()
	for range 50 {
		if _, err := a.ask("/a"); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "all wait to write", func() bool { return e.senders.len() == 50 })
	e.senders.expire(time.Now().Add(sendTimeout - time.Second))
	if n := e.senders.len(); n != 50 {
		t.Errorf("%d wait before their time is over", n)
	}
	e.senders.expire(time.Now().Add(sendTimeout))
	until(t, "they are given up", func() bool { return e.active.Load() == 0 })
}

// Slow readers of large bodies hold a buffer each; when there are too many, those who have taken nothing for a while are given up.
func TestSlowReaders(t *testing.T) {
	plainOnly(t, "it has a client of its own")
	e := newSecure(t, static(strings.Repeat("x", 8<<20), "Cache-Control: max-age=1000"), 1)
	honest := e.newClientOf("h2")
	get := func() {
		t.Helper()
		resp, err := honest.Get("https://www.example/large")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if n, err := io.Copy(io.Discard, resp.Body); err != nil || n != 8<<20 {
			t.Fatalf("%d bytes, %v", n, err)
		}
	}
	get()
	e.settle()
	before := heap()
	const slow = maxSenders + 176
	for range slow / maxStreams {
		a := e.attack(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
		go a.drain()
		for range maxStreams {
			if _, err := a.ask("/large"); err != nil {
				t.Fatal(err)
			}
		}
	}
	until(t, "all wait to write", func() bool { return e.senders.len() == slow })
	grown := heap() - before
	t.Logf("%d slow readers: the heap grew by %d MiB", slow, grown>>20)
	if grown > slow*(512<<10) {
		t.Errorf("the heap grew by %d KiB for each slow reader", grown/slow>>10)
	}
	get()
	e.senders.expire(time.Now().Add(slowSend))
	if n := e.senders.len(); n != maxSenders {
		t.Errorf("%d are still waited for, want %d", n, maxSenders)
	}
	get()
	e.senders.expire(time.Now().Add(sendTimeout))
	until(t, "all are given up", func() bool { return e.active.Load() == 0 })
}

// What honest clients do is no flood.
func TestHonestClients(t *testing.T) {
	plainOnly(t, "it has clients of all protocols")
	large := strings.Repeat("x", 4<<20)
	e := newSecure(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.Method {
		case "POST":
			n, _ := io.Copy(io.Discard, r.Body)
			fmt.Fprint(w, n)
		default:
			w.Header().Set("Cache-Control", "max-age=1000")
			_, _ = io.WriteString(w, large)
		}
	}, 1)
	for _, protocol := range []string{"h1", "h2", "h3"} {
		t.Run(protocol, func(t *testing.T) {
			client := e.newClientOf(protocol)
			post := func(size int) {
				resp, err := client.Post("https://www.example/p", "text/plain", strings.NewReader(strings.Repeat("y", size)))
				if err != nil {
					t.Fatalf("an upload of %d: %v", size, err)
				}
				defer resp.Body.Close()
				if b, err := io.ReadAll(resp.Body); err != nil || string(b) != fmt.Sprint(size) {
					t.Fatalf("an upload of %d: %s, %v", size, b, err)
				}
			}
			post(16 << 20)
			for range 150 {
				post(10)
			}
			small, send := io.Pipe() // many small pieces in one request
			go func() {
				for range 5_000 {
					if _, err := send.Write([]byte("0123456789")); err != nil {
						return
					}
				}
				send.Close()
			}()
			resp, err := client.Post("https://www.example/p", "text/plain", small)
			if err != nil {
				t.Fatalf("a body in small pieces: %v", err)
			}
			resp.Body.Close()
			for range 150 { // a player that seeks
				resp, err := client.Get("https://www.example/video")
				if err != nil {
					t.Fatalf("seek: %v", err)
				}
				if _, err := io.CopyN(io.Discard, resp.Body, 128<<10); err != nil {
					t.Fatalf("seek: %v", err)
				}
				resp.Body.Close()
			}
		})
	}
	if m := e.admin("GET", "/metrics", "").body; !strings.Contains(m, "kaiku_edge_connections_flooding_total 0\n") {
		t.Error("honest clients count as floods")
	}
}

// len is how many writes are under way.
func (s *senders) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.list.Len()
}
