package edge

import (
	"context"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/site"
	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// gated answers in steps: each part of the body is sent when the test says go, or when its channel
// is closed.
func gated(fields []string, parts ...string) (http.HandlerFunc, chan struct{}) {
	step := make(chan struct{})
	return func(w http.ResponseWriter, r *http.Request) {
		setFields(w.Header(), fields)
		for _, p := range parts {
			select {
			case <-step:
			case <-r.Context().Done():
				return
			}
			_, _ = io.WriteString(w, p)
			_ = http.NewResponseController(w).Flush()
		}
	}, step
}

// open makes a request and returns with the header block; the body is for the test to read.
func (e *testEdge) open(ctx context.Context, path string, fields ...string) *http.Response {
	e.t.Helper()
	resp, err := e.client.Do(e.request(http.MethodGet, path, "", fields...).WithContext(ctx))
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { resp.Body.Close() })
	return resp
}

// wantNext reads the next bytes of a body.
func wantNext(t *testing.T, r io.Reader, want string) {
	t.Helper()
	b := make([]byte, len(want))
	if _, err := io.ReadFull(r, b); err != nil || string(b) != want {
		t.Fatalf("read %q, %v, want %q", b, err, want)
	}
}

func wantRest(t *testing.T, r io.Reader, want string) {
	t.Helper()
	if b, err := io.ReadAll(r); err != nil || string(b) != want {
		t.Fatalf("read %q, %v, want %q", b, err, want)
	}
}

func TestCoalescing(t *testing.T) { overProtocols(t, testCoalescing) }

func testCoalescing(t *testing.T, p protocol) {
	const clients = 10
	h, step := gated([]string{"Cache-Control: max-age=1000"}, "hello")
	e := p.newEdge(t, h)
	answers := make(chan answer)
	for range clients {
		go func() { answers <- e.do(e.request("GET", "/a", "")) }()
	}
	testwait.Until(t, "all follow one flight", func() bool { return e.followers() == clients })
	close(step)
	collapsed := 0
	for range clients {
		got := <-answers
		got.wants(t, 200, "hello")
		if got.cacheStatus()["collapsed"] == "true" {
			collapsed++
		}
	}
	if collapsed != clients-1 {
		t.Errorf("%d of %d say that they were collapsed", collapsed, clients)
	}
	e.wantHits(1)
}

// Validations coalesce too.
func TestCoalescingOfValidation(t *testing.T) { overProtocols(t, testCoalescingOfValidation) }

func testCoalescingOfValidation(t *testing.T, p protocol) {
	const clients = 5
	var asked atomic.Int64
	release := make(chan struct{})
	e := p.newEdge(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Etag", `"1"`)
		if asked.Add(1) == 1 {
			setFields(w.Header(), stale)
			_, _ = io.WriteString(w, "hello")
			return
		}
		<-release
		w.Header().Set("Cache-Control", "max-age=1000")
		w.WriteHeader(304)
	})
	e.get("/a").wants(t, 200, "hello")
	answers := make(chan answer)
	for range clients {
		go func() { answers <- e.do(e.request("GET", "/a", "")) }()
	}
	testwait.Until(t, "all follow one flight", func() bool { return e.followers() == clients })
	close(release)
	for range clients {
		(<-answers).wants(t, 200, "hello")
	}
	e.wantHits(2)
}

func TestStreaming(t *testing.T) { overProtocols(t, testStreaming) }

func testStreaming(t *testing.T, p protocol) {
	for _, length := range []string{"", "Content-Length: 9"} {
		t.Run(length, func(t *testing.T) {
			fields := []string{"Cache-Control: max-age=1000"}
			if length != "" {
				fields = append(fields, length)
			}
			h, step := gated(fields, "one", "two", "end")
			e := p.newEdge(t, h)
			go func() { step <- struct{}{} }()
			leader := e.open(t.Context(), "/a")
			wantNext(t, leader.Body, "one") // the origin has not sent the rest
			follower := e.open(t.Context(), "/a")
			wantNext(t, follower.Body, "one")
			step <- struct{}{}
			wantNext(t, leader.Body, "two")
			wantNext(t, follower.Body, "two")
			late := e.open(t.Context(), "/a")
			close(step)
			wantRest(t, leader.Body, "end")
			wantRest(t, follower.Body, "end")
			wantRest(t, late.Body, "onetwoend")
			e.settle()
			hit := e.get("/a")
			hit.wants(t, 200, "onetwoend")
			if !hit.isHit() {
				t.Errorf("afterwards: %q", hit.header["Cache-Status"])
			}
			e.wantHits(1)
		})
	}
}

func TestLeaderLeaves(t *testing.T) { overProtocols(t, testLeaderLeaves) }

func testLeaderLeaves(t *testing.T, p protocol) {
	h, step := gated([]string{"Cache-Control: max-age=1000", "Content-Length: 9"}, "one", "two", "end")
	e := p.newEdge(t, h)
	go func() { step <- struct{}{} }()
	ctx, leave := context.WithCancel(t.Context())
	leader := e.open(ctx, "/a")
	wantNext(t, leader.Body, "one")
	follower := e.open(t.Context(), "/a")
	wantNext(t, follower.Body, "one")
	leave()
	testwait.Until(t, "the edge knows that the leader left", func() bool { return e.followers() == 1 })
	close(step)
	wantRest(t, follower.Body, "twoend")
	e.settle()
	if hit := e.get("/a"); !hit.isHit() || hit.body != "onetwoend" {
		t.Errorf("afterwards: %+v", hit)
	}
	e.wantHits(1)
}

// A leader that leaves before there is an answer doesn't take the waiters with it.
func TestLeaderLeavesBeforeTheAnswer(t *testing.T) { overProtocols(t, testLeaderLeavesBeforeTheAnswer) }

func testLeaderLeavesBeforeTheAnswer(t *testing.T, p protocol) {
	h, step := gated([]string{"Cache-Control: max-age=1000"}, "hello")
	e := p.newEdge(t, h)
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan error)
	go func() {
		resp, err := e.client.Do(e.request("GET", "/a", "").WithContext(ctx))
		if err == nil {
			resp.Body.Close()
		}
		left <- err
	}()
	testwait.Until(t, "the leader has asked", func() bool { return e.hits.Load() == 1 })
	waiter := make(chan answer)
	go func() { waiter <- e.do(e.request("GET", "/a", "")) }()
	testwait.Until(t, "the other waits", func() bool { return e.followers() == 2 })
	leave()
	if err := <-left; err == nil {
		t.Error("the leader got an answer")
	}
	testwait.Until(t, "the edge knows that the leader left", func() bool { return e.followers() == 1 })
	close(step)
	(<-waiter).wants(t, 200, "hello")
	e.wantHits(1)
}

// A fetch that nobody follows ends, unless half of it is there.
func TestAllLeave(t *testing.T) { overProtocols(t, testAllLeave) }

func testAllLeave(t *testing.T, p protocol) {
	for _, c := range []struct {
		first  string
		stored bool
	}{{"one", false}, {"onetwo", true}} {
		t.Run(c.first, func(t *testing.T) {
			rest := "onetwoend"[len(c.first):]
			gone := make(chan struct{})
			step := make(chan struct{})
			var asked atomic.Int64
			e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
				setFields(w.Header(), []string{"Cache-Control: max-age=1000", "Content-Length: 9"})
				_, _ = io.WriteString(w, c.first)
				_ = http.NewResponseController(w).Flush()
				if asked.Add(1) == 1 {
					select {
					case <-step:
					case <-r.Context().Done():
						close(gone)
						return
					}
				}
				_, _ = io.WriteString(w, rest)
			})
			ctx, leave := context.WithCancel(t.Context())
			only := e.open(ctx, "/a")
			wantNext(t, only.Body, c.first)
			leave()
			if c.stored {
				testwait.Until(t, "the edge knows that the client left", func() bool { return e.followers() == 0 })
				close(step)
			} else {
				<-gone // the edge ended the fetch
			}
			e.settle()
			got := e.get("/a")
			got.wants(t, 200, "onetwoend")
			if got.isHit() != c.stored {
				t.Errorf("stored: %v, want %v", got.isHit(), c.stored)
			}
		})
	}
}

func TestOriginCutShort(t *testing.T) { overProtocols(t, testOriginCutShort) }

func testOriginCutShort(t *testing.T, p protocol) {
	for _, length := range []string{"9", ""} {
		t.Run("length "+length, func(t *testing.T) {
			var asked atomic.Int64
			e := p.newEdge(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Cache-Control", "max-age=1000")
				if length != "" {
					w.Header().Set("Content-Length", length)
				}
				_, _ = io.WriteString(w, "one")
				_ = http.NewResponseController(w).Flush()
				if asked.Add(1) == 1 {
					panic(http.ErrAbortHandler)
				}
				_, _ = io.WriteString(w, "twoend")
			})
			// The edge may not have sent anything when it learns of the end.
			short := e.doCut(e.request("GET", "/a", ""))
			e.settle()
			if short.err == nil && short.status != 502 || short.body == "onetwoend" {
				t.Errorf("a body cut short looks whole: %+v", short)
			}
			got := e.get("/a")
			got.wants(t, 200, "onetwoend")
			if got.isHit() {
				t.Error("what was cut short was stored")
			}
			e.wantHits(2)
		})
	}
}

// A response that can't be stored goes to the leader; the others ask for themselves, at once and
// all at the same time.
func TestUncacheableReleasesWaiters(t *testing.T) { overProtocols(t, testUncacheableReleasesWaiters) }

func testUncacheableReleasesWaiters(t *testing.T, p protocol) {
	const clients = 5
	var asked, together atomic.Int64
	first, all := make(chan struct{}), make(chan struct{})
	e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		n := asked.Add(1)
		if n == 1 {
			<-first
		} else if together.Add(1) == clients-1 {
			close(all)
		}
		w.Header().Set("Cache-Control", "private")
		w.Header().Set("X-N", strconv.FormatInt(n, 10))
		if n > 1 {
			select {
			case <-all: // they are all here: none waits for another
			case <-r.Context().Done():
			}
		}
		_, _ = io.WriteString(w, "for "+r.Header.Get("X-Me"))
	})
	type mine struct {
		me string
		answer
	}
	answers := make(chan mine)
	for i := range clients {
		go func() {
			me := strconv.Itoa(i)
			answers <- mine{me, e.do(e.request("GET", "/a", "", "X-Me: "+me))}
		}()
	}
	testwait.Until(t, "all follow one flight", func() bool { return e.followers() == clients })
	close(first)
	seen := map[string]bool{}
	for range clients {
		got := <-answers
		got.wants(t, 200, "for "+got.me)
		seen[got.header.Get("X-N")] = true
		if got.cacheStatus()["stored"] != "" {
			t.Errorf("Cache-Status %q", got.header["Cache-Status"])
		}
	}
	if len(seen) != clients {
		t.Errorf("%d clients got %d responses", clients, len(seen))
	}
	e.wantHits(clients)
}

// An uncacheable response streams, and its fetch ends with its client.
func TestUncacheableStreams(t *testing.T) { overProtocols(t, testUncacheableStreams) }

func testUncacheableStreams(t *testing.T, p protocol) {
	gone := make(chan struct{})
	e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		_, _ = io.WriteString(w, "event")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done() // nothing more to say for a long time
		close(gone)
	})
	ctx, leave := context.WithCancel(t.Context())
	resp := e.open(ctx, "/events")
	wantNext(t, resp.Body, "event")
	leave()
	<-gone
}

func TestLargerThanTheStoreTakes(t *testing.T) {
	body := strings.Repeat("0123456789abcdef", 1<<17) // 2 MiB
	for _, length := range []bool{true, false} {
		t.Run("length "+strconv.FormatBool(length), func(t *testing.T) {
			e := newEdge(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Cache-Control", "max-age=1000")
				if length {
					w.Header().Set("Content-Length", strconv.Itoa(len(body)))
				}
				for part := body; part != ""; part = part[1<<16:] {
					_, _ = io.WriteString(w, part[:1<<16])
				}
			}, func(_ *Server, s *site.Site) { s.MaxObject = 100 << 10 })
			for range 2 {
				got := e.get("/a")
				if got.status != 200 || got.err != nil || got.body != body {
					t.Fatalf("got %d, %d bytes, %v, want %d bytes", got.status, len(got.body), got.err, len(body))
				}
				if got.isHit() {
					t.Error("it was stored")
				}
			}
			e.wantHits(2)
		})
	}
}

// An origin that stalls midway is given up, and its followers see their connections end.
func TestStalledBody(t *testing.T) { overProtocols(t, testStalledBody) }

func testStalledBody(t *testing.T, p protocol) {
	h, step := gated([]string{"Cache-Control: max-age=1000", "Content-Length: 10"}, "01234", "56789")
	defer close(step)
	e := p.newEdge(t, h, func(_ *Server, s *site.Site) { s.Origin.Origin.BetweenBytesTimeout = 50 * time.Millisecond })
	go func() { step <- struct{}{} }()
	got := e.do(e.request("GET", "/a", ""))
	if got.err == nil || got.body != "01234" {
		t.Errorf("%q, error %v", got.body, got.err)
	}
	e.settle()
	if e.Store.Get(e.url("/a")) != nil {
		t.Error("a part was stored as the whole")
	}
}
