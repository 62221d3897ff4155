package config

import (
	"fmt"
	"net/netip"
	"slices"
)

// addrScope is the part of the internet from which an address can be reached.
type addrScope int

const (
	fromItself  addrScope = iota // the machine itself
	fromNetwork                  // its private network
	fromAll                      // the internet
)

// sharedNetwork is the shared address space of carrier-grade NAT (RFC 6598).
var sharedNetwork = netip.MustParsePrefix("100.64.0.0/10")

func scopeOf(a netip.Addr) addrScope {
	switch a = a.Unmap(); {
	case a.IsLoopback():
		return fromItself
	case a.IsPrivate(), a.IsLinkLocalUnicast(), sharedNetwork.Contains(a):
		return fromNetwork
	}
	return fromAll
}

// checkAddresses warns about nodes that clients or other nodes can't reach. There is no warning if
// all nodes are on one machine, or all in private networks: such a fleet is a lab.
func (f *Fleet) checkAddresses() {
	most := fromItself
	for _, n := range f.Nodes {
		for _, a := range n.Addresses {
			most = max(most, scopeOf(a))
		}
	}
	for _, n := range f.Nodes {
		for i, a := range n.Addresses {
			switch at := fmt.Sprintf("nodes.%s.addresses[%d]", n.Name, i); {
			case scopeOf(a) >= most:
			case scopeOf(a) == fromItself:
				f.warnf(at, "%s is each machine itself, so nobody else reaches node %s there: give the address that others reach it at", a, n.Name)
			case n.Has(RoleEdge) || n.Has(RoleGeoDNS): // control nodes may be in a private network
				f.warnf(at, "%s is in a private network, so clients don't reach node %s there: give its public address", a, n.Name)
			}
		}
	}
}

// onEachEdge reports whether an address means another machine on each edge. That is so for a
// loopback address, if there are several edges and they are not all on one machine.
func (f *Fleet) onEachEdge(a netip.Addr) bool {
	edges, apart := 0, false
	for _, n := range f.Nodes {
		if n.Has(RoleEdge) {
			edges++
			apart = apart || slices.ContainsFunc(n.Addresses,
				func(a netip.Addr) bool { return scopeOf(a) != fromItself })
		}
	}
	return scopeOf(a) == fromItself && edges > 1 && apart
}
