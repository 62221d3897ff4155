package origin

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// A body may take any time as long as data keeps coming. A stalled body ends with an error that
// counts as a timeout.
func TestStalledBody(t *testing.T) {
	gone := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "begin")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		close(gone)
	}))
	defer s.Close()
	p := startPool(t, &Pool{Servers: []Server{serverAt(t, s.URL)}, BetweenBytesTimeout: 50 * time.Millisecond,
		Log: discardLog})
	resp, err := p.Fetch(request(t, "GET", "/", ""), FetchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if string(got) != "begin" || !IsTimeout(err) || Reason(err) != "timeout" {
		t.Errorf("%q, error %v, reason %q", got, err, Reason(err))
	}
	<-gone // the connection to the server is closed
	if f := p.Status().Servers[0].Failures; f["timeout"] != 1 {
		t.Errorf("failures %v", f)
	}
	noPlaceTaken(t, p)
}

// Time that the reader of a body takes does not count as the server's.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	const stall = 200 * time.Millisecond
	body := strings.Repeat("0123456789abcdef", 1<<12)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_,
			_ = io.WriteString(w, body)
	}))
	defer s.Close()
	p := startPool(t, &Pool{Servers: []Server{serverAt(t, s.URL)}, BetweenBytesTimeout: stall, Log: discardLog})
	resp, err := p.Fetch(request(t, "GET", "/", ""), FetchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var got strings.Builder
	for range 4 {
		pause := time.NewTimer(2 * stall) // longer than BetweenBytesTimeout, which is the point of the test
		<-pause.C
		if _, err := io.CopyN(&got, resp.Body, int64(len(body)/4)); err != nil {
			t.Fatalf("after %d bytes: %v", got.Len(), err)
		}
	}
	if got.String() != body {
		t.Errorf("%d bytes, want %d", got.Len(), len(body))
	}
}

// A body that the caller closes is no failure of the server, even if another goroutine is reading.
func TestCloseWhileReading(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	defer s.Close()
	p := startPool(t, &Pool{Servers: []Server{serverAt(t, s.URL)}, Log: discardLog})
	resp, err := p.Fetch(request(t, "GET", "/", ""), FetchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		_, err := resp.Body.Read(make([]byte, 1))
		done <- err
	}()
	resp.Body.Close()
	if err := <-done; err == nil {
		t.Error("a read of a closed body succeeds")
	}
	if _, err := resp.Body.Read(make([]byte, 1)); err == nil {
		t.Error("a later one does")
	}
	if f := p.Status().Servers[0].Failures; len(f) != 0 {
		t.Errorf("failures %v", f)
	}
	noPlaceTaken(t, p)
}

// A server that does not read the request's body does not block the request for ever.
func TestStalledUpload(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err == nil {
			<-t.Context().Done()
			c.Close()
		}
	}()
	p := startPool(t, &Pool{Servers: []Server{serverAt(t, "http://"+l.Addr().String())},
		BetweenBytesTimeout: 50 * time.Millisecond, Log: discardLog})
	r, err := http.NewRequestWithContext(t.Context(), "POST", "/", io.LimitReader(zeros{}, 1<<30))
	if err != nil {
		t.Fatal(err)
	}
	r.Host = "www.example"
	if _, err := fetchBody(t, p, r); !IsTimeout(err) {
		t.Errorf("error %v", err)
	}
	noPlaceTaken(t, p)
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// The body of a request arrives complete at the server that accepts it, even after failed attempts
// to connect to others.
func TestUploadAfterAServerThatIsDown(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body) // net/http drops the rest of the request's body when the response begins
		_, _ = w.Write(b)
	}))
	defer s.Close()
	p := startPool(t, &Pool{Servers: []Server{serverAt(t, closedURL(t)), serverAt(t, closedURL(t)), serverAt(t, s.URL)},
		Retries: 2, Log: discardLog})
	body := strings.Repeat("x", 1<<20)
	r := request(t, "POST", "/", body)
	pr, pw := io.Pipe() // like a client's body, a pipe can't be read after Close
	go func() {
		_, _ = io.WriteString(pw, body)
		pw.Close()
	}()
	r.Body, r.GetBody, r.ContentLength = pr, nil, -1
	if got, err := fetchBody(t, p, r); got != body || err != nil {
		t.Errorf("%d bytes come back, %v", len(got), err)
	}
}

// newSlowServer starts a server that sends to requested for each request and responds once release
// is closed. It sends to canceled when a request's context ends.
func newSlowServer(t *testing.T) (url string, requested chan struct{}, release chan struct{}, canceled chan struct{}) {
	t.Helper()
	requested, release, canceled = make(chan struct{}, 100), make(chan struct{}), make(chan struct{}, 100)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requested <- struct{}{}
		select {
		case <-release:
			_, _ = io.WriteString(w, "slow")
		case <-r.Context().Done():
			canceled <- struct{}{}
		}
	}))
	t.Cleanup(s.Close)
	return s.URL, requested, release, canceled
}

func TestHedge(t *testing.T) {
	u, _, _, ended := newSlowServer(t)
	fast := newServer(t, "fast")
	p := startPool(t, &Pool{Servers: []Server{serverAt(t, u), serverAt(t, fast.URL)}, Retries: 1,
		Hedge: 10 * time.Millisecond, Log: discardLog})
	if got, err := fetchBody(t, p, request(t, "GET", "/", "")); got != "fast" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	<-ended // the slow attempt is canceled
	noPlaceTaken(t, p)
	st := p.Status()
	if st.Hedges != 1 || st.Retries != 0 || len(st.Servers[0].Failures) != 0 {
		t.Errorf("%d hedges, %d retries, failures of the slow one %v", st.Hedges, st.Retries, st.Servers[0].Failures)
	}
}

// The first server may still respond first.
func TestHedgeThatLoses(t *testing.T) {
	u, _, let, _ := newSlowServer(t)
	u2, asked2, _, ended2 := newSlowServer(t)
	p := startPool(t, &Pool{Servers: []Server{serverAt(t, u), serverAt(t, u2)}, Retries: 1, Hedge: time.Millisecond,
		Log: discardLog})
	go func() {
		<-asked2
		close(let)
	}()
	if got, err := fetchBody(t, p, request(t, "GET", "/", "")); got != "slow" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	<-ended2
	noPlaceTaken(t, p)
}

// A failed hedge does no harm: the first server's response is still used. A 503 of the second
// server is kept in case the first one does no better.
func TestHedgeThatFails(t *testing.T) {
	for _, second := range []string{closedURL(t), newStatusServer(t, 503, "no").URL} {
		u, asked, let, _ := newSlowServer(t)
		p := startPool(t, &Pool{Servers: []Server{serverAt(t, u), serverAt(t, second)}, Retries: 1,
			Hedge: time.Millisecond, Log: discardLog})
		go func() {
			<-asked
			testwait.Until(t, "the hedge failed", func() bool { return len(p.Status().Servers[1].Failures) > 0 })
			close(let)
		}()
		if got, err := fetchBody(t, p, request(t, "GET", "/", "")); got != "slow" || err != nil {
			t.Errorf("%s: %q, %v", second, got, err)
		}
		noPlaceTaken(t, p)
	}
}

// No hedge is sent for a request that may not be repeated, without Hedge, without retries, or with
// a spent budget.
func TestNoHedge(t *testing.T) {
	for _, c := range []struct {
		method, body string
		hedge        time.Duration
		retries      int
		spent        bool
	}{
		{"GET", "", 0, 1, false}, {"POST", "", time.Millisecond, 1, false}, {"GET", "x", time.Millisecond, 1, false},
		{"GET", "", time.Millisecond, 0, false}, {"GET", "", time.Millisecond, 1, true},
	} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			u, asked, let, _ := newSlowServer(t)
			other := newServer(t, "other")
			p := startPool(t, &Pool{Servers: []Server{serverAt(t, u), serverAt(t, other.URL)}, Retries: c.retries,
				Hedge: c.hedge, Log: discardLog})
			if c.spent {
				p.mu.Lock()
				now := time.Now()
				for range budgetSeconds { // fill the coming seconds too, so that the budget stays spent
					_, n := p.budget.slot(now)
					*n = 1000
					now = now.Add(time.Second)
				}
				p.mu.Unlock()
			}
			var answered atomic.Bool
			go func() {
				<-asked
				time.AfterFunc(50*time.Millisecond, func() { // much longer than Hedge
					answered.Store(true)
					close(let)
				})
			}()
			if got, err := fetchBody(t, p, request(t, c.method, "/", c.body)); got != "slow" || err != nil ||
				!answered.Load() {
				t.Errorf("%q, %v", got, err)
			}
			if n := other.requests.Load(); n != 0 {
				t.Errorf("the other was asked %d times", n)
			}
		})
	}
}
