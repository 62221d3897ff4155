package config

import (
	"net"
	"net/netip"
	"slices"
)

// ControlAddresses returns the addresses of the control nodes by node name: clients for connections
// from all nodes, cluster for connections between control nodes.
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

// Reachable returns the address under which other machines reach a listener of a node. Its host is
// that of the listener, or else the node's first address.
func Reachable(listen string, n *Node) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil || len(n.Addresses) == 0 {
		return "" // check refuses it
	}
	if ip, err := netip.ParseAddr(host); err != nil || ip.IsUnspecified() {
		host = n.Addresses[0].String()
	}
	return net.JoinHostPort(host, port)
}

// HasPeers reports whether a node's edge sends requests to other edges, or gets requests from them.
func (f *Fleet) HasPeers(n *Node) bool {
	if slices.ContainsFunc(f.Sites, func(s Site) bool { return s.HasShield() }) {
		return true
	}
	return slices.ContainsFunc(f.Nodes, func(o Node) bool {
		return o.Has(RoleEdge) && o.Name != n.Name && n.Region != "" && o.Region == n.Region
	})
}

// UsesKey reports whether a node needs the fleet key: for the control plane, other edges, DNS
// cookies (RFC 7873), or TLS session tickets.
func (f *Fleet) UsesKey(n *Node) bool {
	clients, _ := f.ControlAddresses()
	return len(clients) > 0 || n.Has(RoleGeoDNS) || n.Has(RoleEdge) && (f.HasPeers(n) || f.Secures())
}
