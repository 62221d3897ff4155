package config

import (
	"cmp"
	"net"
	"net/netip"
	"time"

	"github.com/kaiku-cdn/kaiku/geodns"
)

// GeoDNSConfig returns the configuration of the name servers.
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
	read := map[string]bool{} // zones that could not be read can't be answered
	for _, z := range zones {
		read[z.Name()] = true
	}
	keys, _ := f.DNSSECKeys() // name servers check the error themselves, and other nodes have no keys
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

// probeURL returns the URL for health checks of a node's edge. Its host is the address of the
// listener, or else the node's first address.
func (f *Fleet) probeURL(n *Node) string {
	return "http://" + Reachable(f.EdgeOf(n).HTTP, n) + cmp.Or(f.GeoDNS.Health.Path, "/.kaiku/health")
}

// alpn returns the ALPN protocols of a node's edge for its HTTPS record. It returns none if the
// edge does not serve TLS on port 443, the default port.
func (f *Fleet) alpn(n *Node) []string {
	if _, port, _ := net.SplitHostPort(f.EdgeOf(n).HTTPS); port != "443" || !f.Secures() {
		return nil
	}
	return []string{"h2", "h3"}
}
