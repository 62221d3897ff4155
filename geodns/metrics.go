package geodns

import (
	"fmt"
	"sync/atomic"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
)

// metrics are created and registered once, with the first configuration.
type metrics struct {
	queries      *prometheus.CounterVec
	answered     *prometheus.CounterVec
	healthy      *prometheus.GaugeVec
	allUnhealthy prometheus.Counter
	probe        *prometheus.HistogramVec
	probes       *prometheus.CounterVec
	zones        *prometheus.CounterVec
	seconds      prometheus.Histogram
	panics       prometheus.Counter
	shed         prometheus.Counter
	addresses    *prometheus.GaugeVec

	signatures prometheus.Counter
	unsigned   prometheus.Counter

	limited          *prometheus.CounterVec
	dropped, slipped prometheus.Counter // counters of limited
	// Cached counters of queries. Looking a counter up by its labels costs as much as the rest of
	// an answer.
	byLabels [2][labelledTypes][labelledRcodes]atomic.Pointer[prometheus.Counter]
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		queries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kaiku_dns_queries_total", Help: "DNS queries answered.",
		}, []string{"type", "rcode", "transport"}),
		answered: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kaiku_dns_answered_total", Help: "Answers for edge names that a node was in.",
		}, []string{"node"}),
		healthy: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "kaiku_dns_node_healthy", Help: "1 where the node's health probes succeed, or it has none.",
		}, []string{"node"}),
		addresses: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "kaiku_dns_address_healthy",
			Help: "1 where the health probes of an address succeed; no value where this server has no route to it.",
		}, []string{"node", "address"}),
		allUnhealthy: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "kaiku_dns_all_unhealthy_total", Help: "Answers for edge names none of whose nodes was healthy.",
		}),
		probe: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "kaiku_dns_probe_seconds", Help: "Duration of health probes.",
			Buckets: []float64{.005, .01, .025, .05, .1, .2, .3, .5, 1, 2, 5},
		}, []string{"node"}),
		probes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kaiku_dns_probes_total",
			Help: "Health probes of a node from this server, by result: ok, failed or no_route.",
		}, []string{"node", "result"}),
		zones: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kaiku_dns_zone_queries_total", Help: "DNS queries for a name of a zone.",
		}, []string{"zone"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "kaiku_dns_answer_seconds",
			Help:    "Time from a query read to its response sent; of a batch of packets the mean, once.",
			Buckets: []float64{1e-6, 2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 1e-2},
		}),
		limited: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kaiku_dns_rate_limited_total", Help: "Responses over UDP that were over the rate limit.",
		}, []string{"action"}),
	}
	m.panics = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "kaiku_dns_panics_total",
		Help: "Panics, each of which cost one query its response and is logged with its stack.",
	})
	m.shed = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "kaiku_dns_tcp_shed_total", Help: "Idle TCP connections that were closed to make room for others.",
	})
	m.signatures = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "kaiku_dns_signatures_total", Help: "DNSSEC signatures made.",
	})
	m.unsigned = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "kaiku_dns_signatures_refused_total",
		Help: "Responses sent without their records because there was no time for a new DNSSEC signature.",
	})
	m.dropped, m.slipped = m.limited.WithLabelValues("dropped"), m.limited.WithLabelValues("slipped")
	if reg == nil {
		return m, nil
	}
	collectors := []prometheus.Collector{m.queries, m.answered, m.healthy, m.allUnhealthy, m.probe, m.limited, m.zones,
		m.seconds, m.probes, m.panics, m.shed, m.addresses, m.signatures, m.unsigned}
	for i, c := range collectors {
		if err := reg.Register(c); err != nil {
			for _, mine := range collectors[:i] {
				reg.Unregister(mine) // so that Reload can be retried
			}
			return nil, fmt.Errorf("geodns: register metrics: %w", err)
		}
	}
	return m, nil
}

// query returns the counter for a response.
func (m *metrics) query(qtype uint16, rcode int, tcp bool) *prometheus.Counter {
	counters, transport := &m.byLabels[0], "udp"
	if tcp {
		counters, transport = &m.byLabels[1], "tcp"
	}
	cell := &counters[typeIndex(qtype)][min(rcode, labelledRcodes-1)]
	counter := cell.Load()
	if counter == nil {
		made := m.queries.WithLabelValues(typeLabel(qtype), dns.RcodeToString[rcode], transport)
		counter = &made
		cell.Store(counter)
	}
	return counter
}

// answeredBy returns the counter of answers that have the node.
func (m *metrics) answeredBy(state *nodeState) *prometheus.Counter {
	counter := state.answered.Load()
	if counter == nil {
		made := m.answered.WithLabelValues(state.name)
		counter = &made
		state.answered.Store(counter)
	}
	return counter
}

// tally collects counts of one goroutine. The shared counters are then written once per batch, not
// once per query. With several cores, each write to a shared counter costs half as much as an
// answer.
type tally struct {
	counts [16]struct {
		counter *prometheus.Counter
		n       int
	}
	used int
}

func (t *tally) inc(counter *prometheus.Counter) {
	for i := range t.counts[:t.used] {
		if t.counts[i].counter == counter {
			t.counts[i].n++
			return
		}
	}
	if t.used == len(t.counts) {
		t.flush()
	}
	t.counts[t.used].counter, t.counts[t.used].n = counter, 1
	t.used++
}

// flush adds the counts to the counters.
func (t *tally) flush() {
	for i := range t.counts[:t.used] {
		(*t.counts[i].counter).Add(float64(t.counts[i].n))
		t.counts[i].counter = nil // don't keep a removed node's counter alive
	}
	t.used = 0
}

const (
	labelledTypes  = int(dns.TypeHTTPS) + 1 + int(dns.TypeCAA-dns.TypeIXFR) + 1 + 1
	labelledRcodes = dns.RcodeBadCookie + 1 // the highest rcode that the server uses
)

// typeIndex maps query types to small numbers. Types with the same number have the same label. The
// common types have low numbers, types from IXFR to CAA follow, and all others share the last one.
func typeIndex(qtype uint16) int {
	switch {
	case qtype <= dns.TypeHTTPS:
		return int(qtype)
	case qtype >= dns.TypeIXFR && qtype <= dns.TypeCAA:
		return int(dns.TypeHTTPS) + 1 + int(qtype-dns.TypeIXFR)
	}
	return labelledTypes - 1
}

// typeLabel returns the type's label. It bounds the number of labels, because a client may ask for
// any of 65536 types.
func typeLabel(qtype uint16) string {
	switch qtype {
	case dns.TypeA, dns.TypeAAAA, dns.TypeANY, dns.TypeAXFR, dns.TypeCAA, dns.TypeCNAME, dns.TypeDNAME, dns.TypeDNSKEY,
		dns.TypeDS, dns.TypeHTTPS, dns.TypeIXFR, dns.TypeMX, dns.TypeNAPTR, dns.TypeNS, dns.TypePTR, dns.TypeSOA,
		dns.TypeSRV, dns.TypeSSHFP, dns.TypeSVCB, dns.TypeTLSA, dns.TypeTXT:
		return dns.TypeToString[qtype]
	}
	return "other"
}

// nodes sets the gauges of all nodes, and removes the metrics of nodes that are gone.
func (m *metrics) nodes(now, before *snapshot) {
	if before != nil {
		for name := range before.states {
			if now.states[name] == nil {
				m.healthy.DeleteLabelValues(name)
				m.answered.DeleteLabelValues(name)
				m.probe.DeleteLabelValues(name)
				m.probes.DeletePartialMatch(prometheus.Labels{"node": name})
				m.addresses.DeletePartialMatch(prometheus.Labels{"node": name})
			}
		}
	}
	for name, state := range now.states {
		if before != nil && before.states[name] != state {
			// The node may have other addresses now.
			m.addresses.DeletePartialMatch(prometheus.Labels{"node": name})
		}
		m.node(state)
	}
}

// zoneCounters sets the counter of each zone, and removes the counters of zones that are gone.
func (m *metrics) zoneCounters(now, before *snapshot) {
	if before != nil {
		for origin, z := range before.zones {
			if now.zones[origin] == nil {
				m.zones.DeleteLabelValues(z.Name())
			}
		}
	}
	now.zoneQueries = make(map[*Zone]*prometheus.Counter, len(now.zones))
	for _, z := range now.zones {
		counter := m.zones.WithLabelValues(z.Name())
		now.zoneQueries[z] = &counter
	}
}

func (m *metrics) node(state *nodeState) {
	value := 0.0
	if state.isHealthy() {
		value = 1
	}
	m.healthy.WithLabelValues(state.name).Set(value)
	for _, e := range state.endpoints {
		if !e.addr.IsValid() {
			continue
		}
		switch address := e.addr.String(); e.phase.Load() {
		case healthy:
			m.addresses.WithLabelValues(state.name, address).Set(1)
		case unhealthy:
			m.addresses.WithLabelValues(state.name, address).Set(0)
		default:
			m.addresses.DeleteLabelValues(state.name, address)
		}
	}
}
