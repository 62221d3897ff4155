package geodns

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// NameServer is one that a zone names for itself.
type NameServer struct {
	Name   string // without the dot at its end
	Line   int    // of the NS record, as Zone.At counts
	Inside bool   // the zone has the name, and is to have its addresses
	// Addrs are its addresses by the zone, which the zone above needs as glue; none if its name is
	// in another zone.
	Addrs     []netip.Addr
	AddrLines []int // of the records, for each address that of the first of its type
}

// NameServers are those of the zone's own NS records.
func (z *Zone) NameServers() []NameServer {
	set := z.apex.set(dns.TypeNS)
	if set == nil {
		return nil
	}
	var out []NameServer
	for i := range set.data {
		target := set.target(i)
		if target.isRoot() {
			continue // which is no target
		}
		ns := NameServer{Name: strings.TrimSuffix(target.String(), "."), Line: int(z.nsLines[i]), Inside: target.within(z.origin)}
		if at := z.nodes[target]; at != nil {
			for _, rrtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
				if addrs := at.set(rrtype); addrs != nil {
					for _, data := range addrs.data {
						if a, ok := netip.AddrFromSlice([]byte(data)); ok {
							ns.Addrs, ns.AddrLines = append(ns.Addrs, a), append(ns.AddrLines, int(addrs.line))
						}
					}
				}
			}
		}
		out = append(out, ns)
	}
	slices.SortFunc(out, func(a, b NameServer) int { return strings.Compare(a.Name, b.Name) })
	return out
}
