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
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// failByPath fails in the way that the path names.
func failByPath(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/reset":
		panic(http.ErrAbortHandler)
	case "/500":
		w.WriteHeader(500)
	case "/503":
		w.WriteHeader(503)
	case "/slow":
		<-r.Context().Done()
	case "/cut":
		w.Header().Set("Content-Length", "10")
		_, _ = io.WriteString(w, "begin")
	default:
		_, _ = io.WriteString(w, "well")
	}
}

// ejections returns the number of ejections of all servers.
func ejections(p *Pool) (n uint64) {
	for _, s := range p.Status().Servers {
		n += s.Ejections
	}
	return n
}

// A request that all servers fail ejects none of them, however often it is sent.
func TestRequestThatAllFail(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		method, path string
		retries      int
	}{
		{"GET", "/reset", 2}, {"GET", "/500", 2}, {"GET", "/503", 2}, {"GET", "/slow", 2}, {"GET", "/cut", 2},
		{"GET", "/reset", 0}, {"GET", "/500", 0}, {"GET", "/slow", 0}, {"POST", "/reset", 2}, {"POST", "/500", 2},
		{"POST", "/slow", 2},
	} {
		t.Run(c.method+c.path, func(t *testing.T) {
			t.Parallel()
			p, times := &Pool{Retries: c.retries, Log: discardLog}, 16
			if c.path == "/slow" {
				p.FirstByteTimeout, times = 50*time.Millisecond, 6
			}
			for range 4 {
				s := httptest.NewServer(http.HandlerFunc(failByPath))
				defer s.Close()
				p.Servers = append(p.Servers, serverAt(t, s.URL))
			}
			startPool(t, p)
			for range times {
				resp, err := p.Fetch(request(t, c.method, c.path, ""), FetchOptions{})
				if err == nil {
					_, _ = io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
				}
			}
			if n := ejections(p); n != 0 {
				t.Errorf("%d ejections: %+v", n, p.Status().Servers)
			}
			if c.path != "/slow" {
				if got, err := fetchBody(t, p, request(t, "GET", "/", "")); got != "well" || err != nil {
					t.Errorf("another request: %q, %v", got, err)
				}
			}
			noPlaceTaken(t, p)
		})
	}
}

// A server that fails requests which others answer is ejected. Clients see at most two errors.
func TestServerThatFailsAlone(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"/reset", "/500", "/503", "/slow"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				r.URL.Path = how
				failByPath(w, r)
			}))
			defer s.Close()
			p := &Pool{Servers: []Server{serverAt(t, s.URL), serverAt(t, newServer(t, "a").URL),
				serverAt(t, newServer(t, "b").URL)}, Retries: 2, Log: discardLog}
			if how == "/slow" {
				p.FirstByteTimeout = 500 * time.Millisecond
			}
			startPool(t, p)
			bad := 0
			for range 3 * failureLimit {
				if got, err := fetchBody(t, p, request(t, "GET", "/", "")); err != nil || got == "" {
					bad++
				}
			}
			if st := p.Status().Servers[0]; st.State != "ejected" || bad >= failureLimit {
				t.Errorf("%s, %d failures for clients, %+v", st.State, bad, st.Counts)
			}
			noPlaceTaken(t, p)
		})
	}
}

// If an HTTP/2 connection ends with several requests on it, none of them counts as proof, since any
// of them may have ended it.
func TestRequestThatEndsAConnection(t *testing.T) {
	t.Parallel()
	type connKey struct{}
	held := make(chan struct{}, 1)
	var round, holds atomic.Int64
	p := &Pool{Retries: 2, Host: "example.com", Log: discardLog}
	for range 2 {
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			switch {
			case r.Method == "POST":
				_ = r.Context().Value(connKey{}).(net.Conn).Close()
			case holds.CompareAndSwap(round.Load()-1, round.Load()): // only the first of the attempts in this round
				held <- struct{}{}
			default:
				return
			}
			<-r.Context().Done()
		}))
		s.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx,
				connKey{}, c)
		}
		s.EnableHTTP2 = true
		s.StartTLS()
		defer s.Close()
		p.Servers = append(p.Servers, serverAt(t, s.URL))
		p.TLS = &tls.Config{RootCAs: x509.NewCertPool()}
		p.TLS.RootCAs.AddCert(s.Certificate()) // all test servers have the same certificate
	}
	startPool(t, p)
	for range 2 * failureLimit {
		round.Add(1)
		var work sync.WaitGroup
		work.Go(func() {
			resp, err := p.Fetch(request(t, "GET", "/", ""), FetchOptions{Prefer: 1})
			if err != nil {
				t.Error(err)
				held <- struct{}{}
				return
			}
			resp.Body.Close()
		})
		<-held
		if _, err := p.Fetch(request(t, "POST", "/", ""), FetchOptions{Prefer: 1}); err == nil {
			t.Error("the connection did not end")
		}
		work.Wait()
	}
	if st := p.Status(); ejections(p) != 0 || st.Retries != 2*failureLimit {
		t.Errorf("%d retries, %+v", st.Retries, st.Servers)
	}
	noPlaceTaken(t, p)
}

// If a server has no certificate for a name that the client chose, the server still counts as
// taking connections.
func TestNameThatAClientChose(t *testing.T) {
	t.Parallel()
	cert, roots := selfSigned(t, time.Now().Add(time.Hour), "www.example")
	p := &Pool{Retries: 2, Host: ClientHost, TLS: &tls.Config{RootCAs: roots}, Log: discardLog}
	for range 2 {
		addr := secureServer(t, &tls.Config{GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
			if h.ServerName != "www.example" {
				return nil, errors.New("no such name")
			}
			return &cert, nil
		}})
		p.Servers = append(p.Servers, serverAt(t, "https://"+addr))
	}
	startPool(t, p)
	for range 2 * failureLimit {
		r := request(t, "GET", "/", "")
		r.Host = "other.example"
		if _, err := fetchBody(t, p, r); err == nil {
			t.Fatal("no error")
		}
	}
	for _, b := range p.all {
		p.mu.Lock()
		if f := p.fitness(b, time.Now()); f != fitPrimary || b.ejected {
			t.Errorf("%s is not fit: %d, %+v", b.addr, f, b.counts)
		}
		p.mu.Unlock()
	}
	if _, err := fetchBody(t, p, request(t, "GET", "/", "")); err != nil {
		t.Error(err)
	}
}

// Failures that prove nothing bring the next probe forward.
func TestFailuresHurryProbes(t *testing.T) {
	t.Parallel()
	p := newIdlePool(t, &Pool{Log: discardLog}, 1, 1)
	b := p.all[0]
	for range failureLimit {
		if len(b.probeSoon) != 0 {
			t.Error("too early")
		}
		p.mu.Lock()
		p.failed(b, time.Now(), errStatus, false, false, false)
		p.mu.Unlock()
	}
	if !sleep(t.Context(), time.Hour, b.probeSoon) || b.ejected {
		t.Errorf("ejected %v", b.ejected)
	}
}
