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
)

// What the bodies of a client network may hold of the edge's memory is bounded; others may send
// theirs.
func TestParkedBodies(t *testing.T) {
	plainOnly(t, "it has clients of its own")
	t.Parallel()
	release := make(chan struct{})
	e := newEdge(t, func(http.ResponseWriter, *http.Request) { <-release }, func(s *Server, site *Site) {
		s.HTTPS, s.Certificates = "127.0.0.1:0", newCertificates(t, "www.example")
		site.Origin.Origin.MaxRequests = 8 * maxParkedOfNetwork / http2RequestWindow // a client has a quarter
		s.ListenTCP = func(ctx context.Context, addr string) (net.Listener, error) {
			l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
			return from{l}, err
		}
	})
	t.Cleanup(func() { close(release) })
	post := func(a *attacker, length int) (stream uint32) {
		id := a.next
		a.next += 2
		block := bytes.Clone(a.headers("POST", "/", hpack.HeaderField{Name: "content-length", Value: strconv.Itoa(length)}))
		if err := a.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block, EndHeaders: true}); err != nil {
			t.Fatal(err)
		}
		return id
	}
	var first *attacker
	for i := range maxParkedOfNetwork / http2ConnectionWindow {
		a := e.attack()
		for range 2 + http2ConnectionWindow/http2RequestWindow { // more than its window has
			post(a, 1<<30)
		}
		if i == 0 {
			first = a
		} else {
			go a.drain()
		}
	}
	parked := &e.conns.underWay.parked
	until(t, "the network has all that it may", func() bool { return parked.Load() == maxParkedOfNetwork })
	a := e.attack()
	a.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if got := a.answerTo(post(a, 1)); got.status != http.StatusTooManyRequests {
		t.Errorf("one more gets %d, %v", got.status, got.err)
	}
	_ = first.conn.Close()
	until(t, "what is over counts no longer", func() bool { return parked.Load() == maxParkedOfNetwork-http2ConnectionWindow })
}

// What counts is what the windows let in, and all of it is taken back.
func TestParkedBytes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		proto  int
		length int64
		want   [3]int64 // after each of three requests on a connection
	}{
		{1, 1 << 30, [3]int64{}},
		{2, 0, [3]int64{}},
		{2, 1000, [3]int64{1000, 2000, 3000}},
		{2, -1, [3]int64{256 << 10, 512 << 10, 768 << 10}},
		{3, 1 << 30, [3]int64{1 << 20, 2 << 20, 2 << 20}},
	} {
		u, network := newUnderWay(), &share{}
		from := &client{share: network}
		var releases []func()
		for _, want := range c.want {
			release, status, _ := u.park(from, c.proto, c.length)
			if got := network.parked.Load(); got != want || u.parked.Load() != want || status != 0 {
				t.Errorf("%+v: %d, status %d", c, got, status)
			}
			releases = append(releases, release, release)
		}
		for _, release := range releases {
			release()
		}
		if network.parked.Load() != 0 || u.parked.Load() != 0 || from.parked.Load() != 0 {
			t.Errorf("%+v: %d are left", c, network.parked.Load())
		}
	}
	u := newUnderWay()
	for range maxParked / http3ConnectionWindow {
		for range 2 {
			_, _, _ = u.park(&client{}, 3, -1)
		}
	}
	if _, status, _ := u.park(&client{}, 2, 1); status != http.StatusServiceUnavailable {
		t.Errorf("of all clients, one too many gets %d", status)
	}
}

// A request that was taken as one without a body may send one after all.
func TestParkedBodyThatComesLate(t *testing.T) {
	plainOnly(t, "it has clients of its own")
	t.Parallel()
	release := make(chan struct{})
	e := newEdge(t, func(http.ResponseWriter, *http.Request) { <-release }, func(s *Server, _ *Site) {
		s.HTTPS, s.Certificates, s.bodyEnd = "127.0.0.1:0", newCertificates(t, "www.example"), time.Millisecond
	})
	a := e.attack()
	go a.drain()
	if err := a.WriteHeaders(http2.HeadersFrameParam{StreamID: a.next, BlockFragment: a.headers("GET", "/"), EndHeaders: true}); err != nil {
		t.Fatal(err)
	}
	parked := &e.conns.underWay.parked
	until(t, "it counts", func() bool { return parked.Load() == http2RequestWindow })
	close(release)
	until(t, "it counts no longer", func() bool { return parked.Load() == 0 })
}
