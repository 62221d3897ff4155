package edge

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kaiku-cdn/kaiku/edge/cache"
)

// compressCollector reads the counters of the cache's coder at each scrape.
type compressCollector struct{ cache *cache.Cache }

// Describe sends nothing: the collector is unchecked.
func (compressCollector) Describe(chan<- *prometheus.Desc) {}

func (c compressCollector) Collect(out chan<- prometheus.Metric) {
	send := func(name, help string, kind prometheus.ValueType, v float64, label ...string) {
		var names, values []string
		if len(label) > 0 {
			names, values = label[:1], label[1:]
		}
		out <- prometheus.MustNewConstMetric(prometheus.NewDesc("kaiku_compress_"+name, help, names, nil), kind, v,
			values...)
	}
	n := c.cache.Codings()
	send("waiting", "Bodies that wait or are being coded.", prometheus.GaugeValue, float64(n.Waiting))
	for coding, d := range n.Done {
		for _, m := range []struct {
			name, help string
			v          float64
		}{
			{"objects_total", "Coded bodies made.", float64(d.Objects)},
			{"in_bytes_total", "Bytes of those before coding.", float64(d.In)},
			{"out_bytes_total", "Bytes of those after coding.", float64(d.Out)},
			{"seconds_total", "Time for coding.", d.Time.Seconds()},
		} {
			send(m.name, m.help, prometheus.CounterValue, m.v, "coding", coding)
		}
	}
	for reason, v := range n.Dropped {
		send("dropped_total", "Bodies that were not coded.", prometheus.CounterValue, float64(v), "reason", reason)
	}
}
