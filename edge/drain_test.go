package edge

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/site"
	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// What is under way when the edge ends is finished, by each protocol, and nothing is cut; idle
// connections don't hold it.
func TestDrain(t *testing.T) {
	release := make(chan struct{})
	e := newSecure(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/idle" {
			return
		}
		_, _ = io.WriteString(w, "first")
		_ = http.NewResponseController(w).Flush()
		<-release
		_, _ = io.WriteString(w, strings.Repeat("x", 1<<20))
	}, 1)
	type download struct {
		protocol protocol
		body     io.ReadCloser
	}
	var downloads []download
	for _, p := range []protocol{protoHTTP1, protoTLS1, protoHTTP2, protoHTTP3} {
		idle := e.newClientOf(p) // whose connection stays
		resp, err := idle.Get(p.scheme() + "://www.example/idle")
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if resp, err = e.newClientOf(p).Get(p.scheme() + "://www.example/" + string(p)); err != nil {
			t.Fatal(err)
		}
		wantNext(t, resp.Body, "first")
		downloads = append(downloads, download{p, resp.Body})
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		e.stop()
	}()
	testwait.Until(t, "no connection is taken any more", func() bool {
		conn, err := net.Dial("tcp", e.SecureAddr().String())
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	close(release)
	for _, d := range downloads {
		if n, err := io.Copy(io.Discard, d.body); err != nil || n != 1<<20 {
			t.Errorf("%q: %d bytes, %v", d.protocol, n, err)
		}
	}
	<-stopped
	if n := counted(t, e, "kaiku_edge_requests_cut_total"); n != 0 {
		t.Errorf("%v requests were cut", n)
	}
}

// What isn't done when the time is over is cut off and counted, tunnels too.
func TestDrainCuts(t *testing.T) {
	e := newSecure(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "" {
			conn, rw, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return
			}
			defer conn.Close()
			fmt.Fprint(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
			_ = rw.Flush()
			_, _ = io.Copy(conn, rw)
			return
		}
		_, _ = io.WriteString(w, "first")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}, 1, func(s *Server, _ *site.Site) { s.DrainTimeout = 300 * time.Millisecond })
	for _, p := range []protocol{protoTLS1, protoHTTP2, protoHTTP3} {
		resp, err := e.newClientOf(p).Get("https://www.example/" + string(p))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		wantNext(t, resp.Body, "first")
	}
	conn, err := net.Dial("tcp", e.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET /t HTTP/1.1\r\nHost: www.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("no tunnel: %v, %v", resp, err)
	}
	fmt.Fprint(conn, "ping")
	wantNext(t, r, "ping")
	e.stop()
	if n := counted(t, e, "kaiku_edge_requests_cut_total"); n != 4 {
		t.Errorf("%v are counted as cut, want 4", n)
	}
	if _, err := io.Copy(io.Discard, r); err != nil && !strings.Contains(err.Error(), "reset") {
		t.Errorf("the tunnel: %v", err)
	}
	if e.front.Active() != 0 {
		t.Error("something is still under way")
	}
}

// counted is the value of a counter.
func counted(t *testing.T, e *testEdge, name string) float64 {
	t.Helper()
	all, err := e.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if f.GetName() == name {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

// A tunnel may send what it likes.
func TestTunnelIsNoFlood(t *testing.T) {
	e := newEdge(t, func(w http.ResponseWriter, _ *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprint(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		_ = rw.Flush()
		n, _ := io.CopyN(io.Discard, rw, 8<<20)
		fmt.Fprint(conn, n)
	})
	conn, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", e.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET /t HTTP/1.1\r\nHost: www.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	r := bufio.NewReader(conn)
	if resp, err := http.ReadResponse(r, nil); err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("no tunnel: %v, %v", resp, err)
	}
	if _, err := conn.Write(make([]byte, 8<<20)); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(r); err != nil || string(b) != fmt.Sprint(8<<20) {
		t.Errorf("%q, %v", b, err)
	}
}
