package origin

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	alice = netip.MustParsePrefix("192.0.2.1/32")
	bob   = netip.MustParsePrefix("2001:db8:1:2::/64")
)

func TestLimitsOfAClient(t *testing.T) {
	for _, c := range []struct{ limit, client, streams int }{{1, 1, 1}, {2, 2, 2}, {4, 3, 3}, {8, 6, 6}, {20, 15, 15},
		{32, 16, 24}, {64, 16, 48}, {1024, 256, 768}} {
		if client, streams := clientLimit(c.limit), streamLimit(c.limit); client != c.client || streams != c.streams {
			t.Errorf("of %d a client may have %d, want %d; streams %d, want %d", c.limit, client, c.client, streams,
				c.streams)
		}
	}
}

// fillPlaces takes places for requests like a until none is free. It returns them and the reason
// why no further one is free.
func fillPlaces(p *Pool, a FetchOptions) (places []*place, has room) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(places) < 10_000 {
		pl, r := p.take(time.Now(), &a, 0)
		if pl == nil {
			return places, r
		}
		places = append(places, pl)
	}
	return places, roomFree
}

// No client and no kind of request can take all places.
func TestPlaces(t *testing.T) {
	for _, c := range []struct {
		name string
		pool *Pool
		asks []FetchOptions
		want []int
		has  []room
	}{
		{"fetches of nobody take all", &Pool{MaxRequests: 64}, []FetchOptions{{}, {Client: alice}}, []int{64, 0},
			[]room{roomFull, roomFull}},
		{"one client leaves room for another one", &Pool{MaxRequests: 64},
			[]FetchOptions{{Client: alice}, {Client: bob}},
			[]int{16, 16}, []room{roomShareUsed, roomShareUsed}},
		{"what streams leaves room for fetches", &Pool{MaxRequests: 64},
			[]FetchOptions{{Streams: true}, {Streams: true, Client: alice}, {Client: alice}, {}}, []int{48, 0, 16, 0},
			[]room{roomFull, roomFull, roomFull, roomFull}},
		{"tunnels are counted apart when they are there", &Pool{MaxRequests: 8},
			[]FetchOptions{{upgrade: true, Streams: true}, {}}, []int{6, 2}, []room{roomFull, roomFull}},
		{"one client's tunnels", &Pool{MaxRequests: 64},
			[]FetchOptions{{upgrade: true, Streams: true, Client: alice}, {upgrade: true, Streams: true, Client: bob}},
			[]int{16,
				16}, []room{roomShareUsed, roomShareUsed}},
		{"connections are a limit too", &Pool{MaxRequests: 64, MaxConnections: 8},
			[]FetchOptions{{Client: alice}, {Client: bob}}, []int{6, 2}, []room{roomShareUsed, roomFull}},
		{"a server that takes one at a time", &Pool{MaxRequests: 1}, []FetchOptions{{Client: alice, Streams: true}},
			[]int{1},
			[]room{roomFull}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newIdlePool(t, c.pool, 1)
			var all []*place
			for i, a := range c.asks {
				got, has := fillPlaces(p, a)
				if len(got) != c.want[i] || has != c.has[i] {
					t.Errorf("kind %d: %d places, then %v; want %d, %v", i, len(got), has, c.want[i], c.has[i])
				}
				all = append(all, got...)
			}
			for _, pl := range all {
				p.release(pl)
			}
			noPlaceTaken(t, p)
			for i, a := range c.asks[:1] {
				if got, _ := fillPlaces(p, a); len(got) != c.want[i] {
					t.Errorf("when all are given back there are %d", len(got))
				}
			}
		})
	}
}

// A client that has used its share waits for its own requests to end, and does not delay other
// clients.
func TestWaitingForTheOwnShare(t *testing.T) {
	s := newServer(t, "up")
	p := startPool(t, &Pool{Servers: []Server{serverAt(t, s.URL)}, MaxRequests: 64, QueueTimeout: time.Minute,
		Log: discardLog})
	held, _ := fillPlaces(p, FetchOptions{Client: alice})
	fetch := func(a FetchOptions) error {
		resp, err := p.Fetch(request(t, "GET", "/", ""), a)
		if err == nil {
			resp.Body.Close()
		}
		return err
	}
	if err := fetch(FetchOptions{Client: alice, Shared: true}); !errors.Is(err, ErrShare) ||
		Reason(err) != "client-limit" {
		t.Errorf("what others wait for too: %v", err)
	}
	got := make(chan error)
	go func() { got <- fetch(FetchOptions{Client: alice}) }()
	waitForQueue(t, p, 1)
	if err := fetch(FetchOptions{Client: bob}); err != nil {
		t.Errorf("another client: %v", err)
	}
	if err := fetch(FetchOptions{}); err != nil {
		t.Errorf("one that has no limit: %v", err)
	}
	waitForQueue(t, p, 1)
	p.release(held[0])
	if err := <-got; err != nil {
		t.Errorf("when one of its own has ended: %v", err)
	}
	if st := p.Status(); st.Limited != 1 || st.Refused != 0 {
		t.Errorf("%d limited, %d refused", st.Limited, st.Refused)
	}
	for _, pl := range held[1:] {
		p.release(pl)
	}
	noPlaceTaken(t, p)
}

func TestWaitingInVainForTheOwnShare(t *testing.T) {
	p := newIdlePool(t, &Pool{MaxRequests: 64, QueueTimeout: 10 * time.Millisecond, Log: discardLog}, 1)
	_, _ = fillPlaces(p, FetchOptions{Client: alice})
	if _, err := p.acquire(t.Context(), &FetchOptions{Client: alice}); !errors.Is(err, ErrShare) {
		t.Errorf("error %v", err)
	}
	_, _ = fillPlaces(p, FetchOptions{})
	if _, err := p.acquire(t.Context(), &FetchOptions{Client: bob}); !errors.Is(err, ErrBusy) {
		t.Errorf("with all places taken: %v", err)
	}
}

// The queue is shared out like the places.
func TestQueueIsShared(t *testing.T) {
	p := newIdlePool(t, &Pool{MaxRequests: 1, Queue: 64, QueueTimeout: time.Minute, Log: discardLog}, 1)
	first, _ := fillPlaces(p, FetchOptions{})
	ctx, leave := context.WithCancel(t.Context())
	var work sync.WaitGroup
	before := 0
	for _, c := range []struct {
		name string
		ask  FetchOptions
		n    int
		want error // error of one more request
	}{
		{"one client", FetchOptions{Client: alice, Streams: true}, 16, ErrShare},
		{"what streams", FetchOptions{Streams: true}, 48 - 16, ErrBusy},
		{"all others", FetchOptions{Client: bob}, 16, ErrShare},
		{"nobody", FetchOptions{}, 0, ErrBusy},
	} {
		for range c.n {
			work.Go(func() {
				if _, err := p.acquire(ctx, &c.ask); !errors.Is(err, context.Canceled) {
					t.Errorf("%s: %v", c.name, err)
				}
			})
		}
		before += c.n
		waitForQueue(t, p, before)
		if _, err := p.acquire(ctx, &c.ask); !errors.Is(err, c.want) {
			t.Errorf("%s: one more: %v, want %v", c.name, err, c.want)
		}
	}
	leave()
	work.Wait()
	waitForQueue(t, p, 0)
	p.mu.Lock()
	if p.streams != 0 || len(p.clients) != 0 {
		t.Errorf("%d stream, of %d clients", p.streams, len(p.clients))
	}
	p.mu.Unlock()
	p.release(first[0])
}

// A request that may not have a place yet lets later requests pass that may.
func TestQueueLetsOthersGoFirst(t *testing.T) {
	p := newIdlePool(t, &Pool{MaxRequests: 8, QueueTimeout: time.Minute, Log: discardLog}, 1)
	streams, _ := fillPlaces(p, FetchOptions{Streams: true})
	rest, _ := fillPlaces(p, FetchOptions{})
	got := make(chan string)
	wait := func(who string, a FetchOptions) {
		n := p.Status().Waiting
		go func() {
			if _, err := p.acquire(t.Context(), &a); err != nil {
				who = err.Error()
			}
			got <- who
		}()
		waitForQueue(t, p, n+1)
	}
	wait("stream", FetchOptions{Streams: true})
	wait("upgrade", FetchOptions{Streams: true, upgrade: true})
	wait("fetch", FetchOptions{})
	p.release(rest[0])
	if who := <-got; who != "fetch" {
		t.Errorf("the %s has the place that is left for fetches", who)
	}
	for _, want := range []string{"stream", "upgrade"} {
		p.release(streams[0])
		streams = streams[1:]
		if who := <-got; who != want {
			t.Errorf("the %s has the place of a stream, want the %s", who, want)
		}
	}
}

// An uncacheable response counts among those that a client can hold open. Stream reports when there
// are too many.
func TestStream(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_,
			_ = io.WriteString(w, "body")
	}))
	defer s.Close()
	p := startPool(t, &Pool{Servers: []Server{serverAt(t, s.URL)}, MaxRequests: 4, Log: discardLog})
	for n := range 4 {
		resp, err := p.Fetch(request(t, "GET", "/", ""), FetchOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if ok := Stream(resp.Body); ok != (n < 3) {
			t.Errorf("number %d: room %v", n+1, ok)
		}
		Stream(resp.Body) // counts only once
		if got := p.Status().Servers[0].Streams; got != n+1 {
			t.Errorf("%d stream, want %d", got, n+1)
		}
	}
}

// Established tunnels use no place of requests. They have a limit of their own.
func TestTunnels(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "" || r.URL.Path == "/no" {
			_, _ = io.WriteString(w, "no tunnel")
			return
		}
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		_ = rw.Flush()
		_, _ = io.Copy(c, rw)
	}))
	defer s.Close()
	for _, connections := range []int{0, 4} {
		p := startPool(t, &Pool{Servers: []Server{serverAt(t, s.URL)}, MaxRequests: 4, MaxConnections: connections,
			QueueTimeout: 300 * time.Millisecond, Log: discardLog})
		upgrade := func(path string) (*http.Response, error) {
			r := request(t, "GET", path, "")
			r.Header.Set("Connection", "Upgrade")
			r.Header.Set("Upgrade", "websocket")
			return p.Fetch(r, FetchOptions{})
		}
		want := 4
		if connections > 0 {
			// Each tunnel has a connection, and the last quarter of those is for fetches.
			want = streamLimit(connections)
		}
		var tunnels []*http.Response
		for range want {
			resp, err := upgrade("/")
			if err != nil {
				t.Fatalf("%d tunnels, then: %v", len(tunnels), err)
			}
			tunnels = append(tunnels, resp)
		}
		if st := p.Status().Servers[0]; st.Tunnels != want || st.InFlight != 0 || st.Streams != 0 {
			t.Errorf("%d tunnels, %d requests, %d stream", st.Tunnels, st.InFlight, st.Streams)
		}
		if _, err := upgrade("/"); !errors.Is(err, ErrBusy) {
			t.Errorf("one more tunnel: %v", err)
		}
		for range 8 {
			if got, err := fetchBody(t, p, request(t, "GET", "/", "")); got != "no tunnel" || err != nil {
				t.Errorf("beside the tunnels: %q, %v", got, err)
			}
		}
		tunnels[0].Body.Close()
		resp, err := upgrade("/no")
		if err != nil {
			t.Fatal(err)
		}
		if st := p.Status().Servers[0]; st.Tunnels != want-1 || st.InFlight != 1 {
			t.Errorf("after an upgrade that was declined: %d tunnels, %d requests", st.Tunnels, st.InFlight)
		}
		resp.Body.Close()
		if resp, err = upgrade("/"); err != nil {
			t.Fatal(err)
		}
		rw := resp.Body.(io.ReadWriteCloser)
		_, _ = io.WriteString(rw, "hello\n")
		if line, err := bufio.NewReader(rw).ReadString('\n'); !strings.HasPrefix(line, "hello") {
			t.Errorf("%q, %v", line, err)
		}
		for _, resp := range append(tunnels, resp) {
			resp.Body.Close()
		}
		noPlaceTaken(t, p)
	}
}
