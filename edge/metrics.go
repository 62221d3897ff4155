package edge

import (
	"container/list"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
	"github.com/kaiku-cdn/kaiku/origin"
	"github.com/kaiku-cdn/kaiku/storage"
)

// recorder is a ResponseWriter that remembers what is counted, and gives slow clients up.
type recorder struct {
	http.ResponseWriter
	control *http.ResponseController
	site    string
	status  int
	bytes   int64
	sent    *atomic.Uint64 // by the whole edge
	fields  http.Header    // that every final response of the edge to a client has
	plain   bool           // the client came without TLS
	unsized bool           // the answer is to a HEAD over HTTP/3

	client   *client                 // nil if its connection is not limited
	body     *requestBody            // of the request; nil without one
	tunnel   func(net.Conn) net.Conn // makes one of a connection
	hijacked bool                    // it is one
	piece    int                     // bytes that are written at once
	holds    int                     // bytes of memory that a write holds beyond what it writes
	weight   int                     // of what is written, among senders
	senders  *senders
	since    time.Time     // when the write that is under way began, or was given up
	list     *list.List    // of senders that it is in
	load     *int          // of that list
	place    *list.Element // in that, nil if it is in none; all four are guarded by senders.mu
	cache    httpcache.Status
}

func (r *recorder) WriteHeader(status int) {
	if status == http.StatusContinue && r.body != nil && (r.body.proceed == nil || r.body.told.Swap(true)) {
		return // the client is told when the body is read
	}
	if status >= 200 || status == http.StatusSwitchingProtocols {
		r.status = status
		h := r.Header()
		if r.body != nil {
			r.body.answer(h)
		}
		if _, ok := h["Content-Type"]; !ok {
			h["Content-Type"] = nil // or net/http guesses one, if it has some of the body already
		}
		if _, ok := h["Content-Length"]; !ok && r.unsized {
			h["Content-Length"] = nil // or quic-go says that it is 0
		}
		for name, lines := range r.fields {
			h[name] = lines
		}
		if r.plain {
			delete(h, "Strict-Transport-Security") // of the origin's; it must not be sent without TLS (RFC 6797, 7.2)
		}
	}
	if status < 200 && status != http.StatusSwitchingProtocols { // it is sent at once
		r.weight = 1
		r.senders.begin(r, time.Now())
		defer r.senders.end(r)
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.WriteHeader(http.StatusOK)
	}
	r.weight = weight(max(len(p), r.holds))
	total := 0
	for {
		part := p[total:min(len(p), total+r.piece)]
		r.senders.begin(r, time.Now())
		n, err := r.ResponseWriter.Write(part)
		r.senders.end(r)
		r.bytes += int64(n)
		r.sent.Add(uint64(n))
		if total += n; err != nil || total == len(p) {
			return total, err
		}
	}
}

// FlushError sends what was written; http.ResponseController calls it.
func (r *recorder) FlushError() error {
	r.weight = 1
	r.senders.begin(r, time.Now())
	defer r.senders.end(r)
	return http.NewResponseController(r.ResponseWriter).Flush()
}

// end bounds the time for what the server has not sent yet when the handler returns. With HTTP/1.1
// that is the end of a body, or all of a small response, and waits where a client reads nothing of
// those before; net/http takes the deadline back before the next request.
func (r *recorder) end(within time.Duration) {
	_ = r.control.SetWriteDeadline(time.Now().Add(within))
}

// linger lets a client that still sends its body see an answer that it has whole.
func (r *recorder) linger() {
	if r.Header()["Content-Length"] == nil && r.status != http.StatusNoContent && r.status != http.StatusNotModified {
		return // its end is not sent before the handler returns
	}
	if err := http.NewResponseController(r.ResponseWriter).Flush(); err == nil {
		r.body.linger()
	}
}

// Unwrap gives http.ResponseController the writer below.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// outcome is the label that says what the cache did.
func (r *recorder) outcome() string {
	switch {
	case r.cache.Hit && r.cache.TTL <= 0:
		return "stale"
	case r.cache.Hit:
		return "hit"
	case r.cache.Collapsed:
		return "collapsed"
	case r.cache.Forward == "stale":
		return "revalidated"
	case r.cache.Forward != "" && r.cache.Stored:
		return "miss"
	case r.cache.Forward != "":
		return "pass"
	}
	return "none"
}

type metrics struct {
	requests *prometheus.CounterVec
	bytes    *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	found    sync.Map // of counterKey: *counters; there are as many as there are series
	cut      prometheus.Counter
	lane     prometheus.Counter
	// What the limits of clients cut.
	slowBodies, slowWrites, idleTunnels prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, store *storage.Store, pools func() []origin.Status) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kaiku_edge_requests_total",
			Help: "Requests answered, by site, status and what the cache did."}, []string{"site", "status", "cache"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kaiku_edge_body_bytes_total",
			Help: "Bytes of bodies sent to clients."}, []string{"site", "cache"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "kaiku_edge_request_seconds",
			Help:    "Time from a request's header block to the end of its response.",
			Buckets: []float64{.0001, .0003, .001, .003, .01, .03, .1, .3, 1, 3, 10}}, []string{"cache"}),
	}
	m.cut = prometheus.NewCounter(prometheus.CounterOpts{Name: "kaiku_edge_requests_cut_total", Help: "Requests cut off because they were not done when the edge had to end."})
	m.lane = prometheus.NewCounter(prometheus.CounterOpts{Name: "kaiku_edge_hit_lane_total", Help: "Requests answered by the hit lane."})
	m.slowBodies = prometheus.NewCounter(prometheus.CounterOpts{Name: "kaiku_edge_bodies_slow_total", Help: "Requests answered with 408, or cut, because their body came too slowly."})
	m.slowWrites = prometheus.NewCounter(prometheus.CounterOpts{Name: "kaiku_edge_writes_slow_total", Help: "Responses cut because their clients took what was written too slowly."})
	m.idleTunnels = prometheus.NewCounter(prometheus.CounterOpts{Name: "kaiku_edge_tunnels_idle_total", Help: "Tunnels, as WebSockets, ended because nothing went through them for long."})
	for _, c := range []prometheus.Collector{m.cut, m.slowBodies, m.slowWrites, m.idleTunnels, m.lane, m.requests, m.bytes, m.seconds, storeCollector{store}, originCollector{pools}} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// counters are those of requests of one kind, found once: to find them by their labels costs more
// than to count.
type counters struct {
	requests, bytes prometheus.Counter
	seconds         prometheus.Observer
}

type counterKey struct {
	site    string
	status  int
	outcome string
}

func (m *metrics) counters(site string, status int, outcome string) *counters {
	key := counterKey{site, status, outcome}
	if c, ok := m.found.Load(key); ok {
		return c.(*counters)
	}
	c, _ := m.found.LoadOrStore(key, &counters{m.requests.WithLabelValues(site, strconv.Itoa(status), outcome), m.bytes.WithLabelValues(site, outcome), m.seconds.WithLabelValues(outcome)})
	return c.(*counters)
}

// traffic sums up the requests of sites.
func (m *metrics) traffic() Traffic {
	var t Traffic
	m.found.Range(func(k, v any) bool {
		key, c := k.(counterKey), v.(*counters)
		if key.site == "" {
			return true // of health, and refused
		}
		var m dto.Metric
		_ = c.requests.Write(&m) // a counter's never fails
		n := uint64(m.GetCounter().GetValue())
		t.Requests += n
		if key.outcome == "hit" || key.outcome == "stale" {
			t.Hits += n
		}
		if key.status >= 500 {
			t.Errors += n
		}
		return true
	})
	return t
}

func (c *counters) observe(bytes int64, began time.Time) {
	c.requests.Inc()
	c.bytes.Add(float64(bytes))
	c.seconds.Observe(time.Since(began).Seconds())
}

func (m *metrics) observe(r *recorder, began time.Time) {
	m.counters(r.site, r.status, r.outcome()).observe(r.bytes, began)
}

// storeCollector reads the store's own counters at each scrape.
type storeCollector struct{ store *storage.Store }

// Describe sends nothing: the collector is unchecked.
func (storeCollector) Describe(chan<- *prometheus.Desc) {}

func (c storeCollector) Collect(out chan<- prometheus.Metric) {
	st := c.store.Stats()
	for _, m := range []struct {
		name, help string
		kind       prometheus.ValueType
		v          float64
	}{
		{"objects", "Objects in the store.", prometheus.GaugeValue, float64(st.Objects)},
		{"disk_bytes", "Allocated bytes of the store's segments.", prometheus.GaugeValue, float64(st.Bytes)},
		{"disk_budget_bytes", "Budget of those.", prometheus.GaugeValue, float64(st.Disk)},
		{"memory_bytes", "Bytes in the RAM tier.", prometheus.GaugeValue, float64(st.Memory)},
		{"segments", "Segments, the open one included.", prometheus.GaugeValue, float64(st.Segments)},
		{"segments_dropped_total", "Segments dropped.", prometheus.CounterValue, float64(st.Dropped)},
		{"damaged_total", "Objects whose checksum failed or whose chunk was missing.", prometheus.CounterValue, float64(st.Damaged)},
		{"stored_bytes_total", "Bytes of bodies stored.", prometheus.CounterValue, float64(st.Stored)},
		{"rewrites_total", "Objects written again because they were hit.", prometheus.CounterValue, float64(st.Rewrites)},
		{"rewritten_bytes_total", "Bytes of those.", prometheus.CounterValue, float64(st.Rewritten)},
		{"purge_records", "Purge records that may still matter.", prometheus.GaugeValue, float64(st.Purges)},
	} {
		out <- prometheus.MustNewConstMetric(prometheus.NewDesc("kaiku_store_"+m.name, m.help, nil, nil), m.kind, m.v)
	}
	evicted := prometheus.NewDesc("kaiku_store_evicted_total", "Objects that went with their segment.", []string{"reason"}, nil)
	refused := prometheus.NewDesc("kaiku_store_refused_total", "Writes refused.", []string{"reason"}, nil)
	for _, m := range []struct {
		desc   *prometheus.Desc
		reason string
		v      uint64
	}{{evicted, "budget", st.Evicted}, {evicted, "floor", st.EvictedFloor}, {refused, "floor", st.Refused}, {refused, "too-large", st.RefusedLarge}} {
		out <- prometheus.MustNewConstMetric(m.desc, prometheus.CounterValue, float64(m.v), m.reason)
	}
}
