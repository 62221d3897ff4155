package config

import (
	"fmt"
	"math"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/words"
	"github.com/kaiku-cdn/kaiku/deploy"
	"github.com/kaiku-cdn/kaiku/geodns"
)

// checkRoles checks the roles of all nodes. It runs before all checks that depend on roles. A
// misspelt role counts as the one that was probably meant.
func (f *Fleet) checkRoles() {
	controls, allKnown := 0, true
	for i := range f.Nodes {
		n := &f.Nodes[i]
		if len(n.Roles) == 0 {
			f.errorf("nodes."+n.Name+".roles", "node %s has no roles", n.Name)
		}
		for i, r := range n.Roles {
			at := fmt.Sprintf("nodes.%s.roles[%d]", n.Name, i)
			if known := []string{RoleEdge, RoleGeoDNS, RoleControl}; !slices.Contains(known, r) {
				f.errorf(at, "role %q is unknown: %s", r, words.Suggest(r, known))
				n.Roles[i] = words.Nearest(r, known)
				allKnown = allKnown && n.Roles[i] != ""
			} else if slices.Contains(n.Roles[:i], r) {
				f.errorf(at, "node %s has the role %s twice", n.Name, r)
			}
		}
		if n.Has(RoleControl) {
			controls++
		}
	}
	if allKnown && (controls == 2 || controls > 5) {
		f.errorf("nodes", "%d nodes have the role control: want 1, or 3 or 5 of which a majority has to be up",
			controls)
	}
}

func (f *Fleet) checkNodes() {
	addresses, control := map[netip.Addr]string{}, "" // the last control node
	defer func() {
		if control != "" && f.Secrets.FleetKey == "" {
			f.errorf("nodes."+control+".roles",
				"the role control needs secrets.fleet_key: a file with the output of `openssl rand -base64 32`, the same on all nodes")
		}
	}()
	for _, n := range f.Nodes {
		at := "nodes." + n.Name
		if !labelRE.MatchString(n.Name) {
			f.errorf(at, "%q is not a node name: want letters a-z, digits and -", n.Name)
		}
		if n.Has(RoleEdge) {
			if n.Location == nil {
				f.errorf(at+".location", "edge %s has no location: want [latitude, longitude]", n.Name)
			}
			if len(n.Addresses) == 0 {
				f.errorf(at+".addresses", "edge %s has no addresses", n.Name)
			}
		}
		for i, name := range n.Sites {
			f.checkSiteName(fmt.Sprintf("%s.sites[%d]", at, i), name)
		}
		if n.Weight != nil && *n.Weight < 0 {
			f.errorf(at+".weight", "a weight is 1 or more, or 0 to take the node out, not %d", *n.Weight)
		}
		if n.Location != nil && f.checkLocation(at+".location", *n.Location) {
			f.checkPlace(at+".location", &n)
		}
		for i, a := range n.Addresses {
			p := fmt.Sprintf("%s.addresses[%d]", at, i)
			if other := addresses[a]; other != "" {
				f.errorf(p, "%s already belongs to node %s", a, other)
			}
			addresses[a] = n.Name
		}
		if n.SSH != "" {
			if err := deploy.CheckSSH(n.SSH); err != nil {
				f.errorf(at+".ssh", "%v", err)
			}
		}
		if n.Has(RoleEdge) && f.HasPeers(&n) && f.Secrets.FleetKey == "" {
			f.warnf("secrets.fleet_key", "edge %s would ask others, by its region or a shield, but does not without a fleet key: name its file", n.Name)
		}
		f.checkEdge(at+".edge", n.Edge)
		f.checkAddr(at+".admin", n.Admin)
		if n.Admin != "" && n.Has(RoleEdge) {
			f.errorf(at+".admin", "this is for nodes that are no edges: give an edge nodes.%s.edge.admin", n.Name)
		}
		f.checkAddr(at+".control.listen", n.Control.Listen)
		f.checkAddr(at+".control.cluster", n.Control.Cluster)
		if n.Has(RoleControl) {
			control = n.Name
			if len(n.Addresses) == 0 {
				f.errorf(at+".addresses", "control node %s has no addresses", n.Name)
			}
		}
	}
}

// checkFamilies warns if only some of the edges have an IPv6 address, and if an edge has no
// IPv4 address.
func (f *Fleet) checkFamilies() {
	edges, without := 0, map[bool][]string{} // by whether the family is IPv6
	for _, n := range f.Nodes {
		if !n.Has(RoleEdge) || n.out() {
			continue
		}
		edges++
		for _, six := range []bool{false, true} {
			if !slices.ContainsFunc(n.Addresses, func(a netip.Addr) bool { return a.Unmap().Is6() == six }) {
				without[six] = append(without[six], n.Name)
			}
		}
	}
	if no := without[true]; len(no) > 0 && len(no) < edges {
		f.warnf("nodes."+no[0]+".addresses",
			"%s of %s without an IPv6 address: %s; clients near them get no AAAA record where the others are much farther, and use IPv4",
			words.Count(len(no), "edge"), strconv.Itoa(edges), strings.Join(no, ", "))
	}
	if no := without[false]; len(no) > 0 {
		f.warnf("nodes."+no[0]+".addresses",
			"%s of %s without an IPv4 address: %s; clients that have IPv4 alone don't reach them",
			words.Count(len(no), "edge"), strconv.Itoa(edges), strings.Join(no, ", "))
	}
}

// checkLocation reports whether a location has a valid latitude and longitude. NaN is not valid.
func (f *Fleet) checkLocation(at string, l Location) bool {
	lat, lon := l[0] >= -90 && l[0] <= 90, l[1] >= -180 && l[1] <= 180
	if !lat {
		f.errorf(at, "latitude %v is not between -90 and 90", l[0])
	}
	if !lon {
		f.errorf(at, "longitude %v is not between -180 and 180", l[1])
	}
	return lat && lon
}

// Distances in km between a node and the centre of population of the country that its address
// is in.
const (
	// farFromCountry is farther than any inhabited place is from its own country's centre:
	// Vladivostok is 6,500 km away, Honolulu 6,900 km.
	farFromCountry = 7500
	// maybeWrong is the distance from which checkPlace tries whether swapped coordinates, or
	// another sign, would fit better.
	maybeWrong = 2500
)

// checkPlace warns about a node whose location is far from the country of its address, according to
// the embedded table of countries.
func (f *Fleet) checkPlace(at string, n *Node) {
	here := geodns.Place{Lat: n.Location[0], Lon: n.Location[1]}
	for _, addr := range n.Addresses {
		country, people, ok := geodns.Country(addr)
		if !ok {
			continue
		}
		away := here.Distance(people)
		if away < maybeWrong {
			return
		}
		const far = "%s is in %s, and %v, %v is %.0f km away from there"
		for _, p := range []geodns.Place{{Lat: here.Lon, Lon: here.Lat}, {Lat: here.Lat, Lon: -here.Lon},
			{Lat: -here.Lat, Lon: here.Lon}} {
			if math.Abs(p.Lat) <= 90 && p.Distance(people) < away/3 {
				f.warnf(at, far+"; did you mean [%v, %v]?", addr, country, here.Lat, here.Lon, away, p.Lat, p.Lon)
				return
			}
		}
		if away > farFromCountry {
			f.warnf(at, far, addr, country, here.Lat, here.Lon, away)
			return
		}
	}
}

func (f *Fleet) checkLog(at string, l *LogFile) {
	if l == nil {
		return
	}
	if l.File == "" {
		f.errorf(at+".file", "a log needs a file; - is standard output")
	}
	if !(l.Sample >= 0 && l.Sample <= 1) {
		f.errorf(at+".sample", "%v is not between 0 and 1", l.Sample)
	}
}

func (f *Fleet) checkEdge(at string, e Edge) {
	f.checkLog(at+".access_log", e.AccessLog)
	f.checkAddr(at+".http", e.HTTP)
	f.checkAddr(at+".https", e.HTTPS)
	f.checkAddr(at+".admin", e.Admin)
	f.checkAddr(at+".peer", e.Peer)
	for key, n := range map[string]int{"max_connections": e.MaxConnections,
		"max_connections_per_client": e.MaxPerClient} {
		if n < 0 {
			f.errorf(at+"."+key, "want 1 or more, not %d", n)
		}
	}
	if e.HTTP2 != "" && e.HTTP2 != "go" && e.HTTP2 != "own" {
		f.errorf(at+".http2", "want own or go, not %q", e.HTTP2)
	}
	if e.Disk != 0 && e.Disk < MinDisk {
		f.errorf(at+".disk", "%s is less than the %s that a store needs", e.Disk, Size(MinDisk))
	}
	for i, network := range e.PurgeFrom {
		p := fmt.Sprintf("%s.purge_from[%d]", at, i)
		if f.checkNetwork(p, network); network.Bits() == 0 {
			f.errorf(p, "%s would let everybody purge", network)
		}
	}
}

// MinDisk is the smallest disk budget of a store in bytes. Segments take a few MiB each.
const MinDisk = 64 << 20

func (f *Fleet) checkAddr(at, addr string) {
	if err := CheckListen(addr); err != nil {
		f.errorf(at, "%v", err)
	}
}

// CheckListen returns what is wrong with an address to listen on. "" stands for the default and
// is valid.
func CheckListen(addr string) error {
	if addr == "" {
		return nil
	}
	host, port, err := net.SplitHostPort(addr)
	if err == nil {
		_, err = net.LookupPort("tcp", port)
	}
	if err == nil && host != "" && host != "localhost" {
		_, err = netip.ParseAddr(host)
	}
	if err != nil {
		return fmt.Errorf("%q is not an address to listen on: want :port or ip:port", addr)
	}
	return nil
}
