package edge

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kaiku-cdn/kaiku/storage"
)

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
		{"damaged_total", "Objects whose checksum failed or whose chunk was missing.", prometheus.CounterValue,
			float64(st.Damaged)},
		{"stored_bytes_total", "Bytes of bodies stored.", prometheus.CounterValue, float64(st.Stored)},
		{"rewrites_total", "Objects written again because they were hit.", prometheus.CounterValue,
			float64(st.Rewrites)},
		{"rewritten_bytes_total", "Bytes of those.", prometheus.CounterValue, float64(st.Rewritten)},
		{"purge_records", "Purge records that may still matter.", prometheus.GaugeValue, float64(st.Purges)},
	} {
		out <- prometheus.MustNewConstMetric(prometheus.NewDesc("kaiku_store_"+m.name, m.help, nil, nil), m.kind, m.v)
	}
	evicted := prometheus.NewDesc("kaiku_store_evicted_total", "Objects that went with their segment.",
		[]string{"reason"}, nil)
	refused := prometheus.NewDesc("kaiku_store_refused_total", "Writes refused.", []string{"reason"}, nil)
	for _, m := range []struct {
		desc   *prometheus.Desc
		reason string
		v      uint64
	}{{evicted, "budget", st.Evicted}, {evicted, "floor", st.EvictedFloor}, {refused, "floor", st.Refused},
		{refused, "too-large", st.RefusedLarge}} {
		out <- prometheus.MustNewConstMetric(m.desc, prometheus.CounterValue, float64(m.v), m.reason)
	}
}
