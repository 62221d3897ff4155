package edge

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// TestSlowLeaderHoldsUpNobody has a client lead a flight and not read the interim responses to it:
// others get the response.
func TestSlowLeaderHoldsUpNobody(t *testing.T) {
	t.Parallel()
	followed := make(chan struct{})
	e := newEdge(t, func(w http.ResponseWriter, _ *http.Request) {
		<-followed
		w.Header().Set("Link", strings.Repeat("x", 200<<10))
		for range 60 { // more than sockets buffer; the edge passes 8 on
			w.WriteHeader(http.StatusEarlyHints)
		}
		w.Header().Del("Link")
		w.Header().Set("Cache-Control", "max-age=60")
		_, _ = io.WriteString(w, "body")
	})
	leader, err := net.Dial("tcp", e.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer leader.Close()
	if err := leader.(*net.TCPConn).SetReadBuffer(64 << 10); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(leader, "GET /a HTTP/1.1\r\nHost: www.example\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	testwait.Until(t, "the leader's request is at the origin", func() bool { return e.hits.Load() == 1 })
	other := make(chan answer)
	go func() { other <- e.do(e.request("GET", "/a", "")) }()
	testwait.Until(t, "another client follows", func() bool { return e.followers() == 2 })
	close(followed)
	(<-other).wants(t, 200, "body")
	in := bufio.NewReader(leader)
	for range 8 {
		if resp, err := http.ReadResponse(in, nil); err != nil || resp.StatusCode != http.StatusEarlyHints {
			t.Fatalf("the leader got %v, %v", resp, err)
		}
	}
	resp, err := http.ReadResponse(in, nil)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("the leader got %v, %v", resp, err)
	}
	defer resp.Body.Close()
	wantRest(t, resp.Body, "body")
	e.wantHits(1)
}

// TestOneWriteOfAMiss has a client see the header block and the body of a small miss in one read,
// as the edge writes them in one.
func TestOneWriteOfAMiss(t *testing.T) {
	t.Parallel()
	body := strings.Repeat("0123456789abcdef", 384) // more than net/http buffers
	e := newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nCache-Control: "+r.URL.Query().Get("cc")+
			"\r\nContent-Length: 6144\r\nConnection: close\r\n\r\n"+body) // also in one write
	})
	for _, cc := range []string{"max-age=60", "no-store"} {
		conn, err := net.Dial("tcp", e.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "GET /a?cc="+cc+" HTTP/1.1\r\nHost: www.example\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 64<<10)
		n, err := conn.Read(got)
		if err != nil || !strings.HasPrefix(string(got[:n]), "HTTP/1.1 200 ") ||
			!strings.HasSuffix(string(got[:n]), body) {
			t.Errorf("%s: one read has %d bytes, %v", cc, n, err)
		}
	}
}
