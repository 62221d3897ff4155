package origin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// testServer is an origin on loopback that counts requests.
type testServer struct {
	*httptest.Server
	requests atomic.Int64
}

// newServer starts a server whose responses are its name.
func newServer(t *testing.T, name string) *testServer {
	t.Helper()
	s := &testServer{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.requests.Add(1)
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, name)
	}))
	t.Cleanup(s.Server.Close)
	return s
}

// closedURL returns the URL of a port that nothing listens on.
func closedURL(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return "http://" + l.Addr().String()
}

func serverAt(t testing.TB, raw string) Server {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return Server{URL: u}
}

func asBackup(s Server) Server {
	s.Backup = true
	return s
}

func withWeight(s Server, weight int) Server {
	s.Weight = weight
	return s
}

func startPool(t testing.TB, p *Pool) *Pool {
	t.Helper()
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// request returns a request like those that an edge sends.
func request(t testing.TB, method, path, body string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body == "" {
		r.Body = http.NoBody
	}
	r.Host = "www.example"
	return r
}

// fetchBody sends r and returns the body of the response.
func fetchBody(t *testing.T, p *Pool, r *http.Request) (string, error) {
	t.Helper()
	resp, err := p.Fetch(r, FetchOptions{})
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b), nil
}

// noPlaceTaken waits until all places at the servers are free.
func noPlaceTaken(t *testing.T, p *Pool) {
	t.Helper()
	testwait.Until(t, "all places are given back", func() bool {
		for _, s := range p.Status().Servers {
			if s.InFlight+s.Tunnels != 0 {
				return false
			}
		}
		return true
	})
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, b := range p.all {
		if b.inFlight != 0 || b.waiting != 0 || b.streams != 0 || len(b.clients)+len(b.tunnelClients) != 0 {
			t.Errorf("%s: %d in flight, %d without an answer, %d stream, of %d and %d clients", b.addr, b.inFlight,
				b.waiting, b.streams, len(b.clients), len(b.tunnelClients))
		}
	}
}

func TestRetries(t *testing.T) {
	for _, c := range []struct {
		name     string
		method   string
		body     string
		downs    int // number of servers that are down, before the one that is up
		retries  int
		answered bool
	}{
		{"the next one", "GET", "", 1, 1, true},
		{"the one after", "GET", "", 2, 2, true},
		{"no retries left", "GET", "", 2, 1, false},
		{"no retries", "GET", "", 1, 0, false},
		{"more retries than servers", "GET", "", 1, 9, true},
		{"HEAD", "HEAD", "", 1, 1, true},
		{"OPTIONS", "OPTIONS", "", 1, 1, true},
		// If there was no connection, nothing was sent, so any request may go to another server.
		{"POST", "POST", "", 1, 2, true},
		{"POST with a body", "POST", "x", 1, 2, true},
		{"PATCH", "PATCH", "x", 2, 2, true},
		{"GET with a body", "GET", "x", 1, 2, true},
		{"POST without retries", "POST", "x", 1, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			up := newServer(t, "up")
			var servers []Server
			for range c.downs {
				servers = append(servers, serverAt(t, closedURL(t)))
			}
			p := startPool(t, &Pool{Servers: append(servers, serverAt(t, up.URL)), Retries: c.retries})
			_, err := fetchBody(t, p, request(t, c.method, "/", c.body))
			if (err == nil) != c.answered || (up.requests.Load() == 1) != c.answered {
				t.Errorf("error %v, the server that is up was asked %d times", err, up.requests.Load())
			}
			if err != nil && Reason(err) != "connect-failed" {
				t.Errorf("reason %q of %v", Reason(err), err)
			}
			noPlaceTaken(t, p)
		})
	}
}

// If a server takes a request and then does not respond, a GET goes to another server. A POST does
// not, as it may have had an effect.
func TestRetryAfterTheRequestWasSent(t *testing.T) {
	var asked atomic.Int64
	broken := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		asked.Add(1)
		panic(http.ErrAbortHandler)
	}))
	defer broken.Close()
	up := newServer(t, "up")
	p := startPool(t, &Pool{Servers: []Server{serverAt(t, broken.URL), serverAt(t, up.URL)}, Retries: 1})
	if got, err := fetchBody(t, p, request(t, "GET", "/", "")); got != "up" || err != nil {
		t.Errorf("GET: %q, %v", got, err)
	}
	p = startPool(t, &Pool{Servers: []Server{serverAt(t, broken.URL), serverAt(t, up.URL)}, Retries: 1})
	_, err := fetchBody(t, p, request(t, "POST", "/", "x"))
	if err == nil || Reason(err) != "connection-error" || IsTimeout(err) {
		t.Errorf("POST: %v", err)
	}
	if asked.Load() != 2 || up.requests.Load() != 1 {
		t.Errorf("the broken server was asked %d times, the other %d", asked.Load(), up.requests.Load())
	}
}

// newStatusServer starts a server that responds with a status and its name.
func newStatusServer(t *testing.T, status int, name string) *testServer {
	t.Helper()
	s := &testServer{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		s.requests.Add(1)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, name)
	}))
	t.Cleanup(s.Server.Close)
	return s
}

// A status that means that the server is unable to respond now makes a GET go to another server.
// All other statuses, and all responses to a POST, are returned.
func TestRetryOfAnError(t *testing.T) {
	for _, c := range []struct {
		method  string
		status  int
		retried bool
	}{
		{"GET", 502, true}, {"GET", 503, true}, {"GET", 504, true}, {"HEAD", 503, true},
		{"GET", 500, false}, {"GET", 404, false}, {"GET", 501, false}, {"POST", 503, false}, {"PUT", 502, false},
	} {
		t.Run(fmt.Sprint(c.method, c.status), func(t *testing.T) {
			failing, up := newStatusServer(t, c.status, "failing"), newServer(t, "up")
			p := startPool(t, &Pool{Servers: []Server{serverAt(t, failing.URL), serverAt(t, up.URL)}, Retries: 1})
			resp, err := p.Fetch(request(t, c.method, "/", ""), FetchOptions{})
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if want := map[bool]int{true: 200, false: c.status}[c.retried]; resp.StatusCode != want ||
				(up.requests.Load() == 1) != c.retried {
				t.Errorf("status %d, want %d; the other was asked %d times", resp.StatusCode, want, up.requests.Load())
			}
			if n := p.Status().Retries; n != uint64(up.requests.Load()) {
				t.Errorf("%d retries are counted", n)
			}
		})
	}
}

// If no server does better, the client gets the last error response with its body. A response is
// preferred to an error.
func TestErrorOfAllServers(t *testing.T) {
	for _, c := range []struct {
		name    string
		servers []Server
		want    string
	}{
		{"two answers", []Server{serverAt(t, newStatusServer(t, 503, "a").URL),
			serverAt(t, newStatusServer(t, 502, "b").URL)}, "b"},
		{"an answer before none", []Server{serverAt(t, newStatusServer(t, 503, "a").URL), serverAt(t, closedURL(t))},
			"a"},
		{"an answer after none", []Server{serverAt(t, closedURL(t)), serverAt(t, newStatusServer(t, 503, "a").URL)},
			"a"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := startPool(t, &Pool{Servers: c.servers, Retries: 2})
			if got, err := fetchBody(t, p, request(t, "GET", "/", "")); got != c.want || err != nil {
				t.Errorf("%q, %v, want %q", got, err, c.want)
			}
			noPlaceTaken(t, p)
		})
	}
}

func TestBackupsLast(t *testing.T) {
	main, spare := newServer(t, "main"), newServer(t, "spare")
	p := startPool(t, &Pool{Servers: []Server{asBackup(serverAt(t, spare.URL)), serverAt(t, closedURL(t)),
		serverAt(t, main.URL)}, Retries: 2})
	for range 20 {
		if got, err := fetchBody(t, p, request(t, "GET", "/", "")); got != "main" || err != nil {
			t.Fatalf("%q, %v", got, err)
		}
	}
	if n := spare.requests.Load(); n != 0 {
		t.Errorf("the backup was asked %d times while another answered", n)
	}
	p = startPool(t, &Pool{Servers: []Server{asBackup(serverAt(t, spare.URL)), serverAt(t, closedURL(t)),
		serverAt(t, closedURL(t))}, Retries: 2})
	if got, err := fetchBody(t, p, request(t, "GET", "/", "")); got != "spare" || err != nil {
		t.Errorf("with all others down: %q, %v", got, err)
	}
	p = startPool(t, &Pool{Servers: []Server{asBackup(serverAt(t, spare.URL))}})
	if got, err := fetchBody(t, p, request(t, "POST", "/", "x")); got != "spare" || err != nil {
		t.Errorf("with nothing but a backup: %q, %v", got, err)
	}
}

func TestWeights(t *testing.T) {
	weights := []int{0, 1, 2, 5} // 0 means 1
	p := &Pool{}
	var servers []*testServer
	for _, w := range weights {
		s := newServer(t, "x")
		servers = append(servers, s)
		p.Servers = append(p.Servers, withWeight(serverAt(t, s.URL), w))
	}
	startPool(t, p)
	const rounds = 20
	for range rounds * 9 {
		if _, err := fetchBody(t, p, request(t, "GET", "/", "")); err != nil {
			t.Fatal(err)
		}
	}
	for i, s := range servers {
		if want := int64(rounds * max(1, weights[i])); s.requests.Load() != want {
			t.Errorf("weight %d: asked %d times of %d, want %d", weights[i], s.requests.Load(), rounds*9, want)
		}
	}
}

// A server with a large weight counts as one server for retries.
func TestRetryOfAWeightedServer(t *testing.T) {
	up := newServer(t, "up")
	p := startPool(t, &Pool{Servers: []Server{withWeight(serverAt(t, closedURL(t)), 5), serverAt(t, up.URL)},
		Retries: 1})
	for range 6 {
		if got, err := fetchBody(t, p, request(t, "GET", "/", "")); got != "up" || err != nil {
			t.Fatalf("%q, %v", got, err)
		}
	}
}

func TestContextEndsIt(t *testing.T) {
	reached, gone := make(chan struct{}), make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(reached)
		<-r.Context().Done()
		close(gone)
	}))
	defer slow.Close()
	up := newServer(t, "up")
	p := startPool(t, &Pool{Servers: []Server{serverAt(t, slow.URL), serverAt(t, up.URL)}, Retries: 1})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-reached
		cancel()
	}()
	_, err := p.Fetch(request(t, "GET", "/", "").WithContext(ctx), FetchOptions{})
	if !errors.Is(err, context.Canceled) || Reason(err) != "canceled" || IsTimeout(err) {
		t.Errorf("error %v, reason %q", err, Reason(err))
	}
	<-gone
	if n := up.requests.Load(); n != 0 {
		t.Errorf("who left is not asked for again: %d", n)
	}
}
