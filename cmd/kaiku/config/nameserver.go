package config

import (
	"cmp"
	"net"
	"net/netip"
	"time"

	"github.com/kaiku-cdn/kaiku/geodns"
)

// GeoDNSConfig is what the name servers answer.
func (f *Fleet) GeoDNSConfig(zones []*geodns.Zone) geodns.Config {
	h := f.GeoDNS.Health
	c := geodns.Config{Zones: zones, Locate: map[netip.Prefix]geodns.Place{},
		Health: geodns.Health{Interval: time.Duration(h.Interval), Timeout: time.Duration(h.Timeout),
			UnhealthyAfter: h.UnhealthyAfter, HealthyAfter: h.HealthyAfter}}
	if r := f.GeoDNS.RateLimit; r != nil {
		c.RateLimit = geodns.RateLimit{Responses: r.Responses, Errors: r.Errors, Slip: r.Slip, Exempt: r.Exempt}
	}
	if f.GeoDNS.GeoIP != "" {
		c.GeoIP = f.LocalFile(f.GeoDNS.GeoIP)
		if f.keep != nil {
			c.GeoIPCopy = f.keep.geoipCopy()
		}
	}
	for prefix, l := range f.GeoDNS.Locate {
		c.Locate[prefix] = geodns.Place{Lat: l[0], Lon: l[1]}
	}
	for i := range f.Nodes {
		n := &f.Nodes[i]
		if n.Has(RoleEdge) {
			c.Nodes = append(c.Nodes, geodns.Node{Name: n.Name, Region: n.Region, Weight: n.weight(), Out: n.out(),
				Addresses: n.Addresses, Probe: f.probeURL(n),
				ALPN: f.alpn(n), Place: geodns.Place{Lat: n.Location[0], Lon: n.Location[1]}})
		}
	}
	read := map[string]bool{} // the others can't be answered
	for _, z := range zones {
		read[z.Name()] = true
	}
	keys, _ := f.DNSSECKeys() // name servers ask for the error themselves, and other nodes have no keys
	for _, z := range f.GeoDNS.Zones {
		if !read[zoneKey(z.Name)] {
			delete(keys, z.Name)
			continue
		}
		for _, e := range z.Edges {
			name := z.Name
			if e.Name != "@" {
				name = e.Name + "." + z.Name
			}
			c.Edges = append(c.Edges, geodns.EdgeName{Name: name, Nodes: e.Nodes, Answers: e.Answers,
				TTL: time.Duration(e.TTL)})
		}
	}
	c.Keys = keys
	return c
}

// probeURL is where the health of a node's edge is asked: on the address that its listener has, or
// else the node's first.
func (f *Fleet) probeURL(n *Node) string {
	return "http://" + Reachable(f.EdgeOf(n).HTTP, n) + cmp.Or(f.GeoDNS.Health.Path, "/.kaiku/health")
}

// alpn are the protocols that a node's edge speaks over TLS on the port that names without one
// mean, as its HTTPS record tells them.
func (f *Fleet) alpn(n *Node) []string {
	if _, port, _ := net.SplitHostPort(f.EdgeOf(n).HTTPS); port != "443" || !f.Secures() {
		return nil
	}
	return []string{"h2", "h3"}
}
