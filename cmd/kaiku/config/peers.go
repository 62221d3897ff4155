package config

import (
	"net"
	"net/netip"
	"slices"
)

// ControlAddresses are the addresses of the control nodes: those for everybody, and those for each
// other.
func (f *Fleet) ControlAddresses() (clients, cluster map[string]string) {
	clients, cluster = map[string]string{}, map[string]string{}
	for i := range f.Nodes {
		n := &f.Nodes[i]
		if n.Has(RoleControl) {
			c := f.ControlOf(n)
			clients[n.Name], cluster[n.Name] = Reachable(c.Listen, n), Reachable(c.Cluster, n)
		}
	}
	return clients, cluster
}

// Reachable is where a listener of a node is reached: on the address that it has, or else the
// node's first.
func Reachable(listen string, n *Node) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil || len(n.Addresses) == 0 {
		return "" // refused by check
	}
	if ip, err := netip.ParseAddr(host); err != nil || ip.IsUnspecified() {
		host = n.Addresses[0].String()
	}
	return net.JoinHostPort(host, port)
}

// HasPeers reports whether a node's edge asks others, or is asked by them.
func (f *Fleet) HasPeers(n *Node) bool {
	if slices.ContainsFunc(f.Sites, func(s Site) bool { return s.Origin.Shield != "" }) {
		return true
	}
	return slices.ContainsFunc(f.Nodes, func(o Node) bool {
		return o.Has(RoleEdge) && o.Name != n.Name && n.Region != "" && o.Region == n.Region
	})
}

// UsesKey reports whether a node has a use for the fleet key: for the control plane, other edges,
// cookies of its name server, or session tickets.
func (f *Fleet) UsesKey(n *Node) bool {
	clients, _ := f.ControlAddresses()
	return len(clients) > 0 || n.Has(RoleGeoDNS) || n.Has(RoleEdge) && (f.HasPeers(n) || f.Secures())
}
