package geodns

import (
	"bytes"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestHysteresis(t *testing.T) {
	cfg := Health{UnhealthyAfter: 3, HealthyAfter: 2}
	for _, test := range []struct {
		results string // + is a good probe, - a failed one
		phases  string // phase after each probe, h or u; upper case if it has changed
	}{
		{"+", "H"},
		{"-", "U"},
		{"+--+--+", "Hhhhhhh"},
		{"+---", "HhhU"},
		{"+----++-++", "HhhUuuHhhh"},
		{"-+-+-++", "UuuuuuH"},
	} {
		var h hysteresis
		got := ""
		for _, r := range test.results {
			changed := h.observe(r == '+', cfg)
			letters := map[int32]string{healthy: "hH", unhealthy: "uU"}[h.phase]
			if changed {
				got += letters[1:]
			} else {
				got += letters[:1]
			}
		}
		if got != test.phases {
			t.Errorf("%s gives %s, want %s", test.results, got, test.phases)
		}
	}
}

// setPhase sets the phase of nodes by name, for tests without probes.
func setPhase(s *Server, phases map[string]int32) {
	for name, phase := range phases {
		s.current.Load().states[name].set(phase)
	}
}

// set sets the phase of all endpoints of a node.
func (s *nodeState) set(phase int32) {
	for _, e := range s.endpoints {
		e.phase.Store(phase)
	}
}

func TestAnswerByHealth(t *testing.T) {
	cfg := testConfig(t)
	for i := range cfg.Nodes {
		cfg.Nodes[i].Probe = "http://192.0.2.1/"
	}
	s := newServer(t, cfg)
	for _, test := range []struct {
		hel, nyc, tyo int32
		name          string
		want          []string
	}{
		{healthy, healthy, healthy, "www A", []string{"203.0.113.10"}},
		{unhealthy, healthy, healthy, "www A", []string{"198.51.100.20"}},
		{unknown, healthy, healthy, "www A", []string{"198.51.100.20"}},
		{unhealthy, unhealthy, healthy, "www A", []string{"203.0.113.10"}},
		{unhealthy, unhealthy, unhealthy, "two A", []string{"203.0.113.10", "198.51.100.20"}},
		{unhealthy, unhealthy, healthy, "two A", []string{"192.0.2.40", "192.0.2.41"}},
		{healthy, unhealthy, healthy, "two A", []string{"203.0.113.10", "192.0.2.40", "192.0.2.41"}},
		// One healthy node without IPv6 is better than two nodes that are down. Clients reach it
		// over IPv4.
		{unhealthy, unhealthy, healthy, "two AAAA", nil},
		{unhealthy, unhealthy, unhealthy, "two AAAA", []string{"2001:db8:1::10", "2001:db8:2::20"}},
		{unhealthy, healthy, healthy, "two AAAA", []string{"2001:db8:2::20"}},
	} {
		setPhase(s, map[string]int32{"hel1": test.hel, "nyc1": test.nyc, "tyo1": test.tyo})
		resp := mustAnswer(t, s, question(test.name[:3]+".example.com."+test.name[3:]), inHelsinki, false)
		var want []string
		ttl := map[string]string{"www": " 30 IN", "two": " 5 IN"}[test.name[:3]]
		for _, addr := range test.want {
			want = append(want, test.name[:3]+".example.com."+ttl+test.name[3:]+" "+addr)
		}
		wantRRs(t, test.name, resp.Answer, want...)
	}
	if got := s.Healthy(); got["hel1"] || !got["nyc1"] || !got["tyo1"] || len(got) != 3 {
		t.Errorf("healthy are %v", got)
	}
}

// watch collects log lines and lets a test wait for one.
type watch struct {
	mu    sync.Mutex // guards lines
	lines bytes.Buffer
	wrote chan struct{}
}

func (w *watch) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case w.wrote <- struct{}{}:
	default:
	}
	return w.lines.Write(b)
}

func (w *watch) count(s string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Count(w.lines.String(), s)
}

func (w *watch) wait(t *testing.T, s string, times int) {
	t.Helper()
	for w.count(s) < times {
		select {
		case <-w.wrote:
		case <-t.Context().Done():
			t.Fatalf("no line %q", s)
		}
	}
}

// metricsOfTransition are the metrics at the end of TestHealthTransition.
const metricsOfTransition = `
# HELP kaiku_dns_all_unhealthy_total Answers for edge names none of whose nodes was healthy.
# TYPE kaiku_dns_all_unhealthy_total counter
kaiku_dns_all_unhealthy_total 3
# HELP kaiku_dns_answered_total Answers for edge names that a node was in.
# TYPE kaiku_dns_answered_total counter
kaiku_dns_answered_total{node="hel1"} 4
kaiku_dns_answered_total{node="nyc1"} 2
# HELP kaiku_dns_node_healthy 1 where the node's health probes succeed, or it has none.
# TYPE kaiku_dns_node_healthy gauge
kaiku_dns_node_healthy{node="hel1"} 0
kaiku_dns_node_healthy{node="nyc1"} 1
# HELP kaiku_dns_queries_total DNS queries answered.
# TYPE kaiku_dns_queries_total counter
kaiku_dns_queries_total{rcode="NOERROR",transport="tcp",type="A"} 1
kaiku_dns_queries_total{rcode="NOERROR",transport="udp",type="A"} 5
`

// TestHealthTransition stops real HTTP servers and checks the answers, the log and the metrics.
func TestHealthTransition(t *testing.T) {
	up := func() *httptest.Server { return httptest.NewServer(http.NotFoundHandler()) }
	hel, nyc := up(), up()
	ok := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	hel.Config.Handler, nyc.Config.Handler = ok, ok
	defer nyc.Close()
	defer hel.Close()

	log := &watch{wrote: make(chan struct{}, 1)}
	reg := prometheus.NewRegistry()
	s := &Server{Registerer: reg, Log: slog.New(slog.NewTextHandler(log, nil))}
	cfg := testConfig(t)
	cfg.Nodes[0].Probe, cfg.Nodes[1].Probe = hel.URL, nyc.URL
	cfg.Health = Health{Interval: 5 * time.Millisecond, Timeout: 5 * time.Second, UnhealthyAfter: 2, HealthyAfter: 2}
	cfg.Edges = cfg.Edges[:1]
	cfg.Locate[netip.MustParsePrefix("127.0.0.0/8")] = helsinki
	serve(t, s, cfg)

	// The server answers only after the first round of probes.
	addr := s.LocalAddr().String()
	wantRRs(t, "answer", exchange(t, "udp", addr, "www.example.com. A").Answer, "www.example.com. 30 IN A 203.0.113.10")
	if got := s.Healthy(); !got["hel1"] || !got["nyc1"] {
		t.Errorf("healthy are %v", got)
	}
	if log.count("node is healthy") != 2 {
		t.Errorf("log is %s", log.lines.String())
	}

	hel.Close()
	log.wait(t, "node is unhealthy", 1)
	wantRRs(t, "answer", exchange(t, "tcp", addr, "www.example.com. A").Answer,
		"www.example.com. 30 IN A 198.51.100.20")

	nyc.Close()
	log.wait(t, "no node of an edge name is healthy", 1)
	for range 3 {
		wantRRs(t, "answer", exchange(t, "udp", addr, "www.example.com. A").Answer,
			"www.example.com. 30 IN A 203.0.113.10")
	}
	if n := log.count("no node of an edge name is healthy"); n != 1 {
		t.Errorf("%d lines for one transition", n)
	}

	// One node comes back at another URL. The other node keeps its state, and the metrics stay
	// registered.
	back := up()
	back.Config.Handler = ok
	defer back.Close()
	cfg.Nodes = []Node{cfg.Nodes[0], cfg.Nodes[1]}
	cfg.Nodes[1].Probe = back.URL
	if err := s.Reload(cfg); err != nil {
		t.Fatal(err)
	}
	log.wait(t, "an edge name has a healthy node again", 1)
	wantRRs(t, "answer", exchange(t, "udp", addr, "www.example.com. A").Answer,
		"www.example.com. 30 IN A 198.51.100.20")
	if got := s.Healthy(); got["hel1"] || !got["nyc1"] || len(got) != 2 {
		t.Errorf("healthy are %v", got)
	}

	if err := testutil.GatherAndCompare(reg, strings.NewReader(metricsOfTransition), "kaiku_dns_all_unhealthy_total",
		"kaiku_dns_answered_total", "kaiku_dns_node_healthy", "kaiku_dns_queries_total"); err != nil {
		t.Error(err)
	}
	if n, err := testutil.GatherAndCount(reg, "kaiku_dns_probe_seconds"); err != nil || n != 2 {
		t.Errorf("%d histograms, %v", n, err)
	}
}

// While a fleet starts, there is no warning about a node that has never been healthy. There is one
// after startTime.
func TestNodesThatStart(t *testing.T) {
	log := &watch{wrote: make(chan struct{}, 1)}
	s := &Server{Log: slog.New(slog.NewTextHandler(log, nil))}
	cfg := testConfig(t)
	// Without Serve, nothing probes these URLs.
	cfg.Nodes[0].Probe, cfg.Nodes[1].Probe = "http://127.0.0.1:1/", "http://127.0.0.1:1/"
	cfg.Edges = cfg.Edges[:1]
	if err := s.Reload(cfg); err != nil {
		t.Fatal(err)
	}
	down := errors.New("connection refused")
	probe := func(before int32) {
		for _, n := range cfg.Nodes[:2] {
			state := s.current.Load().states[n.Name]
			state.set(unhealthy)
			s.handleProbe(state.endpoints[0], before != unhealthy, time.Millisecond, down)
		}
	}
	checkLog := func(when string, infos, warnings, errs int) {
		t.Helper()
		if i, w, e := log.count("not healthy yet"), log.count("node is unhealthy"),
			log.count("no node of an edge name"); i != infos || w != warnings || e != errs {
			t.Errorf("%s: %d infos, %d warnings, %d errors:\n%s", when, i, w, e, log.lines.String())
		}
	}
	s.began = time.Now()
	probe(unknown)
	probe(unhealthy)
	checkLog("while the fleet starts", 2, 0, 0)
	s.began = time.Now().Add(-startTime)
	probe(unhealthy)
	probe(unhealthy)
	checkLog("after that", 2, 2, 1)
}
