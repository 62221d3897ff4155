package origin

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// newFullPool returns a pool whose only place is taken by a response whose body is not read yet.
func newFullPool(t *testing.T, p *Pool) (*Pool, *http.Response) {
	t.Helper()
	s := newServer(t, "up")
	p.Servers, p.MaxRequests, p.Log = []Server{serverAt(t, s.URL)}, 1, discardLog
	startPool(t, p)
	resp, err := p.Fetch(request(t, "GET", "/", ""), FetchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return p, resp
}

func waitForQueue(t *testing.T, p *Pool, n int) {
	t.Helper()
	testwait.Until(t, strconv.Itoa(n)+" requests wait", func() bool { return p.Status().Waiting == n })
}

// A free place goes to the request that waited longest.
func TestQueueIsFirstComeFirstServed(t *testing.T) {
	p, first := newFullPool(t, &Pool{QueueTimeout: time.Minute})
	const n = 5
	served := make(chan int)
	leave := make(chan struct{})
	for i := range n {
		go func() {
			resp, err := p.Fetch(request(t, "GET", "/", ""), FetchOptions{})
			if err != nil {
				t.Error(err)
				served <- -1
				return
			}
			served <- i
			<-leave
			resp.Body.Close()
		}()
		waitForQueue(t, p, i+1)
	}
	first.Body.Close()
	for i := range n {
		if got := <-served; got != i {
			t.Fatalf("request %d is served, it is the turn of %d", got, i)
		}
		if st := p.Status(); st.Servers[0].InFlight != 1 || st.Waiting != n-1-i {
			t.Errorf("%d in flight, %d wait", st.Servers[0].InFlight, st.Waiting)
		}
		leave <- struct{}{}
	}
	noPlaceTaken(t, p)
}

func TestQueueIsBounded(t *testing.T) {
	p, first := newFullPool(t, &Pool{Queue: 1, QueueTimeout: time.Minute})
	got := make(chan error, 1)
	go func() {
		_, err := fetchBody(t, p, request(t, "GET", "/", ""))
		got <- err
	}()
	waitForQueue(t, p, 1)
	// If this request had to wait, it would wait for a minute.
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if _, err := fetchBody(t, p, request(t, "GET", "/", "").WithContext(ctx)); !errors.Is(err, ErrBusy) ||
		Reason(err) != "origin-busy" || IsTimeout(err) {
		t.Errorf("with a full queue: %v", err)
	}
	first.Body.Close()
	if err := <-got; err != nil {
		t.Errorf("the one that waited: %v", err)
	}
	if n := p.Status().Refused; n != 1 {
		t.Errorf("%d are counted as refused", n)
	}
}

func TestLeavingTheQueue(t *testing.T) {
	p, first := newFullPool(t, &Pool{QueueTimeout: 300 * time.Millisecond})
	if _, err := fetchBody(t, p, request(t, "GET", "/", "")); !errors.Is(err, ErrBusy) {
		t.Errorf("after the wait: %v", err)
	}
	waitForQueue(t, p, 0)
	first.Body.Close()
	if _, err := fetchBody(t, p, request(t, "GET", "/", "")); err != nil {
		t.Errorf("with room again: %v", err)
	}

	p, first = newFullPool(t, &Pool{QueueTimeout: time.Minute})
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan error, 1)
	go func() {
		_, err := fetchBody(t, p, request(t, "GET", "/", "").WithContext(ctx))
		got <- err
	}()
	waitForQueue(t, p, 1)
	cancel()
	if err := <-got; !errors.Is(err, context.Canceled) || errors.Is(err, ErrBusy) {
		t.Errorf("who left: %v", err)
	}
	waitForQueue(t, p, 0)
	first.Body.Close()
	noPlaceTaken(t, p)
}

// A request that waits for a server that goes down fails, and one that waits is served when another
// server comes back.
func TestQueueFollowsTheServers(t *testing.T) {
	for _, c := range []struct {
		name          string
		before, after []string
		want          string
	}{
		{"another comes back", []string{"", "refuses"}, []string{"", ""}, "b"},
		{"the only one is down, which a trial is to find out", []string{"", "refuses"}, []string{"refuses", "refuses"},
			"b"},
	} {
		p := newIdlePool(t, &Pool{MaxRequests: 1, QueueTimeout: time.Minute, Log: discardLog}, 1, 1)
		setStates(p, c.before...)
		first, err := p.acquire(t.Context(), &FetchOptions{})
		if serverLetter(first) != "a" || err != nil {
			t.Fatalf("%s, %v", serverLetter(first), err)
		}
		got := make(chan string)
		go func() {
			b, err := p.acquire(t.Context(), &FetchOptions{})
			if err != nil {
				t.Error(err)
			}
			got <- serverLetter(b)
		}()
		waitForQueue(t, p, 1)
		setStates(p, c.after...)
		if g := <-got; g != c.want {
			t.Errorf("%s: it gets %q, want %q", c.name, g, c.want)
		}
	}
}

// endings answers in every way that a response can end, or not.
func endings(t *testing.T, release <-chan struct{}) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/upgrade":
			c, rw, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
			_ = rw.Flush()
			_, _ = io.Copy(c, rw)
		case "/abort":
			panic(http.ErrAbortHandler)
		case "/cut":
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, "x")
		case "/endless":
			_, _ = io.WriteString(w, "x")
			_ = http.NewResponseController(w).Flush()
			select {
			case <-r.Context().Done():
			case <-release:
			}
		case "/silent":
			<-r.Context().Done()
		case "/nothing":
			w.WriteHeader(204)
		default:
			_, _ = io.WriteString(w, "body")
		}
	}
}

// A place is released at the end of a request, however it ends, and not before.
func TestPlacesAreGivenBack(t *testing.T) {
	release := make(chan struct{})
	s := httptest.NewServer(endings(t, release))
	defer s.Close()
	defer close(release)
	read := func(t *testing.T, resp *http.Response) { _, _ = io.ReadAll(resp.Body) }
	shut := func(t *testing.T, resp *http.Response) { resp.Body.Close() }
	for _, c := range []struct {
		name, path string
		end        func(*testing.T, *http.Response) // nil if there is no response
		cancel     bool
	}{
		{"read to the end", "/", read, false},
		{"read and closed", "/", func(t *testing.T, resp *http.Response) {
			read(t, resp)
			shut(t, resp)
			shut(t, resp)
		}, false},
		{"closed at once", "/", shut, false},
		{"closed in the middle", "/endless", shut, false},
		{"no body", "/nothing", shut, false},
		{"cut", "/cut", read, false},
		{"no answer", "/abort", nil, false},
		{"canceled before the answer", "/silent", nil, true},
		{"canceled in the body", "/endless", read, true},
		{"upgraded", "/upgrade", func(t *testing.T, resp *http.Response) {
			rw, ok := resp.Body.(io.ReadWriteCloser)
			if !ok {
				t.Fatalf("the body of an upgrade is a %T", resp.Body)
			}
			_, _ = io.WriteString(rw, "hello\n")
			if line, err := bufio.NewReader(rw).ReadString('\n'); line != "hello\n" {
				t.Errorf("the echo is %q, %v", line, err)
			}
			resp.Body.Close()
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := startPool(t, &Pool{Servers: []Server{serverAt(t, s.URL)}, MaxRequests: 1, Log: discardLog})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			r := request(t, "GET", c.path, "").WithContext(ctx)
			if strings.Contains(c.path, "upgrade") {
				r.Header.Set("Connection", "upgrade")
				r.Header.Set("Upgrade", "echo")
			}
			if c.cancel && c.end == nil {
				go func() {
					testwait.Until(t, "it is on its way", func() bool { return p.Status().Servers[0].InFlight == 1 })
					cancel()
				}()
			}
			resp, err := p.Fetch(r, FetchOptions{})
			if (err != nil) != (c.end == nil) {
				t.Fatalf("error %v", err)
			}
			if err == nil {
				if st := p.Status().Servers[0]; st.InFlight+st.Tunnels != 1 ||
					st.Tunnels == 1 != (c.name == "upgraded") {
					t.Errorf("before the body ends %d are in flight, with %d tunnels", st.InFlight, st.Tunnels)
				}
				if c.cancel {
					cancel()
				}
				c.end(t, resp)
			}
			noPlaceTaken(t, p)
		})
	}
}
