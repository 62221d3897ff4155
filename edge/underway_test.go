package edge

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/kaiku-cdn/kaiku/edge/front"
	"github.com/kaiku-cdn/kaiku/edge/site"
	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// A client network that has very many requests under way, each large from a few bytes, takes
// bounded memory, and others are served.
func TestRequestsUnderWay(t *testing.T) {
	e := newEdge(t, static("x", "Cache-Control: max-age=1000"), func(s *Server, _ *site.Site) {
		s.HTTPS, s.Certificates, s.bodyEnd = "127.0.0.1:0", newCertificates(t, "www.example"), time.Hour
		s.ListenTCP = func(ctx context.Context, addr string) (net.Listener, error) {
			l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
			return from{l}, err
		}
	})
	before := heap()
	cookies := make([]hpack.HeaderField, 15)
	for i := range cookies {
		cookies[i] = hpack.HeaderField{Name: "cookie", Value: strings.Repeat("a", 3900)}
	}
	const conns, load = 10, 1 + 15*3900/front.FieldsOfOne
	const fit = front.MaxOfNetwork / load
	for range conns {
		a := e.attack()
		go a.drain()
		for range front.MaxStreams {
			id := a.next
			a.next += 2
			block := bytes.Clone(a.headers("GET", "/a", cookies...)) // whose end of the stream never comes
			if err := a.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block,
				EndHeaders: true}); err != nil {
				t.Fatal(err)
			}
		}
	}
	testwait.Until(t, "the rest is refused", func() bool {
		return e.front.Active() == fit && e.front.Load() == fit*load &&
			counted(t, e, "kaiku_edge_requests_limited_total") == conns*front.MaxStreams-fit
	})
	if grown := heap() - before; grown > 100<<20 {
		t.Errorf("the heap grew by %d MiB", grown>>20)
	}
	get := func(last byte) int {
		c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true,
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, last)}}).DialContext(ctx, network,
					e.Addr().String())
			}}}
		resp, err := c.Do(e.request("GET", "/b", "", "Cookie: "+strings.Repeat("a", 60_000)))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		_, _ = io.Copy(io.Discard, resp.Body)
		if resp.StatusCode == http.StatusTooManyRequests && resp.Header.Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
		return resp.StatusCode
	}
	if status := get(1); status != http.StatusTooManyRequests {
		t.Errorf("the same network gets %d", status)
	}
	if status := get(2); status != http.StatusOK {
		t.Errorf("another network gets %d", status)
	}
}
