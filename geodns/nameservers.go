package geodns

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// NameServer is one that a zone names for itself.
type NameServer struct {
	Name string // without the dot at its end
	// Addrs are its addresses by the zone, which the zone above needs as glue; none if its name is in another zone.
	Addrs []netip.Addr
}

// NameServers are those of the zone's own NS records.
func (z *Zone) NameServers() []NameServer {
	set := z.apex.sets[dns.TypeNS]
	if set == nil {
		return nil
	}
	var out []NameServer
	for _, target := range set.targets {
		ns := NameServer{Name: strings.TrimSuffix(target.String(), ".")}
		if at := z.nodes[target]; at != nil {
			for _, rrtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
				if addrs := at.sets[rrtype]; addrs != nil {
					for _, data := range addrs.data {
						if a, ok := netip.AddrFromSlice([]byte(data[0].text)); ok {
							ns.Addrs = append(ns.Addrs, a)
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
