package node

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"
)

// fleetCollector exports the registry's state of all nodes, read anew at each scrape.
type fleetCollector struct{ plane *controlPlane }

// Describe sends nothing: the collector is unchecked.
func (fleetCollector) Describe(chan<- *prometheus.Desc) {}

// Collect sends the metrics of each node.
func (c fleetCollector) Collect(out chan<- prometheus.Metric) {
	send := func(name, help string, v float64, node ...string) {
		var labels []string
		if len(node) > 0 {
			labels = []string{"node"}
		}
		out <- prometheus.MustNewConstMetric(prometheus.NewDesc("kaiku_fleet_"+name, help, labels, nil),
			prometheus.GaugeValue, v, node...)
	}
	number := func(b bool) float64 {
		if b {
			return 1
		}
		return 0
	}
	send("in_touch", "1 while this node follows the log of purges, or needs none.", number(c.plane.inTouch()))
	send("cut_off", "1 while no control node can be reached.",
		number(c.plane.follower != nil && c.plane.follower.CutOff()))
	if c.plane.control != nil {
		room := c.plane.control.Room()
		send("control_free_bytes", "Free space on the disk of this control node.", float64(room.Free))
		send("control_floor_bytes", "Free space below which this control node stores no purges.", float64(room.Floor))
	}
	for _, n := range c.plane.registry.Nodes() {
		send("node_live", "1 while the lease of a node is renewed.", number(n.Live), n.Node)
		send("node_ready", "1 while a node reports that it is ready.", number(n.Ready), n.Node)
		send("node_draining", "1 while a node is drained.", number(n.Draining), n.Node)
		send("node_load", "Traffic that a node sends, as a fraction of its capacity, 0 to 1.", n.Load, n.Node)
		if slices.Contains(c.plane.registry.Edges, n.Node) {
			send("node_purges", "Sequence number of the newest purge that an edge has applied.",
				float64(n.Applied.Seq), n.Node)
		}
	}
}
