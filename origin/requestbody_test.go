package origin

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

var errBody = errors.New("malformed chunked encoding")

// brokenBody returns a request body that fails after its first bytes.
func brokenBody(err error) io.ReadCloser {
	return io.NopCloser(io.MultiReader(strings.NewReader("hello"),
		readerFunc(func([]byte) (int, error) { return 0, err })))
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// wantNoFailures fails the test if any server has a failure or any request was retried.
func wantNoFailures(t *testing.T, p *Pool) {
	t.Helper()
	noPlaceTaken(t, p)
	st := p.Status()
	for _, s := range st.Servers {
		if len(s.Failures) > 0 || s.Ejections > 0 || s.LastFailure != nil || s.State != "up" {
			t.Errorf("%s is %s, with the failures %v, %d ejections", s.Server, s.State, s.Failures, s.Ejections)
		}
	}
	if st.Retries > 0 {
		t.Errorf("%d retries", st.Retries)
	}
}

// serve starts a TLS server, with or without HTTP/2, that accepts headers of up to maxHeader bytes.
func serve(t *testing.T, h http.HandlerFunc, http2 bool, maxHeader int) (string, *tls.Config) {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	t.Cleanup(s.Close)
	s.EnableHTTP2, s.Config.MaxHeaderBytes = http2, maxHeader
	if !http2 {
		s.Start()
		return s.URL, nil
	}
	s.StartTLS()
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	return s.URL, &tls.Config{RootCAs: roots}
}

// A request that can't be read or sent is no failure of the server and is not retried.
func TestRequestIsAtFault(t *testing.T) {
	read := func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }
	fails := func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}
	for _, c := range []struct {
		name    string
		handler http.HandlerFunc
		change  func(r *http.Request)
		want    error // the error that the result wraps
	}{
		{"the body can't be read", read, func(r *http.Request) { r.Body = brokenBody(errBody) }, errBody},
		{"the body can't be read, and the server says that it failed", fails,
			func(r *http.Request) { r.Body = brokenBody(errBody) }, errBody},
		{"the client resets its connection", read, func(r *http.Request) { r.Body = brokenBody(syscall.ECONNRESET) },
			syscall.ECONNRESET},
		{"the client's connection is broken", read, func(r *http.Request) { r.Body = brokenBody(syscall.EPIPE) },
			syscall.EPIPE},
		{"the client's connection is closed", read, func(r *http.Request) { r.Body = brokenBody(net.ErrClosed) },
			net.ErrClosed},
		{"the body is too short", read, func(r *http.Request) { r.ContentLength = 100 }, io.ErrUnexpectedEOF},
		{"the body is too long", read, func(r *http.Request) { r.ContentLength = 2 }, nil},
		{"the method is malformed", read, func(r *http.Request) { r.Method = "GE T" }, nil},
		{"a trailer is malformed", read, func(r *http.Request) { r.Trailer = http.Header{"a b": nil} }, nil},
		{"a field is malformed", read, func(r *http.Request) { r.Header["X"] = []string{"a\nb"} }, nil},
	} {
		for _, protocol := range []string{"HTTP/1.1", "HTTP/2"} {
			t.Run(c.name+", "+protocol, func(t *testing.T) {
				p := &Pool{Retries: 2, SNI: "example.com", Log: discardLog}
				for range 2 {
					url, conf := serve(t, c.handler, protocol == "HTTP/2", 0)
					p.TLS, p.Servers = conf, append(p.Servers, serverAt(t, url))
				}
				startPool(t, p)
				answered := uint64(0)
				for range 4 {
					r := request(t, "POST", "/", "hello")
					r.ContentLength = -1
					c.change(r)
					_, err := fetchBody(t, p, r)
					if err == nil && c.name == "the body is too long" {
						answered++
						continue // the server responded before the body failed
					}
					if !errors.As(err, new(*RequestError)) || Reason(err) != "client-error" || c.want != nil &&
						!errors.Is(err, c.want) {
						t.Errorf("error %v, reason %q", err, Reason(err))
					}
				}
				wantNoFailures(t, p)
				if n := p.Status().Faults; n != 4-answered {
					t.Errorf("%d faults of clients, and %d answers", n, answered)
				}
			})
		}
	}
}

// A header that is too large for the server's HTTP/2 limit is no failure of the server.
func TestTooManyFields(t *testing.T) {
	url, conf := serve(t, func(http.ResponseWriter, *http.Request) {}, true, 8<<10)
	p := startPool(t, &Pool{Servers: []Server{serverAt(t, url), serverAt(t, url)}, Retries: 2, TLS: conf,
		SNI: "example.com", Log: discardLog})
	for range 2 { // the server's limits are known now
		if _, err := fetchBody(t, p, request(t, "GET", "/", "")); err != nil {
			t.Fatal(err)
		}
	}
	for range 4 {
		r := request(t, "GET", "/", "")
		r.Header.Set("Cookie", strings.Repeat("x", 32<<10))
		if _, err := fetchBody(t, p, r); !errors.Is(err, ErrFields) {
			t.Errorf("error %v", err)
		}
	}
	wantNoFailures(t, p)
}

// If a server responds early and the request's body then fails, the failed response is not the
// server's fault.
func TestRequestEndsInTheResponse(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		url, conf := serve(t, func(w http.ResponseWriter, r *http.Request) {
			control := http.NewResponseController(w)
			_ = control.EnableFullDuplex()
			_, _ = io.WriteString(w, "begin")
			_ = control.Flush()
			_, _ = io.Copy(io.Discard, r.Body)
		}, http2, 0)
		p := startPool(t, &Pool{Servers: []Server{serverAt(t, url), asBackup(serverAt(t, url))}, TLS: conf,
			SNI: "example.com", Log: discardLog})
		for range 4 {
			r := request(t, "POST", "/", "x")
			fail := make(chan struct{})
			r.ContentLength = -1
			r.Body = io.NopCloser(io.MultiReader(strings.NewReader("hello"), readerFunc(func([]byte) (int, error) {
				<-fail
				return 0, errBody
			})))
			resp, err := p.Fetch(r, FetchOptions{})
			if err != nil {
				t.Fatal(err)
			}
			close(fail)
			if got, err := io.ReadAll(resp.Body); err == nil {
				t.Errorf("the response ends well: %q", got)
			}
			resp.Body.Close()
		}
		wantNoFailures(t, p)
	}
}

// A server that closes the connection of a slow client has not failed.
func TestServerThatDoesNotWait(t *testing.T) {
	for _, c := range []struct {
		name  string
		ends  http.HandlerFunc
		http2 bool
	}{
		{"HTTP/1.1, it ends the connection", func(w http.ResponseWriter, _ *http.Request) {
			if c, _, err := http.NewResponseController(w).Hijack(); err == nil {
				c.Close()
			}
		}, false},
		{"HTTP/2, it ends the stream", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, true},
		{"HTTP/1.1, it says that it failed", func(w http.ResponseWriter, _ *http.Request) {
			_ = http.NewResponseController(w).EnableFullDuplex()
			w.WriteHeader(500)
		}, false},
		{"HTTP/2, it says that it failed", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			end := make(chan struct{})
			url, conf := serve(t, func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.CopyN(io.Discard, r.Body, 5)
				<-end
				c.ends(w, r)
			}, c.http2, 0)
			p := startPool(t, &Pool{Servers: []Server{serverAt(t, url), asBackup(serverAt(t, url))}, TLS: conf,
				SNI: "example.com", Log: discardLog})
			var work, sent sync.WaitGroup
			for range failureLimit {
				body, client := io.Pipe()
				r := request(t, "POST", "/", "x")
				r.Body, r.ContentLength = body, -1
				work.Go(func() {
					if _, err := fetchBody(t, p, r); err != nil &&
						(!errors.As(err, new(*RequestError)) || !IsTimeout(err)) {
						t.Errorf("error %v", err)
					}
					body.Close()
				})
				sent.Go(func() { _, _ = io.WriteString(client, "hello") }) // returns when the server has read it
				work.Go(func() {
					<-end
					for _, err := io.WriteString(client, "more"); err == nil; _, err = io.WriteString(client, "more") {
						// Lets the server close the connection before the whole body is sent.
						<-time.After(10 * time.Millisecond)
					}
				})
			}
			sent.Wait()
			<-time.After(clientGrace + clientGrace/4) // longer than clientGrace
			close(end)
			work.Wait()
			wantNoFailures(t, p)
		})
	}
}

// A request that its client sends slowly does not make the server silent.
func TestSlowRequestIsNoSilence(t *testing.T) {
	p := newIdlePool(t, &Pool{}, 1, 1)
	now := time.Now()
	p.mu.Lock()
	pl, _ := p.take(now, &FetchOptions{body: true}, 0)
	p.mu.Unlock()
	later := now.Add(time.Minute)
	if got := pickSequence(p, later, 4); strings.Count(got, "a") != 2 {
		t.Errorf("while the client sends: %s", got)
	}
	p.mu.Lock()
	pl.awaitResponse(later)
	p.mu.Unlock()
	if got := pickSequence(p, later.Add(1100*time.Millisecond), 4); got != "bbbb" {
		t.Errorf("when the server has kept it waiting: %s", got)
	}
}

// The time that a client takes to send its request is not part of the server's latency.
func TestSlowRequestIsNoLatency(t *testing.T) {
	s := newServer(t, "up")
	p := startPool(t, &Pool{Servers: []Server{serverAt(t, s.URL)}, Log: discardLog})
	body, client := io.Pipe()
	r := request(t, "POST", "/", "x")
	r.Body, r.ContentLength = body, -1
	const pause = 300 * time.Millisecond
	go func() {
		_, _ = io.WriteString(client, "hello")
		<-time.After(pause) // the client's pause
		client.Close()
	}()
	if _, err := fetchBody(t, p, r); err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if got := p.all[0].latency; got >= pause/8 {
		t.Errorf("the mean after one answer is %v", got)
	}
}

// When a client gives up waiting for a silent server, other servers are preferred for a while or
// until the server answers. It has no other effect on the server.
func TestLeavingASilentServer(t *testing.T) {
	u, asked := newBlackHole(t)
	other := newServer(t, "other")
	p := startPool(t, &Pool{Servers: []Server{serverAt(t, u), serverAt(t, other.URL)}, FirstByteTimeout: time.Minute,
		Log: discardLog})
	ctx, leave := context.WithCancel(t.Context())
	var work sync.WaitGroup
	for range 2 { // one for each server
		work.Go(func() { _, _ = fetchBody(t, p, request(t, "GET", "/", "").WithContext(ctx)) })
	}
	testwait.Until(t, "it is silent", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.isSilent(p.all[0], time.Now())
	})
	leave()
	work.Wait()
	for range 4 {
		if got, err := fetchBody(t, p, request(t, "GET", "/", "")); got != "other" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("it was asked %d times", n)
	}
	wantNoFailures(t, p)
	if got := pickSequence(p, time.Now().Add(abandonedTime), 4); strings.Count(got, "a") != 2 {
		t.Errorf("after a while: %s", got)
	}
}

// Some 5xx statuses mean that the server does not support the request. They are no failures.
func TestStatusesOfRequests(t *testing.T) {
	for status, failure := range map[int]bool{500: true, 501: false, 502: true, 503: true, 504: true, 505: false,
		507: true, 508: false, 510: false, 520: true} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter,
			_ *http.Request) {
			w.WriteHeader(status)
		}))
		defer s.Close()
		p := startPool(t, &Pool{Servers: []Server{serverAt(t, s.URL), asBackup(serverAt(t, newServer(t, "other").URL))},
			Retries: 1, Log: discardLog})
		for range failureLimit {
			_, _ = fetchBody(t, p, request(t, "GET", "/", ""))
		}
		if got := p.Status().Servers[0].State == "ejected"; got != failure {
			t.Errorf("%d: ejected %v, want %v", status, got, failure)
		}
	}
}

// A trial request that its client sends slowly does not keep other requests from the server.
func TestSlowRequestOnTrial(t *testing.T) {
	s := newServer(t, "up")
	p := startPool(t, &Pool{Servers: []Server{serverAt(t, s.URL)}, Log: discardLog})
	failOften(p, p.all[0], time.Now(), errRefused, failureLimit)
	body, client := io.Pipe()
	r := request(t, "POST", "/", "x")
	r.Body, r.ContentLength = body, -1
	var work sync.WaitGroup
	work.Go(func() {
		if _, err := fetchBody(t, p, r); err != nil {
			t.Error(err)
		}
	})
	_, _ = io.WriteString(client, "hello") // returns once the connection is open and the server has read it
	if got, err := fetchBody(t, p, request(t, "GET", "/", "")); got != "up" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	client.Close()
	work.Wait()
}
