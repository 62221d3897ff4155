package edge

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// attacker is a client of HTTP/2 that does as it likes.
type attacker struct {
	t    testing.TB
	conn *tls.Conn
	*http2.Framer
	buf  bytes.Buffer
	hp   *hpack.Encoder
	next uint32 // stream
	held *bytes.Buffer
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func (a *attacker) write(p []byte) (int, error) {
	if a.held != nil {
		return a.held.Write(p)
	}
	return a.conn.Write(p)
}

// many writes the same n times, in one record.
func (a *attacker) many(n int, once func() error) error {
	a.held = &bytes.Buffer{}
	for range n {
		if err := once(); err != nil {
			return err
		}
	}
	_, err := a.conn.Write(a.held.Bytes())
	a.held = nil
	return err
}

func (e *testEdge) attack(settings ...http2.Setting) *attacker {
	e.t.Helper()
	return e.attackOver(tls.VersionTLS13, settings...)
}

func (e *testEdge) attackOver(version uint16, settings ...http2.Setting) *attacker {
	e.t.Helper()
	return e.attackAt(e.SecureAddr(), version, settings...)
}

func (e *testEdge) attackAt(addr net.Addr, version uint16, settings ...http2.Setting) *attacker {
	e.t.Helper()
	conf := e.trust()
	conf.NextProtos, conf.MaxVersion = []string{"h2"}, version
	conn, err := (&tls.Dialer{Config: conf}).DialContext(e.t.Context(), "tcp", addr.String())
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { conn.Close() })
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		e.t.Fatal(err)
	}
	a := &attacker{t: e.t, conn: conn.(*tls.Conn), next: 1}
	a.Framer = http2.NewFramer(writerFunc(a.write), conn)
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
	for _, f := range append([]hpack.HeaderField{{Name: ":method", Value: method}, {Name: ":scheme", Value: "https"},
		{Name: ":authority", Value: "www.example"}, {Name: ":path", Value: path}}, more...) {
		_ = a.hp.WriteField(f)
	}
	return a.buf.Bytes()
}

// ask sends a request and returns its stream.
func (a *attacker) ask(path string) (uint32, error) {
	id := a.next
	a.next += 2
	return id, a.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: a.headers("GET", path),
		EndHeaders: true, EndStream: true})
}

// drain reads what comes until the connection ends.
func (a *attacker) drain() {
	_, _ = io.Copy(io.Discard, a.conn)
}

// http2Floods are what a client sends again and again that only costs.
var http2Floods = []struct {
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
			if err := a.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: a.headers("POST", "/slow"),
				EndHeaders: true}); err != nil {
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
			return a.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: a.headers("GET", "/a"),
				EndStream: true})
		}
		return a.WriteContinuation(1, false,
			a.headers("GET", "/a", hpack.HeaderField{Name: "x", Value: strings.Repeat("y", 4096)}))
	}},
	{"a header list without end", func(a *attacker, i int) error {
		var list []hpack.HeaderField
		for range 100 {
			// one byte each once it is in the table
			list = append(list, hpack.HeaderField{Name: "x-cookie", Value: strings.Repeat("y", 4000)})
		}
		return a.WriteHeaders(http2.HeadersFrameParam{StreamID: uint32(2*i + 1),
			BlockFragment: a.headers("GET", "/a", list...), EndHeaders: true, EndStream: true})
	}},
}

// Floods of frames end their connection, cost little memory, and honest clients are served
// meanwhile.
func TestHTTP2Floods(t *testing.T) { overHTTP2(t, testHTTP2Floods) }

func testHTTP2Floods(t *testing.T, p protocol) {
	for _, c := range http2Floods {
		t.Run(c.name, func(t *testing.T) {
			release := make(chan struct{})
			e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
				if strings.HasPrefix(r.URL.Path, "/slow") {
					select {
					case <-release:
					case <-r.Context().Done():
					}
				}
				w.Header().Set("Cache-Control", "max-age=1000")
				_, _ = io.WriteString(w, "x")
			})
			defer close(release)
			honest := e.newClientOf(protoHTTP2)
			if err := getWhole(honest, "https://www.example/a"); err != nil {
				t.Fatal(err)
			}
			before := heap()
			var ended atomic.Bool
			var served atomic.Int64
			var clients sync.WaitGroup
			clients.Go(func() {
				for !ended.Load() {
					if err := getWhole(honest, "https://www.example/a"); err != nil {
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
			testwait.Until(t, "nothing of it is under way", func() bool { return e.front.Active() == 0 })
		})
	}
}

// getWhole gets a URL, and fails unless a whole 200 comes.
func getWhole(client *http.Client, url string) error {
	resp, err := client.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != 200 {
		return fmt.Errorf("%s, %w", resp.Status, err)
	}
	return nil
}

// A flood that waits for each answer fills no queue, and is found by what it sends all the same.
func TestPatientFloods(t *testing.T) { overHTTP2(t, testPatientFloods) }

func testPatientFloods(t *testing.T, p protocol) {
	e := p.newEdge(t, static("x", "Cache-Control: max-age=1000"))
	for _, c := range []struct {
		name    string
		version uint16
		batch   func(a *attacker) error
	}{
		{"pings between requests", tls.VersionTLS13, func(a *attacker) error {
			if _, err := a.ask("/a"); err != nil {
				return err
			}
			return a.many(1000, func() error { return a.WritePing(false, [8]byte{1}) })
		}},
		// An acknowledgement is sent in a record of its own, which over TLS 1.2 is large next to
		// what comes.
		{"empty settings over TLS 1.2", tls.VersionTLS12,
			func(a *attacker) error { return a.many(1000, func() error { return a.WriteSettings() }) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := e.attackOver(c.version)
			for batches := 0; ; batches++ {
				if batches == 2000 {
					t.Fatal("the connection is still there")
				}
				last := [8]byte{2}
				err := errors.Join(c.batch(a), a.WritePing(false, last))
				for acked := false; err == nil && !acked; {
					var f http2.Frame
					f, err = a.ReadFrame()
					ping, ok := f.(*http2.PingFrame)
					acked = ok && ping.Data == last
				}
				if err != nil {
					t.Logf("ended after %d batches: %v", batches, err)
					break
				}
			}
			if n := counted(t, e, "kaiku_edge_connections_flooding_total"); n == 0 {
				t.Error("it was not ended as a flood")
			}
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

// What honest clients do is no flood.
func TestHonestClients(t *testing.T) {
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
	for _, p := range []protocol{protoTLS1, protoHTTP2, protoHTTP3} {
		t.Run(string(p), func(t *testing.T) {
			client := e.newClientOf(p)
			post := func(size int) {
				resp, err := client.Post("https://www.example/p", "text/plain",
					strings.NewReader(strings.Repeat("y", size)))
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
