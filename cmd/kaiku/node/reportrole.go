package node

import (
	"context"
	"encoding/json"
	"net/netip"
	"slices"
	"time"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
	"github.com/kaiku-cdn/kaiku/edge/admin"
	"github.com/kaiku-cdn/kaiku/fleet"
	"github.com/kaiku-cdn/kaiku/geodns"
)

// addReporter makes the node measure itself, and publish what it measures.
func (b *builder) addReporter() {
	r := &admin.Reporter{}
	if b.Edge != nil {
		r = b.Edge.Reporter
	} else if b.plane != nil || b.adminServer != nil {
		b.parts = append(b.parts, PartFunc(r.Serve))
	}
	r.Location = locationOf(b.node)
	if b.dns != nil {
		r.Served, r.Down = b.dns.Served, func() []string { return Unhealthy(b.dns) }
	}
	if b.plane != nil {
		r.Publish = b.plane.publish
	}
	if b.adminServer != nil {
		b.adminServer.Reporter = r
	}
	if b.dns != nil && b.Edge != nil {
		b.Edge.ExplainDNS = ExplainDNS(b.dns)
	} else if b.dns != nil && b.adminServer != nil {
		b.adminServer.ExplainDNS = ExplainDNS(b.dns)
	}
}

// ExplainDNS returns a function that explains which edges a client gets from a name server.
func ExplainDNS(s *geodns.Server) func(string, netip.Addr) (any, error) {
	return func(name string, client netip.Addr) (any, error) { return s.Explain(name, client) }
}

// Unhealthy returns the nodes whose health probes fail at a name server.
func Unhealthy(s *geodns.Server) []string {
	var out []string
	for name, healthy := range s.Healthy() {
		if !healthy {
			out = append(out, name)
		}
	}
	return out
}

// locationOf returns the location of a node, or nil if the fleet file has none.
func locationOf(n *config.Node) *[2]float64 {
	if n.Location == nil {
		return nil
	}
	at := [2]float64(*n.Location)
	return &at
}

// publish publishes a report of this node.
func (l *controlPlane) publish(r admin.Report) error {
	b, err := r.Encode(fleet.MaxReport)
	if err != nil {
		return err
	}
	return l.client.Report(b)
}

// Reports returns the last report of each node, and the points of the fleet's history after a time.
func (l fleetView) Reports(ctx context.Context, since int64) ([]admin.Reported, []admin.Point, error) {
	all, digest, err := l.allReports.Get(ctx, since)
	var points []admin.Point
	if len(digest) > 0 && err == nil {
		err = json.Unmarshal(digest, &points)
	}
	return parseReports(all), points, err
}

// Location returns the location of a node in this node's fleet file, or nil.
func (l fleetView) Location(node string) *[2]float64 { return l.places[node] }

// NameServers returns the name servers of the fleet file.
func (l fleetView) NameServers() []string { return l.nameServers }

// parseReports parses reports. It leaves out those that it can't read.
func parseReports(all []fleet.Reported) []admin.Reported {
	out := make([]admin.Reported, 0, len(all))
	for _, r := range all {
		if report, err := admin.ParseReport(r.Report); err == nil {
			out = append(out, admin.Reported{Node: r.Node, Report: report})
		}
	}
	return out
}

// digest keeps the history of the fleet on a control node.
type digest struct{ history admin.History }

// Add implements fleet.Digest.
func (d *digest) Add(now time.Time, reports []fleet.Reported) {
	d.history.Add(now, parseReports(reports))
}

// Since implements fleet.Digest.
func (d *digest) Since(at int64) json.RawMessage {
	points := d.history.Since(at)
	if len(points) == 0 {
		return nil
	}
	b, err := json.Marshal(points)
	if err != nil { // ParseReport lets nothing through that could cause it
		return nil
	}
	return b
}

// setPlaces records what the fleet file says about all nodes.
func (l *controlPlane) setPlaces(f *config.Fleet) {
	l.places = map[string]*[2]float64{}
	for i := range f.Nodes {
		n := &f.Nodes[i]
		l.places[n.Name] = locationOf(n)
		if n.Has(config.RoleGeoDNS) {
			l.nameServers = append(l.nameServers, n.Name)
		}
	}
	slices.Sort(l.nameServers)
}
