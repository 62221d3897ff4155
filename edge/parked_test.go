package edge

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"strconv"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/kaiku-cdn/kaiku/edge/front"
	"github.com/kaiku-cdn/kaiku/edge/site"
	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// What the bodies of a client network may hold of the edge's memory is bounded; others may send
// theirs.
func TestParkedBodies(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	e := newEdge(t, func(http.ResponseWriter, *http.Request) { <-release }, func(s *Server, site *site.Site) {
		s.HTTPS, s.Certificates = "127.0.0.1:0", newCertificates(t, "www.example")
		// a client has a quarter
		site.Origin.Origin.MaxRequests = 8 * front.MaxParkedOfNetwork / front.HTTP2RequestWindow
		s.ListenTCP = func(ctx context.Context, addr string) (net.Listener, error) {
			l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
			return from{l}, err
		}
	})
	t.Cleanup(func() { close(release) })
	post := func(a *attacker, length int) (stream uint32) {
		id := a.next
		a.next += 2
		block := bytes.Clone(a.headers("POST", "/",
			hpack.HeaderField{Name: "content-length", Value: strconv.Itoa(length)}))
		if err := a.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block,
			EndHeaders: true}); err != nil {
			t.Fatal(err)
		}
		return id
	}
	var first *attacker
	for i := range front.MaxParkedOfNetwork / front.HTTP2ConnectionWindow {
		a := e.attack()
		for range 2 + front.HTTP2ConnectionWindow/front.HTTP2RequestWindow { // more than its window has
			post(a, 1<<30)
		}
		if i == 0 {
			first = a
		} else {
			go a.drain()
		}
	}
	parked := e.front.Parked
	testwait.Until(t, "the network has all that it may", func() bool { return parked() == front.MaxParkedOfNetwork })
	a := e.attack()
	a.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if got := a.answerTo(post(a, 1)); got.status != http.StatusTooManyRequests {
		t.Errorf("one more gets %d, %v", got.status, got.err)
	}
	_ = first.conn.Close()
	testwait.Until(t, "what is over counts no longer",
		func() bool { return parked() == front.MaxParkedOfNetwork-front.HTTP2ConnectionWindow })
}

// A request that was taken as one without a body may send one after all.
func TestParkedBodyThatComesLate(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	e := newEdge(t, func(http.ResponseWriter, *http.Request) { <-release }, func(s *Server, _ *site.Site) {
		s.HTTPS, s.Certificates, s.bodyEnd = "127.0.0.1:0", newCertificates(t, "www.example"), time.Millisecond
	})
	a := e.attack()
	go a.drain()
	if err := a.WriteHeaders(http2.HeadersFrameParam{StreamID: a.next, BlockFragment: a.headers("GET", "/"),
		EndHeaders: true}); err != nil {
		t.Fatal(err)
	}
	parked := e.front.Parked
	testwait.Until(t, "it counts", func() bool { return parked() == front.HTTP2RequestWindow })
	close(release)
	testwait.Until(t, "it counts no longer", func() bool { return parked() == 0 })
}
