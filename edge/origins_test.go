package edge

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
	"github.com/kaiku-cdn/kaiku/edge/site"
	"github.com/kaiku-cdn/kaiku/origin"
)

// A pool that has as much to do as it may: a stale response if there is one, else 503 with
// Retry-After.
func TestBusyOrigin(t *testing.T) { overProtocols(t, testBusyOrigin) }

func testBusyOrigin(t *testing.T, p protocol) {
	enter, leave := make(chan struct{}, 1), make(chan struct{})
	e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			enter <- struct{}{}
			<-leave
		}
		w.Header().Set("Cache-Control", "max-age=0, stale-if-error=600")
		w.Header().Set("Etag", `"a"`)
		_, _ = io.WriteString(w, "stored")
	}, func(_ *Server, s *site.Site) {
		s.Origin.Origin.MaxRequests, s.Origin.Origin.Queue, s.Origin.Origin.QueueTimeout = 1, 1, 50*time.Millisecond
	})
	e.get("/known").wants(t, 200, "stored")
	slow := make(chan answer)
	go func() { slow <- e.do(e.request("GET", "/slow", "")) }()
	<-enter
	a := e.do(e.request("GET", "/unknown", ""))
	if a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" ||
		a.cacheStatus()["detail"] != "origin-busy" {
		t.Errorf("a miss: %d, %v", a.status, a.header)
	}
	a = e.do(e.request("GET", "/known", ""))
	a.wants(t, 200, "stored")
	if st := a.cacheStatus(); st["detail"] != "stale-if-error" || st["fwd"] != "stale" ||
		!strings.HasPrefix(st["ttl"], "-") && st["ttl"] != "0" {
		t.Errorf("what is stale: %v", st)
	}
	close(leave)
	got := <-slow
	got.wants(t, 200, "stored")
}

// All servers down: what is stored goes on, with the right Cache-Status; what is not is 502, or 504
// where nothing answers in time.
func TestOriginsDown(t *testing.T) {
	e := newEdge(t, static("stored", "Cache-Control: max-age=0, stale-if-error=600", `Etag: "a"`),
		func(_ *Server, s *site.Site) {
			s.Origin.Origin.FirstByteTimeout = 50 * time.Millisecond
		})
	e.get("/known").wants(t, 200, "stored")
	dead := httptest.NewServer(http.NotFoundHandler())
	dead.Close()
	hole := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer hole.Close()
	for _, c := range []struct {
		name    string
		servers []string
		status  int
		detail  string
	}{
		{"refused", []string{dead.URL}, 502, "connect-failed"},
		{"black hole", []string{hole.URL}, 504, "timeout"},
		{"both", []string{dead.URL, hole.URL}, 504, "timeout"},
	} {
		t.Run(c.name, func(t *testing.T) {
			pool := &origin.Pool{Name: "www", FirstByteTimeout: 50 * time.Millisecond, Retries: 2, Log: e.Log}
			for _, raw := range c.servers {
				u, err := url.Parse(raw)
				if err != nil {
					t.Fatal(err)
				}
				pool.Servers = append(pool.Servers, origin.Server{URL: u})
			}
			if err := pool.Start(); err != nil {
				t.Fatal(err)
			}
			defer pool.Close()
			of := *e.site
			of.Origin = &origin.Route{Origin: pool}
			e.Sites.Set([]*site.Site{&of})
			for range 6 { // also once servers are ejected
				a := e.get("/known")
				a.wants(t, 200, "stored")
				if st := a.cacheStatus(); st["detail"] != "stale-if-error" || st["fwd"] != "stale" && !a.isHit() {
					t.Errorf("what is stored: %v", st)
				}
				a = e.get("/unknown/" + c.name[:1])
				if a.status != c.status || a.cacheStatus()["detail"] != c.detail {
					t.Errorf("what is not: %d, %v", a.status, a.cacheStatus())
				}
			}
		})
	}
}

// One of three origins is killed under 500 misses a second; no client notices.
func TestOriginKilledUnderLoad(t *testing.T) {
	var servers []*httptest.Server
	e := newEdge(t, static("first"), func(_ *Server, s *site.Site) {
		for range 2 {
			o := httptest.NewServer(static("other", "Cache-Control: max-age=60"))
			servers = append(servers, o)
			u, err := url.Parse(o.URL)
			if err != nil {
				t.Fatal(err)
			}
			s.Origin.Origin.Servers = append(s.Origin.Origin.Servers, origin.Server{URL: u})
		}
		s.Origin.Origin.Retries = 2
		s.Origin.Origin.Health = &origin.Health{Interval: 200 * time.Millisecond, Timeout: 200 * time.Millisecond}
	})
	defer servers[1].Close()
	const rate, seconds = 500, 3
	tick := time.NewTicker(time.Second / rate)
	defer tick.Stop()
	var wg sync.WaitGroup
	for i := range rate * seconds {
		<-tick.C
		if i == rate {
			wg.Go(func() {
				servers[0].CloseClientConnections()
				servers[0].Close()
			})
		}
		wg.Go(func() {
			if a := e.do(e.request("GET", fmt.Sprintf("/%d", i), "")); a.status != 200 || a.err != nil {
				t.Errorf("request %d: %d, %v, error %v", i, a.status, a.cacheStatus(), a.err)
			}
		})
	}
	wg.Wait()
}

// An error of the origin is passed on, but the key is none of those that can't be stored: later
// requests wait for each other again.
func TestErrorsAreNoReasonToPass(t *testing.T) { overProtocols(t, testErrorsAreNoReasonToPass) }

func testErrorsAreNoReasonToPass(t *testing.T, p protocol) {
	bad := true
	e := p.newEdge(t, func(w http.ResponseWriter, _ *http.Request) {
		if bad {
			w.Header().Set("Cache-Control", "no-store")
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Cache-Control", "max-age=60")
		_, _ = io.WriteString(w, "fine")
	})
	if a := e.get("/a"); a.status != http.StatusServiceUnavailable {
		t.Fatalf("status %d", a.status)
	}
	if why := e.cache.WhyNot(httpcache.Key(e.url("/a"))); why != "" {
		t.Errorf("the key is remembered as %q", why)
	}
	bad = false
	e.get("/a").wants(t, 200, "fine")
	if a := e.get("/a"); !a.isHit() {
		t.Errorf("no hit: %v", a.cacheStatus())
	}
}
