package front

import (
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Traffic counts the requests of clients and other edges that the edge answered for its sites since
// it started.
type Traffic struct {
	Requests uint64 `json:"requests"`
	Hits     uint64 `json:"hits"`   // answered from the store, fresh or stale
	Errors   uint64 `json:"errors"` // answered with 500 to 599
	Bytes    uint64 `json:"bytes"`  // of bodies
}

// Metrics counts requests.
type Metrics struct {
	requests *prometheus.CounterVec
	bytes    *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	found    sync.Map // of counterKey: *Counters; there are as many as there are series
	cut      prometheus.Counter
	lane     prometheus.Counter
	// Counters of what the limits for clients cut off.
	slowBodies, slowWrites, idleTunnels prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kaiku_edge_requests_total",
			Help: "Requests answered, by site, status and what the cache did."}, []string{"site", "status", "cache"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kaiku_edge_body_bytes_total",
			Help: "Bytes of bodies sent to clients."}, []string{"site", "cache"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "kaiku_edge_request_seconds",
			Help:    "Time from a request's header block to the end of its response.",
			Buckets: secondsBuckets}, []string{"cache"}),
	}
	m.cut = prometheus.NewCounter(prometheus.CounterOpts{Name: "kaiku_edge_requests_cut_total",
		Help: "Requests cut off because they were not done when the edge had to end."})
	m.lane = prometheus.NewCounter(prometheus.CounterOpts{Name: "kaiku_edge_hit_lane_total",
		Help: "Requests answered by the hit lane."})
	m.slowBodies = prometheus.NewCounter(prometheus.CounterOpts{Name: "kaiku_edge_bodies_slow_total",
		Help: "Requests answered with 408, or cut, because their body came too slowly."})
	m.slowWrites = prometheus.NewCounter(prometheus.CounterOpts{Name: "kaiku_edge_writes_slow_total",
		Help: "Responses cut because their clients took what was written too slowly."})
	m.idleTunnels = prometheus.NewCounter(prometheus.CounterOpts{Name: "kaiku_edge_tunnels_idle_total",
		Help: "Tunnels, as WebSockets, ended because nothing went through them for long."})
	for _, c := range []prometheus.Collector{m.cut, m.slowBodies, m.slowWrites, m.idleTunnels, m.lane, m.requests,
		m.bytes, m.seconds} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// Counters are the counters of one site, status and outcome. They are kept, because it costs more
// to find them by their labels than to count.
type Counters struct {
	requests, bytes prometheus.Counter
	seconds         prometheus.Observer
}

type counterKey struct {
	site    string
	status  int
	outcome string
}

// Counters finds the counters of a site, a status, and an outcome as Outcome returns it.
func (m *Metrics) Counters(site string, status int, outcome string) *Counters {
	key := counterKey{site, status, outcome}
	if c, ok := m.found.Load(key); ok {
		return c.(*Counters)
	}
	c, _ := m.found.LoadOrStore(key, &Counters{m.requests.WithLabelValues(site, strconv.Itoa(status), outcome),
		m.bytes.WithLabelValues(site, outcome), m.seconds.WithLabelValues(outcome)})
	return c.(*Counters)
}

// Traffic returns the sums over all sites.
func (m *Metrics) Traffic() Traffic {
	var t Traffic
	m.found.Range(func(k, v any) bool {
		key, c := k.(counterKey), v.(*Counters)
		if key.site == "" {
			return true // health checks and refused requests
		}
		n := counted(c.requests)
		t.Requests += n
		if isHit(key.outcome) {
			t.Hits += n
		}
		if key.status >= 500 {
			t.Errors += n
		}
		return true
	})
	return t
}

// Observe counts a request that began at a given time, and the bytes of the body that it was
// answered with.
func (c *Counters) Observe(bytes int64, began time.Time) {
	c.requests.Inc()
	c.bytes.Add(float64(bytes))
	c.seconds.Observe(time.Since(began).Seconds())
}

func (m *Metrics) observe(r *Exchange, began time.Time) {
	m.Counters(r.site, r.status, Outcome(r.cache)).Observe(r.bytes, began)
}
