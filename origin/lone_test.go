package origin

import (
	"bytes"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// logBuffer is a log that can be read while it is being written.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

// count returns the number of occurrences of text.
func (l *logBuffer) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for line := range strings.Lines(l.buf.String()) {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}

// A lone server that takes no connections is logged as down, with the reason. The first request
// that reaches it again is answered and ends that state. The log has one line for each change.
func TestLoneServerThatRefuses(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	var log logBuffer
	p := startPool(t, &Pool{Servers: []Server{serverAt(t, "http://"+addr)}, Retries: 2,
		Log: slog.New(slog.NewTextHandler(&log, nil))})
	for i := range 15 {
		if _, err := fetchBody(t, p, request(t, "GET", "/", "")); Reason(err) != "connect-failed" {
			t.Fatalf("request %d: %v", i, err)
		}
	}
	s := p.Status().Servers[0]
	if s.State != "failing" || s.Up() || !strings.Contains(s.Why, "connection refused") ||
		s.Failures["connect-failed"] != 15 {
		t.Errorf("after 15 of 15 requests failed: %+v", s)
	}
	if n := log.count("origin server is down"); n != 1 || log.count("nothing listens on "+addr) != 1 {
		t.Errorf("%d lines that it is down:\n%s", n, &log.buf)
	}
	if l, err = net.Listen("tcp", addr); err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}
	go func() { _ = server.Serve(l) }()
	defer server.Close()
	if _, err := fetchBody(t, p, request(t, "GET", "/", "")); err != nil {
		t.Fatalf("when it is back: %v", err)
	}
	if s := p.Status().Servers[0]; s.State != "up" || !s.Up() || s.Why != "" || s.LastFailure == nil {
		t.Errorf("after it is back: %+v", s)
	}
	if n := log.count("origin server is up again"); n != 1 || log.count("level=WARN") != 1 {
		t.Errorf("the log:\n%s", &log.buf)
	}
}

// As soon as the server answers again, it gets all requests, not only one until the end of the
// first body.
func TestLoneServerBackWithALongBody(t *testing.T) {
	hold := make(chan struct{})
	held := make(chan struct{}, 1)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/long":
			_ = http.NewResponseController(w).Flush()
			<-hold
		case "/held":
			held <- struct{}{}
			<-hold
		}
	}))
	p := startPool(t, &Pool{Servers: []Server{serverAt(t, "http://"+s.Listener.Addr().String())}, Log: discardLog})
	failOften(p, p.all[0], time.Now(), errRefused, failureLimit)
	s.Start()
	defer s.Close()
	var work sync.WaitGroup
	defer work.Wait()
	defer close(hold)
	long, err := p.Fetch(request(t, "GET", "/long", ""), FetchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	work.Go(func() {
		<-hold
		long.Body.Close()
	})
	work.Go(func() {
		if _, err := fetchBody(t, p, request(t, "GET", "/held", "")); err != nil {
			t.Error(err)
			held <- struct{}{}
		}
	})
	<-held
	if _, err := fetchBody(t, p, request(t, "GET", "/", "")); err != nil {
		t.Errorf("beside two others: %v", err)
	}
}

// A lone server that answers with errors is logged as down, but all its responses are passed on.
func TestLoneServerThatErrs(t *testing.T) {
	var status, asked atomic.Int64
	status.Store(500)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		w.WriteHeader(int(status.Load()))
	}))
	defer s.Close()
	p := startPool(t, &Pool{Servers: []Server{serverAt(t, s.URL)}, Log: discardLog})
	for range 10 {
		resp, err := p.Fetch(request(t, "GET", "/", ""), FetchOptions{})
		if err != nil || resp.StatusCode != 500 {
			t.Fatalf("%v, %v", resp, err)
		}
		resp.Body.Close()
	}
	if st := p.Status().Servers[0]; st.State != "failing" || !strings.Contains(st.Why, "500") || asked.Load() != 10 {
		t.Errorf("asked %d times: %+v", asked.Load(), st)
	}
	status.Store(404) // a 404 is not a failure
	if _, err := fetchBody(t, p, request(t, "GET", "/", "")); err != nil {
		t.Fatal(err)
	}
	if st := p.Status().Servers[0]; st.State != "up" {
		t.Errorf("after an answer: %+v", st)
	}
}

// A success of a request sent after the failures ends the state "failing"; other events do not.
func TestFailing(t *testing.T) {
	later := func(p *Pool, b *backend) {
		p.mu.Lock()
		defer p.mu.Unlock()
		now := time.Now()
		p.succeeded(b, now, now)
	}
	probe := func(p *Pool, b *backend) { p.recordProbe(b, time.Now(), nil, false) }
	for _, c := range []struct {
		name string
		err  error
		then func(p *Pool, b *backend)
		want string
	}{
		{"a success", errStatus, later, "up"},
		{"a success of a request that was sent before", errStatus, func(p *Pool, b *backend) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.succeeded(b, b.failingAt.Add(-time.Second), time.Now())
		}, "failing"},
		{"a good probe of one that took no connections", errRefused, probe, "up"},
		{"a good probe of one that answers with errors", errStatus, probe, "failing"},
		{"a good probe of one that hung", errSlow, probe, "failing"},
		{"another server that is up, and a failure", errStatus, func(p *Pool, b *backend) {
			p.readmit(p.all[1])
			failOften(p, b, time.Now(), errStatus, 1)
		}, "ejected"},
		{"nothing", errSlow, func(*Pool, *backend) {}, "failing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newIdlePool(t, &Pool{Log: discardLog}, 1, 1)
			h := Health{}.withDefaults()
			p.Health = &h // set after Start, so that no probes run
			failOften(p, p.all[1], time.Now(), errStatus, failureLimit)
			failOften(p, p.all[0], time.Now(), c.err, failureLimit-1)
			if st := p.Status().Servers[0].State; st != "up" {
				t.Errorf("after %d failures it is %s", failureLimit-1, st)
			}
			failOften(p, p.all[0], time.Now(), c.err, 1)
			if st := p.Status().Servers[0]; st.State != "failing" || st.Changes != 1 {
				t.Errorf("after %d failures: %+v", failureLimit, st)
			}
			c.then(p, p.all[0])
			if st := p.Status().Servers[0].State; st != c.want {
				t.Errorf("it is %s, want %s", st, c.want)
			}
		})
	}
}

// A server that alternates between failure and success does not flood the log, and the last line of
// the log shows its final state.
func TestFlappingIsNotToldForEver(t *testing.T) {
	var log logBuffer
	p := newIdlePool(t, &Pool{Log: slog.New(slog.NewTextHandler(&log, nil))}, 1)
	b, now := p.all[0], time.Now()
	succeed := func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.succeeded(b, now, now)
	}
	for range 100 {
		now = now.Add(time.Millisecond)
		failOften(p, b, now, errStatus, failureLimit)
		now = now.Add(time.Millisecond)
		succeed()
	}
	if n := log.count("origin server"); n != logLimit || b.counts.Changes != 200 {
		t.Errorf("%d lines of %d changes", n, b.counts.Changes)
	}
	failOften(p, b, now, errStatus, failureLimit)
	now = now.Add(2 * logWindow)
	failOften(p, b, now, errStatus, 1)
	failOften(p, b, now, errStatus, 1)
	if n := log.count("origin server is down"); n != logLimit/2+1 {
		t.Errorf("it stays down: %d lines", n)
	}
}
