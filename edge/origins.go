package edge

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kaiku-cdn/kaiku/edge/site"
)

// originCollector reads the pools' own counters at each scrape.
type originCollector struct{ sites *site.Table }

// Describe sends nothing: the collector is unchecked.
func (originCollector) Describe(chan<- *prometheus.Desc) {}

func (c originCollector) Collect(out chan<- prometheus.Metric) {
	send := func(name, help string, kind prometheus.ValueType, v float64, labels, values []string) {
		out <- prometheus.MustNewConstMetric(prometheus.NewDesc("kaiku_origin_"+name, help, labels, nil), kind, v,
			values...)
	}
	site, server := []string{"site"}, []string{"site", "server"}
	for _, p := range c.sites.Now().Origins() {
		of := []string{p.Site}
		send("panic", "1 while most servers of the pool look unhealthy, so that all are used.", prometheus.GaugeValue,
			number(p.Panic), site, of)
		send("queue", "Requests that wait for a server with room.", prometheus.GaugeValue, float64(p.Waiting), site, of)
		send("queue_refused_total", "Requests that found the queue full or waited in vain.", prometheus.CounterValue,
			float64(p.Refused), site, of)
		send("limited_total", "Requests refused because their client had its share of those under way.",
			prometheus.CounterValue, float64(p.Limited), site, of)
		send("client_faults_total", "Requests that failed by the fault of their clients.", prometheus.CounterValue,
			float64(p.Faults), site, of)
		send("retries_total", "Requests sent to another server after one failed.", prometheus.CounterValue,
			float64(p.Retries), site, of)
		send("hedges_total", "Requests sent to a second server because the first was slow.", prometheus.CounterValue,
			float64(p.Hedges), site, of)
		for _, b := range p.Servers {
			of := []string{p.Site, b.Server}
			send("up", "1 unless probes find the server down, or its last requests failed.", prometheus.GaugeValue,
				number(b.Up()), server, of)
			send("share", "Part of its weight that the server has, less than 1 in slow start.", prometheus.GaugeValue,
				b.Share, server, of)
			send("in_flight", "Requests under way at the server.", prometheus.GaugeValue, float64(b.InFlight), server,
				of)
			send("streams", "Those of the requests under way whose response goes straight to a client.",
				prometheus.GaugeValue, float64(b.Streams), server, of)
			send("tunnels", "WebSockets to the server.", prometheus.GaugeValue, float64(b.Tunnels), server, of)
			send("open_connections", "Connections to the server.", prometheus.GaugeValue, float64(b.Connections),
				server, of)
			send("connections_total", "Connections made to the server.", prometheus.CounterValue,
				float64(b.Counts.Connections), server, of)
			send("requests_total", "Requests sent to the server.", prometheus.CounterValue, float64(b.Requests), server,
				of)
			send("reused_total", "Requests sent on a connection that was there already.", prometheus.CounterValue,
				float64(b.Reused), server, of)
			send("changes_total", "Times that the server went or came back.", prometheus.CounterValue,
				float64(b.Changes), server, of)
			send("ejections_total", "Times that the server was ejected for what requests met.", prometheus.CounterValue,
				float64(b.Ejections), server, of)
			send("probes_total", "Health probes of the server.", prometheus.CounterValue, float64(b.Probes), server, of)
			send("probes_failed_total", "Health probes that failed.", prometheus.CounterValue, float64(b.ProbesBad),
				server, of)
			for reason, n := range b.Failures {
				send("failures_total", "Requests that the server failed.", prometheus.CounterValue, float64(n),
					[]string{"site", "server", "reason"}, []string{p.Site, b.Server, reason})
			}
		}
	}
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
