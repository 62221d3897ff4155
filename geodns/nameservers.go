package geodns

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// NameServer is a name server listed in a zone's own NS records.
type NameServer struct {
	Name string // without the final dot
	Line int    // line of the NS record, from 1, as in Zone.At
	// Inside means that the name is in the zone, which must have its addresses.
	Inside bool
	// Addrs are the name server's addresses in this zone. The parent zone needs them as glue. Addrs
	// is empty if the name is in another zone.
	Addrs []netip.Addr
	// AddrLines has a line for each address: that of the first record of its name and type.
	AddrLines []int
}

// NameServers returns the zone's name servers, sorted by name. An NS record that points to the root
// is left out.
func (z *Zone) NameServers() []NameServer {
	set := z.apex.set(dns.TypeNS)
	if set == nil {
		return nil
	}
	var out []NameServer
	for i := range set.data {
		target := set.target(i)
		if target.isRoot() {
			continue // the root is not a host
		}
		ns := NameServer{Name: strings.TrimSuffix(target.String(), "."), Line: int(z.nsLines[i]),
			Inside: target.within(z.origin)}
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
