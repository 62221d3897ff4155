package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/kaiku-cdn/kaiku/geodns"
)

// loadFleet reads and checks fleet.yaml and the zone files that it names. All errors are returned at once, each with its place.
func loadFleet(file string) (*Fleet, []*geodns.Zone, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, nil, fmt.Errorf("read the fleet: %w", err)
	}
	f := &Fleet{dir: filepath.Dir(file)}
	f.file = decodeYAML(file, text, f)
	zones := f.check()
	slices.SortStableFunc(f.file.warns, func(a, b *fileError) int { return a.line - b.line })
	if len(f.file.errs) > 0 {
		slices.SortStableFunc(f.file.errs, byPlace)
		return nil, nil, errors.Join(f.file.errs...)
	}
	return f, zones, nil
}

// byPlace orders errors of one file by line; errors of other files come after.
func byPlace(a, b error) int {
	var x, y *fileError
	if !errors.As(a, &x) || !errors.As(b, &y) {
		return 0
	}
	if c := strings.Compare(x.file, y.file); c != 0 {
		return 0
	}
	return x.line - y.line
}

var headerRE = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$") // RFC 9110, 5.6.2

var labelRE = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// check finds what is wrong beyond the form of single values, and reads the zone files.
func (f *Fleet) check() []*geodns.Zone {
	f.checkSites()
	f.checkNodes()
	f.checkEdge("edge", f.Edge)
	f.checkTLS()
	f.checkTokens()
	for _, l := range []struct{ path, addr string }{
		{"geodns.listen", f.GeoDNS.Listen}, {"control.listen", f.Control.Listen}, {"control.cluster", f.Control.Cluster}} {
		f.checkAddr(l.path, l.addr)
	}
	return f.checkGeoDNS()
}

func (f *Fleet) errorf(path, format string, a ...any) { f.file.errorf(path, format, a...) }

func (f *Fleet) checkSites() {
	names, hosts := map[string]bool{}, map[string]string{}
	for i, s := range f.Sites {
		at := fmt.Sprintf("sites[%d]", i)
		switch {
		case s.Name == "":
			f.errorf(at+".name", "a site needs a name")
		case names[s.Name]:
			f.errorf(at+".name", "two sites are called %s", s.Name)
		}
		names[s.Name] = true
		if len(s.Hosts) == 0 {
			f.errorf(at+".hosts", "site %s has no hosts", first(s.Name, at))
		}
		for j, h := range s.Hosts {
			p := fmt.Sprintf("%s.hosts[%d]", at, j)
			key := strings.ToLower(h)
			switch {
			case !isHost(strings.TrimPrefix(h, "*.")):
				f.errorf(p, "%q is not a host name: want it without scheme, port and path; *.NAME is all names one label below NAME", h)
			case hosts[key] != "":
				f.errorf(p, "host %s belongs to site %s already", h, hosts[key])
			default:
				hosts[key] = first(s.Name, at)
			}
		}
		f.checkOrigin(at, &s)
		f.checkCache(at+".cache", s.Cache)
	}
}

func isHost(h string) bool {
	if _, err := netip.ParseAddr(strings.Trim(h, "[]")); err == nil {
		return true
	}
	last := ""
	for label := range strings.SplitSeq(strings.ToLower(strings.TrimSuffix(h, ".")), ".") {
		if last = label; !labelRE.MatchString(strings.ReplaceAll(label, "_", "a")) {
			return false
		}
	}
	return len(h) <= 253 && strings.Trim(last, "0123456789") != "" // such as 192.0.2.400
}

func (f *Fleet) checkOrigin(site string, s *Site) {
	at := site + ".origin"
	o := &s.Origin
	if len(o.Servers) == 0 {
		f.errorf(at+".servers", "site %s has no origin: give it servers", first(s.Name, site))
	}
	primaries, seen := 0, map[string]bool{}
	for i, srv := range o.Servers {
		p := fmt.Sprintf("%s.servers[%d]", at, i)
		if srv.URL.URL == nil {
			f.errorf(p+".url", "an origin server needs a url")
		} else if u := srv.URL.Scheme + "://" + srv.URL.Host; seen[u] {
			f.errorf(p, "%s is there twice: give it a weight instead", u)
		} else {
			seen[u] = true
		}
		if srv.Weight < 0 {
			f.errorf(p+".weight", "a weight is 1 or more, not %d", srv.Weight)
		}
		if !srv.Backup {
			primaries++
		}
	}
	if primaries == 0 && len(o.Servers) > 0 {
		f.errorf(at+".servers", "all servers are backups: at least one must not be")
	}
	if known := []string{"round-robin", "least-requests", "random", "hash"}; o.Balance != "" && !slices.Contains(known, o.Balance) {
		f.errorf(at+".balance", "%q is unknown: %s", o.Balance, suggest(o.Balance, known))
	}
	if o.Host != "" && !isHost(o.Host) {
		f.errorf(at+".host", "%q is not a host name: want a name, or client for the Host that the client asked for", o.Host)
	}
	if o.SNI != "" {
		switch {
		case !isHost(o.SNI):
			f.errorf(at+".sni", "%q is not a host name", o.SNI)
		case !slices.ContainsFunc(o.Servers, func(s OriginServer) bool { return s.URL.URL != nil && s.URL.Scheme == "https" }):
			f.errorf(at+".sni", "this is a name for TLS, and no server of site %s is an https one", s.Name)
		}
	}
	if o.Retries != nil && *o.Retries < 0 {
		f.errorf(at+".retries", "want 0 or more, not %d", *o.Retries)
	}
	for _, n := range []struct {
		key string
		v   int
	}{{"max_connections", o.MaxConnections}, {"max_requests", o.MaxRequests}, {"queue", o.Queue}} {
		if n.v < 0 {
			f.errorf(at+"."+n.key, "want 1 or more, not %d", n.v)
		}
	}
	if h := o.Health; h != nil {
		f.checkProbe(at+".health", h.Probe)
		if h.Status != 0 && (h.Status < 200 || h.Status > 599) {
			f.errorf(at+".health.status", "%d is no status of a response: want 200 to 599", h.Status)
		}
	}
	if c := o.ClientCertificate; c != nil && (c.Cert == "" || c.Key == "") {
		f.errorf(at+".client_certificate", "a certificate needs cert and key")
	}
	if a := o.Auth; a != nil {
		switch {
		case a.Header == "" || a.Secret == "":
			f.errorf(at+".auth", "the secret for an origin needs header and secret, a file")
		case !headerRE.MatchString(a.Header):
			f.errorf(at+".auth.header", "%q is not the name of a header field", a.Header)
		}
	}
	if o.Shield != "" {
		f.checkEdgeNode(at+".shield", o.Shield)
	}
}

// checkEdgeNode refuses a name that no edge has.
func (f *Fleet) checkEdgeNode(at, name string) {
	var edges []string
	for _, n := range f.Nodes {
		if n.has(roleEdge) {
			edges = append(edges, n.Name)
		}
	}
	switch {
	case slices.Contains(edges, name):
	case f.node(name) != nil:
		f.errorf(at, "node %s is no edge: %s", name, suggest("", edges))
	default:
		f.errorf(at, "there is no node %s: %s", name, suggest(name, edges))
	}
}

// checkSiteName refuses a name that no site has.
func (f *Fleet) checkSiteName(at, name string) {
	var sites []string
	for _, s := range f.Sites {
		sites = append(sites, s.Name)
	}
	if !slices.Contains(sites, name) {
		f.errorf(at, "there is no site %s: %s", name, suggest(name, sites))
	}
}

func (f *Fleet) checkProbe(at string, p Probe) {
	if p.Path != "" && !strings.HasPrefix(p.Path, "/") {
		f.errorf(at+".path", "%q: a path begins with /", p.Path)
	}
	if p.Interval != 0 && p.Timeout > p.Interval {
		f.errorf(at+".timeout", "the timeout is longer than the interval")
	}
	for _, n := range []struct {
		key string
		v   int
	}{{"unhealthy_after", p.UnhealthyAfter}, {"healthy_after", p.HealthyAfter}} {
		if n.v < 0 {
			f.errorf(at+"."+n.key, "want 1 or more, not %d", n.v)
		}
	}
}

func (f *Fleet) checkCache(at string, c Cache) {
	for i, glob := range c.IgnoreQuery {
		if _, err := path.Match(glob, ""); err != nil || glob == "" {
			f.errorf(fmt.Sprintf("%s.ignore_query[%d]", at, i), "%q is not a pattern: want a name, with * for any letters", glob)
		}
	}
	if c.Slice != 0 && c.Slice < 64<<10 {
		f.errorf(at+".slice", "%s is less than 64KiB", c.Slice)
	}
}

func (f *Fleet) checkNodes() {
	addresses, controls := map[netip.Addr]string{}, 0
	defer func() {
		if controls == 2 || controls > 5 {
			f.errorf("nodes", "%d nodes have the role control: want 1, or 3 or 5 of which a majority has to be up", controls)
		}
	}()
	for _, n := range f.Nodes {
		at := "nodes." + n.Name
		if !labelRE.MatchString(n.Name) {
			f.errorf(at, "%q is not a node name: want letters a-z, digits and -", n.Name)
		}
		if len(n.Roles) == 0 {
			f.errorf(at+".roles", "node %s has no roles", n.Name)
		}
		for i, r := range n.Roles {
			if known := []string{roleEdge, roleGeoDNS, roleControl}; !slices.Contains(known, r) {
				f.errorf(fmt.Sprintf("%s.roles[%d]", at, i), "role %q is unknown: %s", r, suggest(r, known))
			}
		}
		if n.has(roleEdge) {
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
		if n.Weight < 0 {
			f.errorf(at+".weight", "a weight is 1 or more, not %d", n.Weight)
		}
		if n.Location != nil {
			f.checkLocation(at+".location", *n.Location)
		}
		for i, a := range n.Addresses {
			p := fmt.Sprintf("%s.addresses[%d]", at, i)
			if other := addresses[a]; other != "" {
				f.errorf(p, "%s belongs to node %s already", a, other)
			}
			addresses[a] = n.Name
		}
		f.checkEdge(at+".edge", n.Edge)
		f.checkAddr(at+".admin", n.Admin)
		if n.Admin != "" && n.has(roleEdge) {
			f.errorf(at+".admin", "this is for nodes that are no edges: give an edge nodes.%s.edge.admin", n.Name)
		}
		f.checkAddr(at+".control.listen", n.Control.Listen)
		f.checkAddr(at+".control.cluster", n.Control.Cluster)
		if n.has(roleControl) {
			controls++
			if len(n.Addresses) == 0 {
				f.errorf(at+".addresses", "control node %s has no addresses", n.Name)
			}
		}
	}
}

func (f *Fleet) checkLocation(at string, l Location) {
	if !(l[0] >= -90 && l[0] <= 90) {
		f.errorf(at, "latitude %v is not between -90 and 90", l[0])
	}
	if !(l[1] >= -180 && l[1] <= 180) {
		f.errorf(at, "longitude %v is not between -180 and 180", l[1])
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
	for key, n := range map[string]int{"max_connections": e.MaxConnections, "max_connections_per_client": e.MaxPerClient} {
		if n < 0 {
			f.errorf(at+"."+key, "want 1 or more, not %d", n)
		}
	}
	if e.Disk != 0 && e.Disk < minDisk {
		f.errorf(at+".disk", "%s is less than the %s that a store needs", e.Disk, Size(minDisk))
	}
	for i, network := range e.PurgeFrom {
		p := fmt.Sprintf("%s.purge_from[%d]", at, i)
		switch {
		case network.Addr().Is4In6():
			f.errorf(p, "%s: write a network of IPv4 addresses as one", network)
		case network.Bits() == 0:
			f.errorf(p, "%s would let everybody purge", network)
		case network != network.Masked():
			f.errorf(p, "%s has bits of a host: want %s", network, network.Masked())
		}
	}
}

// minDisk is the smallest budget of a store: segments of a few MiB.
const minDisk = 64 << 20

func (f *Fleet) checkAddr(at, addr string) {
	if addr == "" {
		return
	}
	host, port, err := net.SplitHostPort(addr)
	if err == nil {
		_, err = net.LookupPort("tcp", port)
	}
	if err == nil && host != "" && host != "localhost" {
		_, err = netip.ParseAddr(host)
	}
	if err != nil {
		f.errorf(at, "%q is not an address to listen on: want :port or ip:port", addr)
	}
}

// checkGeoDNS also reads the zones.
func (f *Fleet) checkGeoDNS() []*geodns.Zone {
	g := &f.GeoDNS
	f.checkProbe("geodns.health", g.Health)
	for prefix, l := range g.Locate {
		f.checkLocation("geodns.locate."+prefix.String(), l)
	}
	f.checkLog("geodns.query_log", g.QueryLog)
	if g.GeoIP != "" {
		if _, err := os.Stat(f.path(g.GeoIP)); err != nil {
			f.errorf("geodns.geoip", "%v", err)
		}
	}
	var zones []*geodns.Zone
	names := map[string]bool{}
	for i := range g.Zones {
		z := &g.Zones[i]
		at := fmt.Sprintf("geodns.zones[%d]", i)
		f.checkEdgeNames(at, z)
		if !isHost(z.Name) || z.Name == "" {
			f.errorf(at, "zone %q is not a domain name", z.Name)
			continue
		}
		if names[z.Name] {
			f.errorf(at+".name", "zone %s is there twice", z.Name)
		}
		names[z.Name] = true
		if z.File == "" {
			f.errorf(at+".file", "zone %s has no file: its SOA and NS come from there", z.Name)
			continue
		}
		r, err := os.Open(f.path(z.File))
		if err != nil {
			f.errorf(at+".file", "%v", err)
			continue
		}
		zone, errs := geodns.ParseZone(r, z.Name, f.path(z.File))
		r.Close()
		for _, e := range errs {
			f.file.errs = append(f.file.errs, &fileError{e.File, e.Line, e.Col, e.Msg, e.Text})
		}
		if len(errs) == 0 {
			zones = append(zones, zone)
		}
	}
	if len(f.file.errs) == 0 && len(zones) > 0 {
		// What the name server itself refuses, as an edge name with an address in the zone file.
		if err := new(geodns.Server).Reload(f.geodnsConfig(zones)); err != nil {
			f.errorf("geodns", "%v", err)
		}
	}
	return zones
}

func (f *Fleet) checkEdgeNames(at string, z *Zone) {
	for _, e := range z.Edges {
		p := at + ".edges." + e.Name
		if e.Name != "@" && e.Name != "*" && !isHost(strings.TrimPrefix(e.Name, "*.")) {
			f.errorf(p, "%q is not a name below the zone; @ is the zone itself, * every name that is not there", e.Name)
		}
		if e.Answers < 0 || e.Answers > 16 {
			f.errorf(p+".answers", "want 1 to 16, not %d", e.Answers)
		}
		for i, name := range e.Nodes {
			pn := fmt.Sprintf("%s.nodes[%d]", p, i)
			f.checkEdgeNode(pn, name)
		}
	}
	if len(z.Edges) > 0 && !slices.ContainsFunc(f.Nodes, func(n Node) bool { return n.has(roleEdge) }) {
		f.errorf(at+".edges", "there is no node with the role edge")
	}
}

// watched are the files that name servers answer from, and those of certificates and tokens.
func (f *Fleet) watched() []string {
	var files []string
	for _, z := range f.GeoDNS.Zones {
		files = append(files, f.path(z.File))
	}
	if f.GeoDNS.GeoIP != "" {
		files = append(files, f.path(f.GeoDNS.GeoIP))
	}
	for _, c := range f.TLS.Certificates {
		files = append(files, f.path(c.Cert), f.path(c.Key))
	}
	if f.Secrets.AdminToken != "" {
		files = append(files, f.path(f.Secrets.AdminToken))
	}
	for _, t := range f.Secrets.Tokens {
		files = append(files, f.path(t.File))
	}
	return files
}

// path is a path of the fleet file's as seen from here.
func (f *Fleet) path(p string) string {
	if filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(f.dir, p)
}
