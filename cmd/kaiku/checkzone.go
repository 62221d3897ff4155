package main

import (
	"net/netip"
	"slices"

	"github.com/kaiku-cdn/kaiku/geodns"
)

// checkZone compares a zone with the fleet: names that both the zone and the edges would answer, and
// name servers that nobody finds.
func (f *Fleet) checkZone(z *Zone, zone *geodns.Zone, text *zoneFiles) {
	for i := range z.Edges {
		name := z.Edges[i].fqdn(z)
		if rrtype, line := zone.Address(name); line > 0 {
			f.file.errs = append(f.file.errs, text.note(line, "%s is an edge name of the fleet file, and has %s here: remove this line, as the edges answer for the name", name, rrtype))
		}
	}
	var served []netip.Addr // by nodes
	known := true           // all addresses of name servers are
	for _, n := range f.Nodes {
		if n.has(roleGeoDNS) {
			served = append(served, n.Addresses...)
			known = known && len(n.Addresses) > 0
		}
	}
	for _, ns := range zone.NameServers() {
		if !ns.Inside || f.isEdgeName(ns.Name) {
			continue
		}
		if len(ns.Addrs) == 0 {
			f.file.warns = append(f.file.warns, text.note(ns.Line, "the zone has no address of the name server %s, so that nobody finds it: add its A or AAAA record", ns.Name))
		}
		for i, a := range ns.Addrs {
			if known && len(served) > 0 && !slices.Contains(served, a) {
				f.file.warns = append(f.file.warns, text.note(ns.AddrLines[i], "%s of the name server %s is no node with the role geodns: does a server outside of the fleet answer there?", a, ns.Name))
			}
		}
	}
}
