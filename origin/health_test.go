package origin

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

var discardLog = slog.New(slog.DiscardHandler)

func TestProbeOutcome(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Host != "origin.example" || r.Header.Get("Secret") != "s" || r.UserAgent() != "kaiku-health" {
			t.Errorf("a probe has Host %q and fields %v", r.Host, r.Header)
		}
		switch r.URL.Path {
		case "/redirect":
			http.Redirect(w, r, "/missing", http.StatusFound)
		case "/missing":
			w.WriteHeader(404)
		case "/teapot":
			w.WriteHeader(418)
		case "/error":
			w.WriteHeader(500)
		case "/slow":
			<-r.Context().Done()
		case "/large":
			_, _ = io.WriteString(w, strings.Repeat("x", maxProbeBody)+"ready")
		case "/cut":
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, "ready")
		default:
			_, _ = io.WriteString(w, "I am ready "+r.URL.RawQuery)
		}
	}))
	defer s.Close()
	for _, c := range []struct {
		health Health
		good   bool
	}{
		{Health{}, true},
		{Health{Path: "/redirect"}, true}, // redirects are not followed
		{Health{Path: "/missing"}, false},
		{Health{Path: "/error"}, false},
		{Health{Path: "/teapot", Status: 418}, true},
		{Health{Status: 204}, false},
		{Health{Status: 200}, true},
		{Health{Match: "ready"}, true},
		{Health{Match: "Ready"}, false},
		{Health{Path: "/?a=b", Match: "ready a=b"}, true},
		{Health{Path: "/error", Match: ""}, false},
		{Health{Path: "/large", Match: "ready"}, false}, // only the first 64 KiB are read
		{Health{Path: "/large", Match: "xxx"}, true},
		{Health{Path: "/cut", Match: "ready"}, false},
		{Health{Path: "/slow", Timeout: 20 * time.Millisecond}, false},
	} {
		h := c.health.withDefaults()
		// The pool has no Health, so the only probe is the one that the test sends.
		p := startPool(t, &Pool{Servers: []Server{serverAt(t, s.URL)}, Host: "origin.example",
			Secret: Field{"Secret", "s"}})
		p.Health = &h
		if _, err := p.probeOnce(t.Context(), p.all[0], p.all[0].transport.Load()); (err == nil) != c.good {
			t.Errorf("%+v: %v", c.health, err)
		}
	}
}

// wantState waits until a server has the state want.
func wantState(t *testing.T, p *Pool, server int, want string) {
	t.Helper()
	testwait.Until(t, "the server is "+want, func() bool {
		s := p.Status().Servers[server]
		return s.Probes > 0 && s.State == want
	})
}

func TestProbesVerifyTLS(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	health := func() *Health { return &Health{Interval: 5 * time.Millisecond, UnhealthyAfter: 1} }
	p := startPool(t, &Pool{Servers: []Server{serverAt(t, s.URL)}, Host: "example.com", Health: health(),
		Log: discardLog})
	wantState(t, p, 0, "unhealthy")
	if why := p.Status().Servers[0].Why; !strings.Contains(why, "certificate") {
		t.Errorf("why: %q", why)
	}
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	for host, want := range map[string]string{"example.com": "up", "other.example": "unhealthy"} {
		p := startPool(t, &Pool{Servers: []Server{serverAt(t, s.URL)}, Host: host, Health: health(),
			TLS: &tls.Config{RootCAs: roots}, Log: discardLog})
		wantState(t, p, 0, want)
	}
}

// Probes alone find that a server is down and that it is back. It is in slow start afterwards.
func TestProbesFindOut(t *testing.T) {
	var status atomic.Int64
	status.Store(200)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter,
		_ *http.Request) {
		w.WriteHeader(int(status.Load()))
	}))
	defer s.Close()
	up := newServer(t, "up")
	p := startPool(t, &Pool{Servers: []Server{serverAt(t, s.URL), serverAt(t, up.URL)}, SlowStart: time.Hour,
		Health: &Health{Interval: time.Millisecond}, Log: discardLog})
	wantState(t, p, 0, "up")
	status.Store(500)
	wantState(t, p, 0, "unhealthy")
	before := up.requests.Load()
	for range 10 {
		if got, err := fetchBody(t, p, request(t, "GET", "/", "")); got != "up" || err != nil {
			t.Fatalf("while one is unhealthy: %q, %v", got, err)
		}
	}
	if up.requests.Load() < before+10 {
		t.Error("the unhealthy one was asked")
	}
	status.Store(204)
	wantState(t, p, 0, "slow-start")
	p.Close()
	n := p.Status().Servers[0].Probes
	if st := p.Status().Servers[0]; st.ProbesBad < 3 || st.Changes < 2 || n < 5 {
		t.Errorf("counts %+v", st.Counts)
	}
}

func TestHysteresis(t *testing.T) {
	for _, c := range []struct {
		unhealthyAfter, healthyAfter int
		probes, want                 string // probes: "x" is a failed one; want: "x" is down after it
	}{
		{3, 2, "xxx..", "..xx."},
		{3, 2, "xx.xx.xxx", "........x"},
		{3, 2, "xxx.x.x..", "..xxxxxx."},
		{1, 1, "x.x.", "x.x."},
		{0, 0, "xxx..", "..xx."}, // the defaults
		{1, 3, "x..x...", "xxxxxx."},
	} {
		p := newIdlePool(t, &Pool{Log: discardLog}, 1, 1)
		h := Health{UnhealthyAfter: c.unhealthyAfter, HealthyAfter: c.healthyAfter}.withDefaults()
		p.Health = &h // set after Start, so that no probes run
		got := ""
		for _, probe := range c.probes {
			err := error(nil)
			if probe == 'x' {
				err = errStatus
			}
			p.recordProbe(p.all[0], time.Now(), err, false)
			got += map[bool]string{true: ".", false: "x"}[p.all[0].up()]
		}
		if got != c.want {
			t.Errorf("%d, %d: after %s it looks like %s, want %s", c.unhealthyAfter, c.healthyAfter, c.probes, got,
				c.want)
		}
	}
}
