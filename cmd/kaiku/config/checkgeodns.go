package config

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/words"
	"github.com/kaiku-cdn/kaiku/geodns"
)

// checkGeoDNS checks the section geodns. It reads the zones and returns those that can be served.
func (f *Fleet) checkGeoDNS() []*geodns.Zone {
	g := &f.GeoDNS
	f.checkProbe("geodns.health", g.Health)
	for prefix, l := range g.Locate {
		at := "geodns.locate." + prefix.String()
		f.checkLocation(at, l)
		f.checkNetwork(at, prefix)
	}
	f.checkLog("geodns.query_log", g.QueryLog)
	f.checkNameServers()
	var zones []*geodns.Zone
	names := map[string]bool{}
	for i := range g.Zones {
		z := &g.Zones[i]
		at := fmt.Sprintf("geodns.zones[%d]", i)
		f.checkEdgeNames(at, z)
		f.checkDNSSEC(at, z)
		if !isZone(z.Name) {
			f.errorf(at, "zone %q is not a domain name", z.Name)
			continue
		}
		name := LowerHosts([]string{z.Name})[0]
		if names[name] {
			f.errorf(at+".name", "zone %s is listed twice", z.Name)
		}
		names[name] = true
		if z.File == "" {
			f.errorf(at+".file", "zone %s has no file: its SOA and NS come from there", z.Name)
			continue
		}
		before := len(f.file.errs)
		files := f.readZone(i, at, z)
		if f.keep != nil {
			f.keep.take(f, files, f.file.errs[before:])
			f.file.errs = f.file.errs[:before]
		}
		if files.zone != nil {
			zones = append(zones, files.zone)
		}
	}
	if f.keep != nil {
		zones = f.keep.fit(f, zones)
	}
	if len(f.file.errs) == 0 && len(zones) > 0 {
		// Errors that only the name server finds, such as an edge name that has an address in the
		// zone file.
		s, config := new(geodns.Server), f.GeoDNSConfig(zones)
		if isThere(config.GeoIP) && f.keep == nil { // name servers find this error themselves
			if err := geodns.CheckGeoIP(config.GeoIP); err != nil {
				f.errorf("geodns.geoip", "%v", err)
			}
		}
		config.GeoIP = ""
		if err := s.Reload(config); err != nil {
			f.errorf("geodns", "%v", err)
		} else {
			f.checkNames(s)
		}
	}
	return zones
}

// isZone reports whether a name can be a zone's: a host name, or a name as in RFC 2317, section 4,
// such as 0/25.2.0.192.in-addr.arpa.
func isZone(name string) bool { return name != "" && IsHost(strings.ReplaceAll(name, "/", "-")) }

// checkNameServers reports name servers without a zone, and zones without a name server.
func (f *Fleet) checkNameServers() {
	var servers []string
	for _, n := range f.Nodes {
		if n.Has(RoleGeoDNS) {
			servers = append(servers, n.Name)
		}
	}
	switch {
	case len(servers) > 0 && len(f.GeoDNS.Zones) == 0:
		f.errorf("nodes."+servers[0]+".roles",
			"the role geodns has nothing to answer: there is no zone in geodns.zones")
	case len(servers) == 0 && len(f.GeoDNS.Zones) > 0:
		f.warnf("geodns.zones", "no node has the role geodns, so nobody answers for the zones")
	}
}

// checkNetwork adds an error for a prefix with host bits set, or for an IPv4 network that is
// written as IPv6.
func (f *Fleet) checkNetwork(at string, network netip.Prefix) {
	switch {
	case !network.IsValid(): // it did not decode
	case network.Addr().Is4In6():
		f.errorf(at, "%s: write a network of IPv4 addresses as one", network)
	case network != network.Masked():
		f.errorf(at, "%s has bits of a host: want %s", network, network.Masked())
	}
}

func (f *Fleet) checkEdgeNames(at string, z *Zone) {
	for _, e := range z.Edges {
		p := at + ".edges." + e.Name
		if e.Name != "@" && e.Name != "*" && !IsHost(strings.TrimPrefix(e.Name, "*.")) {
			f.errorf(p, "%q is not a name below the zone; @ is the zone itself, * every name that is not there", e.Name)
		}
		if e.Answers < 0 || e.Answers > 16 {
			f.errorf(p+".answers", "want 1 to 16, not %d", e.Answers)
		}
		for i, name := range e.Nodes {
			pn := fmt.Sprintf("%s.nodes[%d]", p, i)
			f.checkEdgeNode(pn, name)
		}
	}
	if len(z.Edges) > 0 && !slices.ContainsFunc(f.Nodes, func(n Node) bool { return n.Has(RoleEdge) }) {
		f.errorf(at+".edges", "there is no node with the role edge")
	}
	for _, e := range z.Edges {
		answered := func(n Node) bool {
			return n.Has(RoleEdge) &&
				(len(e.Nodes) == 0 || slices.Contains(e.Nodes, n.Name))
		}
		if slices.ContainsFunc(f.Nodes, answered) && !slices.ContainsFunc(f.Nodes,
			func(n Node) bool { return answered(n) && !n.out() }) {
			f.errorf(at+".edges."+e.Name, "all of its nodes have the weight 0, which takes them out of use, so there is no edge to answer with: give one of them the weight 1")
		}
	}
}

// checkNames reports hosts of sites that no DNS name leads to, and edge names that no site serves.
func (f *Fleet) checkNames(s *geodns.Server) {
	var zones []string
	for i := range f.GeoDNS.Zones {
		z := &f.GeoDNS.Zones[i]
		zones = append(zones, strings.ToLower(strings.TrimSuffix(z.Name, ".")))
		for j := range z.Edges {
			name := z.Edges[j].FQDN(z)
			if len(f.Sites) > 0 && !f.answers(name) {
				f.warnf(fmt.Sprintf("geodns.zones[%d].edges.%s", i, z.Edges[j].Name),
					"no site has the host %s: its clients get 421 from the edges", name)
			}
		}
	}
	f.checkOriginNames(s, zones)
	for i := range f.Sites {
		for j, host := range LowerHosts(f.Sites[i].Hosts) {
			switch at := fmt.Sprintf("sites[%d].hosts[%d]", i, j); {
			case net.ParseIP(strings.Trim(host, "[]")) != nil || len(zones) == 0:
			case !InZone(zones, strings.TrimPrefix(host, "*.")):
				f.warnf(at, "%s is in none of the zones: unless its DNS is elsewhere, and leads to the edges from there, nobody finds it%s", host, didYouMean(host, zones))
			case !s.Leads(host):
				f.warnf(at, "the zone has no name %s, so nobody finds it: add it to geodns.zones, below edges",
					host)
			}
		}
	}
}

// didYouMean returns a suggestion for the host in a zone that was probably meant.
func didYouMean(host string, zones []string) string {
	label, above, _ := strings.Cut(host, ".")
	for _, domain := range []string{above, host} {
		if near := words.Nearest(domain, zones); near != "" {
			if domain == above {
				near = label + "." + near
			}
			return "; did you mean " + near + "?"
		}
	}
	return ""
}

// checkOriginNames reports origin servers that edges can't resolve, because the zone that their
// name is in does not have it.
func (f *Fleet) checkOriginNames(s *geodns.Server, zones []string) {
	for i := range f.Sites {
		for at, o := range f.Sites[i].AllOrigins() {
			for j, server := range o.Servers {
				host := LowerHosts([]string{o.S3Server(server).Hostname()})[0]
				if InZone(zones, host) && !s.Leads(host) {
					f.warnf(fmt.Sprintf("sites[%d].%s.servers[%d]", i, at, j),
						"the zone has no name %s, so that edges don't find the server: put its address into the zone file",
						host)
				}
			}
		}
	}
}

// answers reports whether a site serves an edge name. For a wildcard, any name below it is enough.
func (f *Fleet) answers(name string) bool {
	above, wild := strings.CutPrefix(name, "*.")
	if !wild {
		return f.siteOf(name) != nil
	}
	return slices.ContainsFunc(f.Sites, func(s Site) bool {
		return slices.ContainsFunc(LowerHosts(s.Hosts), func(h string) bool { return strings.HasSuffix(h, "."+above) })
	})
}
