package edge

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/kaiku-cdn/kaiku/edge/admin"
	"github.com/kaiku-cdn/kaiku/edge/front"
	"github.com/kaiku-cdn/kaiku/edge/site"
	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// small makes an origin take eight requests at once, of which six may be held by clients.
func small(_ *Server, s *site.Site) {
	s.Origin.Origin.MaxRequests, s.Origin.Origin.QueueTimeout = 8, 50*time.Millisecond
}

// holdServer answers what the cache asks for at once, tunnels what is to be tunnelled, and reads
// what is sent.
func holdServer(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Header.Get("Upgrade") != "":
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		_ = rw.Flush()
		_, _ = io.Copy(c, rw)
	case strings.HasPrefix(r.URL.Path, "/large"):
		w.Header().Set("Cache-Control", "no-store")
		_, _ = io.CopyN(w, zeros{}, 64<<20)
	default:
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Cache-Control", "max-age=1000")
		_, _ = io.WriteString(w, "stored")
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// wantMisses fails the test if what is not stored can't be fetched.
func (e *testEdge) wantMisses(t *testing.T) {
	t.Helper()
	for i := range 8 {
		e.get(fmt.Sprint("/miss", i)).wants(t, 200, "stored")
	}
}

// held is how many requests a client holds at the origin.
func (e *testEdge) held() (streams, tunnels int) {
	for _, s := range e.site.Origin.Origin.Status().Servers {
		streams += s.Streams
		tunnels += s.Tunnels
	}
	return streams, tunnels
}

// However many uploads there are whose clients take their time, what is to be stored is fetched.
func TestMissesBesideUploads(t *testing.T) { overProtocols(t, testMissesBesideUploads) }

func testMissesBesideUploads(t *testing.T, p protocol) {
	e := p.newEdge(t, holdServer, small)
	var work sync.WaitGroup
	var bodies []*io.PipeReader
	for range 30 {
		body, client := io.Pipe()
		bodies = append(bodies, body)
		r, err := http.NewRequestWithContext(t.Context(), "POST", e.url("/upload"), body)
		if err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = client.Write([]byte("x")) }()
		work.Go(func() {
			if resp, err := e.client.Do(r); err == nil {
				resp.Body.Close()
			}
		})
	}
	testwait.Until(t, "uploads have what they may have", func() bool { n, _ := e.held(); return n == 6 })
	e.wantMisses(t)
	for _, body := range bodies {
		body.Close()
	}
	work.Wait()
	testwait.Until(t, "all is given back", func() bool { n, _ := e.held(); return n == 0 })
}

// Nor does it matter how many clients read slowly what can't be stored.
func TestMissesBesideSlowReaders(t *testing.T) { overProtocols(t, testMissesBesideSlowReaders) }

func testMissesBesideSlowReaders(t *testing.T, p protocol) {
	e := p.newEdge(t, holdServer, small)
	var open []io.Closer
	for i := range 12 {
		r := e.request("GET", fmt.Sprint("/large", i), "")
		resp, err := e.newClient().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, resp.Body)
		if want := map[bool]int{true: 200, false: 503}[i < 6]; resp.StatusCode != want {
			t.Errorf("slow reader %d: %s, want %d", i, resp.Status, want)
		}
	}
	e.wantMisses(t)
	for _, body := range open {
		body.Close()
	}
	testwait.Until(t, "all is given back", func() bool { n, _ := e.held(); return n == 0 })
}

// upgrade makes a tunnel, if it gets one.
func (e *testEdge) upgrade(t *testing.T) (net.Conn, *bufio.Reader, int) {
	t.Helper()
	conn := e.dialRaw(t, e.protocol.secure())
	_, _ = io.WriteString(conn, "GET /tunnel HTTP/1.1\r\nHost: www.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	return conn, r, resp.StatusCode
}

// Tunnels hold no requests, and are so many at most.
func TestMissesBesideTunnels(t *testing.T) {
	overProtocols(t, testMissesBesideTunnels, protoHTTP1, protoTLS1)
}

func testMissesBesideTunnels(t *testing.T, p protocol) {
	e := p.newEdge(t, holdServer, small)
	for i := range 10 {
		conn, r, status := e.upgrade(t)
		if want := map[bool]int{true: 101, false: 503}[i < 8]; status != want {
			t.Fatalf("tunnel %d: %d, want %d", i, status, want)
		}
		if status == 101 {
			_, _ = io.WriteString(conn, "hello\n")
			if line, err := r.ReadString('\n'); line != "hello\n" {
				t.Errorf("%q, %v", line, err)
			}
		}
		defer conn.Close()
	}
	if streams, tunnels := e.held(); streams != 0 || tunnels != 8 {
		t.Errorf("%d stream, with %d tunnels", streams, tunnels)
	}
	e.wantMisses(t)
}

// A tunnel that nothing goes through ends.
func TestIdleTunnel(t *testing.T) { overProtocols(t, testIdleTunnel, protoHTTP1, protoTLS1) }

func testIdleTunnel(t *testing.T, p protocol) {
	e := p.newEdge(t, holdServer, func(s *Server, _ *site.Site) { s.tunnelIdle = 20 * time.Millisecond })
	_, r, status := e.upgrade(t)
	if status != 101 {
		t.Fatal(status)
	}
	if b, err := r.ReadByte(); err != io.EOF {
		t.Errorf("%d, %v", b, err)
	}
	if n := counted(t, e, "kaiku_edge_tunnels_idle_total"); n != 1 {
		t.Errorf("%v are counted", n)
	}
	testwait.Until(t, "its place is given back", func() bool { _, n := e.held(); return n == 0 })
}

// A client that sends a byte now and then is told that this is too slow, and holds nothing any
// more, whatever the protocol.
func TestTricklingUpload(t *testing.T) { overProtocols(t, testTricklingUpload) }

func testTricklingUpload(t *testing.T, p protocol) {
	e := p.newEdge(t, holdServer, func(s *Server, _ *site.Site) { s.bodyTimeout = 300 * time.Millisecond })
	for _, known := range []bool{true, false} {
		body, client := io.Pipe()
		r, err := http.NewRequestWithContext(t.Context(), "POST", e.url("/upload"), body)
		if err != nil {
			t.Fatal(err)
		}
		if known {
			r.ContentLength = 1 << 20
		}
		go func() {
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for _, err := client.Write([]byte("x")); err == nil; _, err = client.Write([]byte("x")) {
				<-tick.C
			}
		}()
		resp, err := e.client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		body.Close()
		if resp.StatusCode != http.StatusRequestTimeout {
			t.Errorf("known length %v: %s", known, resp.Status)
		}
	}
	if n := counted(t, e, "kaiku_edge_bodies_slow_total"); n != 2 {
		t.Errorf("%v are counted", n)
	}
	testwait.Until(t, "all is given back", func() bool { n, _ := e.held(); return n == 0 })
	for _, s := range e.site.Origin.Origin.Status().Servers {
		if len(s.Failures) > 0 {
			t.Errorf("failures: %v", s.Failures)
		}
	}
}

// A request whose answer does not need the body is answered though its client does not send that,
// and the connection does not stay.
func TestAnsweredUploadThatStalls(t *testing.T) {
	overProtocols(t, testAnsweredUploadThatStalls, protoHTTP1, protoTLS1)
}

func testAnsweredUploadThatStalls(t *testing.T, p protocol) {
	e := p.newEdge(t, holdServer, func(s *Server, _ *site.Site) { s.bodyTimeout = 50 * time.Millisecond })
	for _, body := range []string{"Content-Length: 100\r\n\r\nx", "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"} {
		for head, want := range map[string]int{
			"POST / HTTP/1.1\r\nHost: nobody.example\r\n":                     http.StatusMisdirectedRequest,
			"POST " + admin.HealthPath + " HTTP/1.1\r\nHost: www.example\r\n": http.StatusOK,
		} {
			conn := e.dialRaw(t, p.secure())
			_, _ = io.WriteString(conn, head+body)
			r := bufio.NewReader(conn)
			resp, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, r); err != nil || resp.StatusCode != want {
				t.Errorf("%s, want %d; then %v", resp.Status, want, err)
			}
			conn.Close()
		}
	}
}

// A client that ends its sending side while it waits is one that left: it does not get an empty
// response.
func TestHalfClosed(t *testing.T) {
	asked := make(chan struct{})
	e := newEdge(t, func(_ http.ResponseWriter, r *http.Request) {
		close(asked)
		<-r.Context().Done()
	})
	conn := e.dialRaw(t, false)
	_, _ = io.WriteString(conn, "GET /slow HTTP/1.1\r\nHost: www.example\r\n\r\n")
	<-asked
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(conn); len(b) > 0 || err != nil {
		t.Errorf("%q, %v", b, err)
	}
}

// What a response waits for its client to take, it waits in the list of senders, whether it is
// stored or passed through.
func TestPassedResponseIsWatched(t *testing.T) {
	e := newSecure(t, holdServer, 1)
	a := e.attack(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	go a.drain()
	for i := range 4 {
		if _, err := a.ask(fmt.Sprint("/large", i)); err != nil {
			t.Fatal(err)
		}
	}
	testwait.Until(t, "all wait to write", func() bool { return e.front.Waiting() == 4 })
	e.front.Expire(time.Now().Add(front.SendTimeout))
	testwait.Until(t, "they are given up", func() bool { return e.front.Active() == 0 })
	testwait.Until(t, "their places are given back", func() bool { n, _ := e.held(); return n == 0 })
	if n := counted(t, e, "kaiku_edge_writes_slow_total"); n != 4 {
		t.Errorf("%v are counted", n)
	}
}

// from has clients of the edge come from other addresses: one of 127.0.0.0/8 is taken for the one
// of 192.0.2.0/24 with the same end.
type from struct{ net.Listener }

func (l from) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	a := *c.RemoteAddr().(*net.TCPAddr)
	a.IP = net.IPv4(192, 0, 2, a.IP.To4()[3])
	return &fromConn{c.(*net.TCPConn), &a}, nil
}

type fromConn struct {
	*net.TCPConn
	addr net.Addr
}

func (c *fromConn) RemoteAddr() net.Addr { return c.addr }

// One client has no more than its share of the origin, and others are served meanwhile, also what
// it asks for too.
func TestShareOfAClient(t *testing.T) {
	overProtocols(t, testShareOfAClient, protoHTTP1, protoTLS1, protoHTTP2, protoHTTP2Go)
}

func testShareOfAClient(t *testing.T, p protocol) {
	release := make(chan struct{})
	e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/slow") {
			<-release
		}
		w.Header().Set("Cache-Control", "max-age=1000")
		_, _ = io.WriteString(w, "stored")
	}, func(s *Server, site *site.Site) {
		site.Origin.Origin.MaxRequests, site.Origin.Origin.QueueTimeout = 64, 10*time.Second
		s.ListenTCP = func(ctx context.Context, addr string) (net.Listener, error) {
			l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
			return from{l}, err
		}
	})
	client := func(last byte) *http.Client {
		c := e.newClient()
		transport := c.Transport.(*http.Transport)
		transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
			addr := e.Addr().String()
			if p.secure() {
				addr = e.SecureAddr().String()
			}
			return (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, last)}}).DialContext(ctx, network, addr)
		}
		return c
	}
	alice, bob := client(2), client(3)
	get := func(c *http.Client, path string) (int, string) {
		resp, err := c.Do(e.request("GET", path, ""))
		if err != nil {
			t.Error(err)
			return 0, ""
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b)
	}
	var work sync.WaitGroup
	for i := range 20 { // of which 16 have a place
		work.Go(func() {
			if status, body := get(alice, fmt.Sprint("/slow", i)); status != 200 || body != "stored" {
				t.Errorf("alice: %d %q", status, body)
			}
		})
	}
	testwait.Until(t, "alice has her share, and waits for the rest", func() bool {
		st := e.site.Origin.Origin.Status()
		return st.Servers[0].InFlight == 16 && st.Waiting == 4
	})
	work.Go(func() { get(alice, "/both") })
	testwait.Until(t, "she waits for that too", func() bool { return e.site.Origin.Origin.Status().Waiting == 5 })
	for _, path := range []string{"/both", "/other"} {
		if status, body := get(bob, path); status != 200 || body != "stored" {
			t.Errorf("bob asks for %s: %d %q", path, status, body)
		}
	}
	if st := e.site.Origin.Origin.Status(); st.Servers[0].InFlight != 16 || st.Waiting != 5 {
		t.Errorf("%d in flight, %d wait", st.Servers[0].InFlight, st.Waiting)
	}
	close(release)
	work.Wait()
	if e.cache.Failing() != 0 {
		t.Errorf("there are failures of the origin: %d", e.cache.Failing())
	}
}
