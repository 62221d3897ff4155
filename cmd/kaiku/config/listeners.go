package config

import (
	"cmp"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/kaiku-cdn/kaiku/edge/admin"
)

// Listener is an address that a node listens on.
type Listener struct {
	What     string // the service, such as http
	path     string // the path of the address in the fleet file, or the node's if it is a default
	Key      string // the key of the address in the fleet file, even if it is a default
	Addr     string
	TCP, UDP bool
	edge     bool // a listener of the edge: for clients, other edges or the operator
}

// Listeners returns all addresses that a node listens on.
func (f *Fleet) Listeners(n *Node) []Listener {
	var out []Listener
	at := "nodes." + n.Name
	add := func(l Listener, own, common string) {
		if own != "" {
			l.path = at + "." + l.path
		}
		l.Key = l.path
		if own == "" && common == "" {
			l.path = at
		}
		out = append(out, l)
	}
	e := f.EdgeOf(n)
	if n.Has(RoleEdge) {
		add(Listener{What: "http", path: "edge.http", Addr: e.HTTP, TCP: true, edge: true}, n.Edge.HTTP, f.Edge.HTTP)
		if e.HTTPS != "" {
			add(Listener{What: "https", path: "edge.https", Addr: e.HTTPS, TCP: true, UDP: true, edge: true},
				n.Edge.HTTPS, f.Edge.HTTPS)
		}
		add(Listener{What: "admin", path: "edge.admin", Addr: e.Admin, TCP: true, edge: true}, n.Edge.Admin,
			f.Edge.Admin)
		if f.HasPeers(n) && f.Secrets.FleetKey != "" {
			add(Listener{What: "peer", path: "edge.peer", Addr: e.Peer, TCP: true, edge: true}, n.Edge.Peer,
				f.Edge.Peer)
		}
	} else if n.Admin != "" {
		add(Listener{What: "admin", path: "admin", Addr: n.Admin, TCP: true}, n.Admin, "")
	}
	if n.Has(RoleGeoDNS) {
		given := strings.Join(f.GeoDNS.Listen, ", ")
		for _, addr := range f.DNSListen() {
			add(Listener{What: "geodns", path: "geodns.listen", Addr: addr, TCP: true, UDP: true}, "", given)
		}
	}
	if n.Has(RoleControl) {
		c := f.ControlOf(n)
		add(Listener{What: "control", path: "control.listen", Addr: c.Listen, TCP: true}, n.Control.Listen,
			f.Control.Listen)
		if clients, _ := f.ControlAddresses(); len(clients) > 1 {
			add(Listener{What: "control cluster", path: "control.cluster", Addr: c.Cluster, TCP: true},
				n.Control.Cluster, f.Control.Cluster)
		}
	}
	return out
}

// hostPort splits an address to listen on. The host is invalid if it means all addresses of
// the machine.
func hostPort(addr string) (host netip.Addr, port int) {
	name, service, err := net.SplitHostPort(addr)
	if err != nil {
		return netip.Addr{}, 0 // check refuses it
	}
	port, _ = net.LookupPort("tcp", service)
	if name == "localhost" {
		name = "127.0.0.1"
	}
	if host, _ = netip.ParseAddr(name); host.IsUnspecified() {
		host = netip.Addr{}
	}
	return host.Unmap(), port
}

// checkListeners reports listeners of one node that conflict with each other, and admin listeners
// that other machines can use without a token.
func (f *Fleet) checkListeners() {
	told := map[string]bool{} // a default that applies to many nodes is reported once
	for i := range f.Nodes {
		n := &f.Nodes[i]
		all := f.Listeners(n)
		for j, l := range all {
			if l.What == "admin" && !admin.IsLoopback(l.Addr) && f.Secrets.AdminToken == "" &&
				len(f.Secrets.Tokens) == 0 && !told[l.path] {
				told[l.path] = true
				f.errorf(l.path, "other machines reach %s, and there is no token: name a file in secrets.admin_token, or listen on 127.0.0.1", l.Addr)
			}
			host, port := hostPort(l.Addr)
			for _, o := range all[:j] {
				otherHost, otherPort := hostPort(o.Addr)
				same := port == otherPort && port != 0 && (!host.IsValid() || !otherHost.IsValid() || host == otherHost)
				late, early := l, o
				if late.path == "nodes."+n.Name { // blame the address that is given, not the default
					late, early = o, l
				}
				if !same || !(l.TCP && o.TCP || l.UDP && o.UDP) || told[late.path+early.What] {
					continue
				}
				told[late.path+early.What] = true
				f.errorf(late.path, "node %s listens on %s for %s already: %s needs a port of its own", n.Name,
					early.Addr, early.What, late.What)
			}
		}
	}
}

// checkLoop reports an origin server that is an edge of the fleet.
func (f *Fleet) checkLoop(at string, s *Site, u *url.URL) {
	host := strings.ToLower(strings.TrimSuffix(u.Hostname(), "."))
	port, _ := strconv.Atoi(cmp.Or(u.Port(), map[string]string{"http": "80", "https": "443"}[u.Scheme]))
	if host == "localhost" {
		host = "127.0.0.1"
	}
	ip, err := netip.ParseAddr(host)
	if err == nil {
		f.checkLoopAddr(at, ip.Unmap(), port)
		return
	}
	site, named := f.siteOf(host), f.isEdgeName(host)
	if site == nil && !named {
		return
	}
	open := slices.ContainsFunc(f.Nodes, func(n Node) bool {
		return slices.ContainsFunc(f.Listeners(&n), func(l Listener) bool {
			_, p := hostPort(l.Addr)
			return p == port && (l.What == "http" || l.What == "https")
		})
	})
	const mend = "give the origin a name or an address of its own"
	switch {
	case named && open:
		f.errorf(at, "the name servers answer %s with the edges, so a miss would come back to one: %s", host, mend)
	case site == s && open:
		f.errorf(at, "%s is a host of this site, so a miss would come back to an edge: %s", host, mend)
	case named:
		f.warnf(at, "the name servers answer %s with the edges, so each asks an edge on port %d: %s unless one is there", host, port, mend)
	case open:
		f.warnf(at, "%s is a host of site %s: where its name leads to the edges, a miss goes to an edge again", host,
			site.Name)
	}
}

// checkLoopAddr is checkLoop for a server that is given by its address.
func (f *Fleet) checkLoopAddr(at string, ip netip.Addr, port int) {
	for i := range f.Nodes {
		n := &f.Nodes[i]
		if !ip.IsLoopback() && !slices.Contains(n.Addresses, ip) {
			continue
		}
		for _, l := range f.Listeners(n) {
			if host, p := hostPort(l.Addr); l.edge && p == port && (!host.IsValid() || host == ip) {
				f.errorf(at, "this is the %s listener of edge %s, so a miss would come back to it: give the origin's own address and port", l.What, n.Name)
				return
			}
		}
	}
	if f.onEachEdge(ip) {
		f.warnf(at, "%s means the edge's own machine: does this server run on every edge?", ip)
	}
}

// siteOf returns the site that serves a host, or nil. A site with the host itself comes before one
// with a wildcard for the name above.
func (f *Fleet) siteOf(host string) *Site {
	_, above, _ := strings.Cut(host, ".")
	for _, want := range []string{host, "*." + above} {
		for i := range f.Sites {
			if slices.Contains(LowerHosts(f.Sites[i].Hosts), want) {
				return &f.Sites[i]
			}
		}
	}
	return nil
}

// isEdgeName reports whether a name is an edge name of the fleet's name servers.
func (f *Fleet) isEdgeName(name string) bool {
	return slices.ContainsFunc(f.GeoDNS.Zones, func(z Zone) bool {
		return slices.ContainsFunc(z.Edges, func(e EdgeName) bool { return e.FQDN(&z) == name })
	})
}

// FQDN returns the fully qualified name in lower case, without the final dot.
func (e *EdgeName) FQDN(z *Zone) string {
	zone := strings.ToLower(strings.TrimSuffix(z.Name, "."))
	if e.Name == "@" {
		return zone
	}
	return strings.ToLower(e.Name) + "." + zone
}
