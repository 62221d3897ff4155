package origin

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// errSlow is a timeout.
var errSlow = &timeoutError{"too slow"}

// failOften records n failures that are proven to be the server's own, with no response in between.
func failOften(p *Pool, b *backend, now time.Time, err error, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for range n {
		p.failed(b, now, err, isDial(err), IsTimeout(err), true)
	}
}

func TestEjection(t *testing.T) {
	answer := func(p *Pool, b *backend) {
		p.mu.Lock()
		defer p.mu.Unlock()
		now := time.Now()
		p.succeeded(b, now, now)
	}
	late := func(p *Pool, b *backend) { // success of a request sent before the failures
		p.mu.Lock()
		defer p.mu.Unlock()
		p.succeeded(b, b.ejectedAt.Add(-time.Second), time.Now())
	}
	for _, c := range []struct {
		name string
		do   func(p *Pool, b *backend)
		want bool // ejected
	}{
		{"two refused connections", func(p *Pool, b *backend) { failOften(p, b, time.Now(), errRefused, 2) }, false},
		{"three refused connections", func(p *Pool, b *backend) { failOften(p, b, time.Now(), errRefused, 3) }, true},
		{"three server errors", func(p *Pool, b *backend) { failOften(p, b, time.Now(), errStatus, 3) }, true},
		{"not in a row", func(p *Pool, b *backend) {
			failOften(p, b, time.Now(), errStatus, 2)
			answer(p, b)
			failOften(p, b, time.Now(), errStatus, 2)
		}, false},
		{"one that hangs", func(p *Pool, b *backend) { failOften(p, b, time.Now(), errSlow, 1) }, true},
		{"an answer ends it", func(p *Pool, b *backend) {
			failOften(p, b, time.Now(), errStatus, 3)
			answer(p, b)
		}, false},
		{"an answer to what was sent before does not", func(p *Pool, b *backend) {
			failOften(p, b, time.Now(), errStatus, 3)
			late(p, b)
		}, true},
		{"never the last one", func(p *Pool, b *backend) {
			failOften(p, p.all[1], time.Now(), errStatus, 3)
			failOften(p, b, time.Now(), errSlow, 9)
		}, false},
		{"the pause is over", func(p *Pool, b *backend) {
			failOften(p, b, time.Now(), errStatus, 3)
			p.readmit(b)
		}, false},
		{"one more failure after the pause", func(p *Pool, b *backend) {
			failOften(p, b, time.Now(), errStatus, 3)
			p.readmit(b)
			failOften(p, b, time.Now(), errStatus, 1)
		}, true},
		{"an answer, and one more failure after the pause", func(p *Pool, b *backend) {
			failOften(p, b, time.Now(), errStatus, 3)
			p.readmit(b)
			answer(p, b)
			failOften(p, b, time.Now(), errStatus, 1)
		}, false},
		{"after Close", func(p *Pool, b *backend) {
			p.Close()
			failOften(p, b, time.Now(), errStatus, 3)
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newIdlePool(t, &Pool{Log: discardLog}, 1, 1)
			c.do(p, p.all[0])
			if p.all[0].ejected != c.want {
				t.Errorf("ejected: %v; %+v", p.all[0].ejected, p.all[0].counts)
			}
		})
	}
}

func TestPauses(t *testing.T) {
	for _, c := range []struct {
		name   string
		health *Health
		first  time.Duration
	}{{"without probes", nil, firstPause}, {"with probes", &Health{Interval: 700 * time.Millisecond},
		700 * time.Millisecond}} {
		t.Run(c.name, func(t *testing.T) {
			p := newIdlePool(t, &Pool{Log: discardLog}, 1, 1)
			p.Health = c.health
			b := p.all[0]
			eject := func(now time.Time) time.Duration {
				failOften(p, b, now, errStatus, failureLimit)
				if !b.ejected {
					t.Fatal("it is not ejected")
				}
				b.readmitTimer.Stop()
				return b.ejectedFor
			}
			// Ejections that follow soon, as of a server that flaps.
			for _, want := range []time.Duration{c.first, 2 * c.first, 4 * c.first, 8 * c.first} {
				if got := eject(b.recoveredAt); got != want {
					t.Errorf("a pause of %v, want %v", got, want)
				}
				p.readmit(b)
			}
			if got := eject(b.recoveredAt.Add(31 * c.first)); got != 16*c.first {
				t.Errorf("after it was well for a while: %v", got)
			}
			p.readmit(b)
			if got := eject(b.recoveredAt.Add(65 * c.first)); got != c.first {
				t.Errorf("after it was well for long: %v", got)
			}
			for range 20 {
				p.readmit(b)
				eject(b.recoveredAt)
			}
			if b.ejectedFor != maxPause {
				t.Errorf("the longest pause is %v", b.ejectedFor)
			}
		})
	}
}

// An ejection ends by itself.
func TestBackAfterThePause(t *testing.T) {
	p := newIdlePool(t, &Pool{Log: discardLog}, 1, 1)
	p.Health = &Health{Interval: 10 * time.Millisecond} // the duration of the first ejection
	failOften(p, p.all[0], time.Now(), errStatus, failureLimit)
	// No request has succeeded since.
	testwait.Until(t, "it gets requests again", func() bool { return p.Status().Servers[0].State == "failing" })
}

// A timeout of a server that answers other requests means a slow page. A timeout of a server that
// answers nothing means that it hangs.
func TestTimeoutOfAServerThatAnswersOthers(t *testing.T) {
	t.Parallel()
	for _, answers := range []bool{false, true} {
		reached := make(chan struct{}, 1)
		s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/slow" {
				reached <- struct{}{}
				<-r.Context().Done()
			}
		}))
		defer s.Close()
		other := newServer(t, "other")
		// The other server is a backup, so that the server under test is always picked first.
		p := startPool(t, &Pool{Servers: []Server{serverAt(t, s.URL), asBackup(serverAt(t, other.URL))}, Retries: 1,
			FirstByteTimeout: 2 * time.Second, Log: discardLog})
		var work sync.WaitGroup
		work.Go(func() {
			if got, err := fetchBody(t, p, request(t, "GET", "/slow", "")); got != "other" || err != nil {
				t.Errorf("%q, %v", got, err)
			}
		})
		<-reached
		if answers {
			if _, err := fetchBody(t, p, request(t, "GET", "/", "")); err != nil {
				t.Error(err)
			}
		}
		work.Wait()
		if got := p.Status().Servers[0].State == "ejected"; got == answers {
			t.Errorf("it answers others: %v, and is ejected: %v", answers, got)
		}
	}
}

// A request that its client cancels is no failure of the server.
func TestCancellationIsNoFailure(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/body" {
			_ = http.NewResponseController(w).Flush()
		}
		<-r.Context().Done()
	}))
	defer s.Close()
	p := startPool(t, &Pool{Servers: []Server{serverAt(t, s.URL), asBackup(serverAt(t, closedURL(t)))},
		Log: discardLog})
	gone := errors.New("gone")
	for _, end := range []func(context.Context) (context.Context, func()){
		func(c context.Context) (context.Context, func()) {
			ctx, cancel := context.WithCancelCause(c)
			return ctx, func() { cancel(gone) }
		},
		func(c context.Context) (context.Context, func()) {
			ctx, cancel := context.WithTimeout(c, 20*time.Millisecond)
			return ctx, func() { <-ctx.Done(); cancel() }
		},
	} {
		for _, path := range []string{"/", "/body"} {
			ctx, stop := end(t.Context())
			if path == "/" {
				go stop()
			}
			resp, err := p.Fetch(request(t, "GET", path, "").WithContext(ctx), FetchOptions{})
			if err == nil {
				stop()
				_, err = io.ReadAll(resp.Body)
				resp.Body.Close()
			}
			if err == nil {
				t.Fatal("no error")
			}
		}
	}
	if f := p.Status().Servers[0].Failures; len(f) != 0 {
		t.Errorf("failures: %v", f)
	}
	noPlaceTaken(t, p)
}

// newBlackHole starts a server that accepts connections and reads, but never responds.
func newBlackHole(t *testing.T) (url string, requests *atomic.Int64) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	requests = &atomic.Int64{}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if n, _ := c.Read(make([]byte, 4096)); n > 0 {
					requests.Add(1)
				}
				_, _ = io.Copy(io.Discard, c)
			}()
		}
	}()
	return "http://" + l.Addr().String(), requests
}

// One request detects a server that hangs, and is answered by another server.
func TestBlackHole(t *testing.T) {
	t.Parallel()
	u, asked := newBlackHole(t)
	a, b := newServer(t, "a"), newServer(t, "b")
	p := startPool(t, &Pool{Servers: []Server{serverAt(t, u), serverAt(t, a.URL), serverAt(t, b.URL)}, Retries: 2,
		FirstByteTimeout: 2 * time.Second, Log: discardLog})
	for i := range 300 {
		if got, err := fetchBody(t, p, request(t, "GET", "/", "")); err != nil || got != "a" && got != "b" {
			t.Fatalf("request %d: %q, %v", i, got, err)
		}
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("%d requests reached the server that hangs", n)
	}
	if st := p.Status().Servers[0]; st.State != "ejected" || st.Failures["timeout"] != 1 {
		t.Errorf("its state is %s, its failures %v", st.State, st.Failures)
	}
	noPlaceTaken(t, p)
}

// No request fails when a server is killed under load.
func TestKilledUnderLoad(t *testing.T) {
	const workers, each = 50, 40
	var servers []*testServer
	p := &Pool{Retries: 2, Log: discardLog}
	for _, name := range []string{"a", "b", "c"} {
		s := newServer(t, name)
		servers = append(servers, s)
		p.Servers = append(p.Servers, serverAt(t, s.URL))
	}
	startPool(t, p)
	var done atomic.Int64
	var work sync.WaitGroup
	for range workers {
		work.Go(func() {
			for range each {
				if _, err := fetchBody(t, p, request(t, "GET", "/", "")); err != nil {
					t.Errorf("after %d requests: %v", done.Load(), err)
				}
				done.Add(1)
			}
		})
	}
	testwait.Until(t, "a third is done", func() bool { return done.Load() > workers*each/3 })
	servers[1].Listener.Close()
	servers[1].CloseClientConnections()
	work.Wait()
	if st := p.Status().Servers[1]; st.Ejections == 0 || len(st.Failures) == 0 {
		t.Errorf("the killed one: %+v", st)
	}
	noPlaceTaken(t, p)
}
