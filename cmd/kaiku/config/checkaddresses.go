package config

import (
	"fmt"
	"net/netip"
	"slices"
)

// addrScope is from where an address can be reached.
type addrScope int

const (
	fromItself  addrScope = iota // the machine itself
	fromNetwork                  // its network
	fromAll                      // the internet
)

// sharedNetwork has the addresses of networks behind a provider's NAT (RFC 6598).
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

// checkAddresses warns of nodes that clients, or other nodes, can't reach. A fleet whose nodes are
// all on one machine, or all in private networks, is a lab: nothing is told of it.
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
				f.warnf(at, "%s is each machine itself, so that nobody else reaches node %s there: give the address that others reach it at", a, n.Name)
			case n.Has(RoleEdge) || n.Has(RoleGeoDNS): // control nodes may well be in a private network
				f.warnf(at, "%s is in a private network, so that clients don't reach node %s there: give its public address", a, n.Name)
			}
		}
	}
}

// onEachEdge reports whether an address is another machine to each edge: it is the machine's own,
// and there are several.
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
