package edge

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/kaiku-cdn/kaiku/edge/cache"
	"github.com/kaiku-cdn/kaiku/edge/httpcache"
	"github.com/kaiku-cdn/kaiku/edge/site"
	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// explainURL returns what the edge explains of a path of www.example.
func (e *testEdge) explainURL(path string) cache.Explanation {
	e.t.Helper()
	var x cache.Explanation
	if got := e.admin("GET", "/v1/explain?url="+e.url(path), ""); got.status != 200 {
		e.t.Errorf("explain %s: %d, %s", path, got.status, got.body)
	} else if err := decode(got.body, &x); err != nil {
		e.t.Error(err)
	}
	return x
}

// What was just asked for and failed is explained with the failure, until an answer comes.
func TestExplainFailures(t *testing.T) { overProtocols(t, testExplainFailures) }

func testExplainFailures(t *testing.T, p protocol) {
	const ( // what the origin does
		stores = iota
		hangsUp
		errs
	)
	var does atomic.Int64
	e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		switch does.Load() {
		case hangsUp:
			panic(http.ErrAbortHandler)
		case errs:
			w.WriteHeader(http.StatusServiceUnavailable)
		default:
			w.Header().Set("Cache-Control", "max-age=0, stale-if-error=600")
			w.Header().Set("Etag", `"a"`)
			_, _ = io.WriteString(w, r.Method)
		}
	})
	want := func(path, whyNot, failure, hint string) {
		t.Helper()
		x := e.explainURL(path)
		if !strings.Contains(x.WhyNot, whyNot) || (x.WhyNot == "") != (whyNot == "") {
			t.Errorf("%s: why not: %q, want %q", path, x.WhyNot, whyNot)
		}
		if f := x.LastFailure; failure == "" && f != nil || failure != "" &&
			(f == nil || !strings.Contains(f.Error, failure) || !strings.Contains(f.Hint, hint)) {
			t.Errorf("%s: failure: %+v, want %q with the hint %q", path, f, failure, hint)
		}
		if len(x.Servers) != 1 || failure != "" && x.Servers[0].LastFailure == nil {
			t.Errorf("%s: servers: %+v", path, x.Servers)
		}
	}
	e.get("/stored").wants(t, 200, "GET")
	want("/stored", "", "", "")
	does.Store(hangsUp)
	if a := e.get("/new"); a.status != http.StatusBadGateway {
		t.Errorf("a miss: %d", a.status)
	}
	want("/new", "the last fetch from the origin failed", "EOF", "closed the connection")
	want("/never", "not requested", "", "")
	e.get("/stored").wants(t, 200, "GET")
	want("/stored", "", "EOF", "closed the connection") // though nobody noticed
	if a := e.do(e.request("POST", "/form", "x")); a.status != http.StatusBadGateway {
		t.Errorf("a POST: %d", a.status)
	}
	want("/form", "the last fetch from the origin failed", "EOF", "")
	does.Store(errs)
	if a := e.get("/new"); a.status != http.StatusServiceUnavailable {
		t.Errorf("a server error: %d", a.status)
	}
	want("/new", "the last fetch from the origin failed", "origin answered 503", "")
	e.get("/stored").wants(t, 200, "GET")
	want("/stored", "", "origin answered 503", "")
	does.Store(stores)
	e.do(e.request("POST", "/form", "x")).wants(t, 200, "POST")
	want("/form", "not requested", "", "")
	for _, path := range []string{"/new", "/stored"} {
		e.get(path).wants(t, 200, "GET")
		want(path, "", "", "")
	}
}

// A client that leaves is no failure of the origin.
func TestClientThatLeavesIsNoFailure(t *testing.T) { overProtocols(t, testClientThatLeavesIsNoFailure) }

func testClientThatLeavesIsNoFailure(t *testing.T, p protocol) {
	asked, gone := make(chan struct{}, 1), make(chan struct{}, 1)
	e := p.newEdge(t, func(_ http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		<-r.Context().Done()
		gone <- struct{}{}
	})
	for _, method := range []string{"GET", "POST"} {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			if resp, err := e.client.Do(e.request(method, "/", "").WithContext(ctx)); err == nil {
				resp.Body.Close()
			}
		}()
		<-asked
		cancel()
		<-gone
		<-done
		testwait.Until(t, "the request is over", func() bool { return e.front.Active() == 0 })
		testwait.Until(t, "its fetch is over", func() bool { return e.cache.UnderWay().URLs == 0 })
		if f := e.cache.LastFailure(httpcache.Key(e.url("/"))); f != nil {
			t.Errorf("%s: %+v", method, f)
		}
	}
}

// lockedBuffer is a log that is read while it is written.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) count(text string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Count(b.buf.String(), text)
}

// A server that is down gives one line of the log, not one for each request.
func TestFailuresAreLoggedOnce(t *testing.T) { overProtocols(t, testFailuresAreLoggedOnce) }

func testFailuresAreLoggedOnce(t *testing.T, p protocol) {
	var log lockedBuffer
	e := p.newEdge(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		func(s *Server, _ *site.Site) {
			s.Log = slog.New(slog.NewTextHandler(&log, nil))
		})
	for i := range 10 {
		e.get(fmt.Sprintf("/%d", i))
	}
	if n := log.count("origin failed"); n != 1 || log.count("hint=") != 1 || log.count("reason=connection-error") != 1 {
		t.Errorf("%d lines:\n%s", n, &log.buf)
	}
	e.cache.Forget() // as two minutes later
	e.get("/")
	if n := log.count("origin failed"); n != 2 {
		t.Errorf("%d lines", n)
	}
}
