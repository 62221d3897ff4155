package config

import (
	"cmp"
	"fmt"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/words"
	"github.com/kaiku-cdn/kaiku/edge/cache"
	"github.com/kaiku-cdn/kaiku/edge/httpcache"
	"github.com/kaiku-cdn/kaiku/geodns"
)

var headerRE = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$") // RFC 9110, 5.6.2

// IsNodeName reports whether a text is a valid node name: a DNS label in lower case.
func IsNodeName(name string) bool { return labelRE.MatchString(name) }

var labelRE = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// check finds mistakes beyond the form of single values. It reads the zone files.
func (f *Fleet) check() []*geodns.Zone {
	if len(f.Nodes) == 0 {
		f.errorf("nodes", "there are no nodes: a fleet has one at least")
	}
	if len(f.Sites) == 0 && slices.ContainsFunc(f.Nodes, func(n Node) bool { return n.Has(RoleEdge) }) {
		f.warnf("sites", "there are no sites: edges answer 421 to everything")
	}
	f.checkRoles()
	f.checkSites()
	f.checkNodes()
	f.checkAddresses()
	f.checkFamilies()
	f.checkEdge("edge", f.Edge)
	f.checkTLS()
	f.checkTokens()
	f.checkWord("log.level", f.Log.Level, LogLevels())
	f.checkWord("log.format", f.Log.Format, logFormats())
	f.checkListeners()
	for _, l := range []struct{ path, addr string }{
		{"control.listen", f.Control.Listen}, {"control.cluster", f.Control.Cluster}} {
		f.checkAddr(l.path, l.addr)
	}
	for i, addr := range f.GeoDNS.Listen {
		at := "geodns.listen"
		if len(f.GeoDNS.Listen) > 1 {
			at = fmt.Sprintf("%s[%d]", at, i)
		}
		if f.checkAddr(at, addr); addr == "" {
			f.errorf(at, "want an address to listen on, such as :53 or 203.0.113.10:53")
		}
	}
	return f.checkGeoDNS()
}

func (f *Fleet) errorf(path, format string, a ...any) { f.file.errorf(path, format, a...) }

func (f *Fleet) warnf(path, format string, a ...any) { f.file.warnf(path, format, a...) }

// checkWord adds an error if a value is not one of the known words. An empty value means
// the default.
func (f *Fleet) checkWord(at, value string, known []string) {
	if value != "" && !slices.Contains(known, value) {
		f.errorf(at, "%q is unknown: %s", value, words.Suggest(value, known))
	}
}

func (f *Fleet) checkSites() {
	names, hosts := map[string]bool{}, map[string]string{}
	for i := range f.Sites {
		s, at := &f.Sites[i], fmt.Sprintf("sites[%d]", i)
		switch {
		case s.Name == "":
			f.errorf(at+".name", "a site needs a name")
		case names[s.Name]:
			f.errorf(at+".name", "two sites are called %s", s.Name)
		}
		names[s.Name] = true
		if len(s.Hosts) == 0 {
			f.errorf(at+".hosts", "site %s has no hosts", cmp.Or(s.Name, at))
		}
		for j, h := range s.Hosts {
			p := fmt.Sprintf("%s.hosts[%d]", at, j)
			key := LowerHosts([]string{h})[0]
			switch {
			case !IsHost(strings.TrimPrefix(h, "*.")):
				f.errorf(p, "%q is not a host name: want it without scheme, port and path; *.NAME is all names one label below NAME", h)
			case hosts[key] != "":
				f.errorf(p, "host %s already belongs to site %s", h, hosts[key])
			default:
				hosts[key] = cmp.Or(s.Name, at)
			}
		}
		f.checkOrigins(at, s)
		f.checkCache(at+".cache", s.Cache)
		f.checkRules(at+".rules", s.Rules)
		f.checkCompress(at+".compress", s.Compress)
		f.checkCountries(at, s)
	}
}

// IsHost reports whether a text can be the host of a URL: an IP address, or a DNS name, which may
// have underscores.
func IsHost(h string) bool {
	if _, err := netip.ParseAddr(strings.Trim(h, "[]")); err == nil {
		return true
	}
	last := ""
	for label := range strings.SplitSeq(strings.ToLower(strings.TrimSuffix(h, ".")), ".") {
		if last = label; !labelRE.MatchString(strings.ReplaceAll(label, "_", "a")) {
			return false
		}
	}
	return len(h) <= 253 && strings.Trim(last, "0123456789") != "" // refuses 192.0.2.400, for example
}

func (f *Fleet) checkOrigin(at string, s *Site, o *Origin) {
	if len(o.Servers) == 0 {
		f.errorf(at+".servers", "site %s has no origin: give it servers", cmp.Or(s.Name, parent(at)))
	}
	primaries, seen := 0, map[string]bool{}
	for i, srv := range o.Servers {
		p := fmt.Sprintf("%s.servers[%d]", at, i)
		if srv.URL.URL == nil {
			f.errorf(p+".url", "an origin server needs a url")
		} else if u := srv.URL.Scheme + "://" + srv.URL.Host; seen[u] {
			f.errorf(p, "%s is listed twice: give it a weight instead", u)
		} else {
			seen[u] = true
			f.checkLoop(p, s, srv.URL.URL)
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
	f.checkWord(at+".balance", o.Balance, []string{"round-robin", "least-requests", "random", "hash"})
	if o.Host != "" && !IsHost(o.Host) {
		f.errorf(at+".host", "%q is not a host name: want a name, or client for the Host that the client asked for",
			o.Host)
	}
	if o.SNI != "" {
		switch {
		case !IsHost(o.SNI):
			f.errorf(at+".sni", "%q is not a host name", o.SNI)
		case !slices.ContainsFunc(o.Servers,
			func(s OriginServer) bool { return s.URL.URL != nil && s.URL.Scheme == "https" }):
			f.errorf(at+".sni", "this is a name for TLS, and no server of site %s is an https one", s.Name)
		}
	}
	f.checkS3(at, o)
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
			f.errorf(at+".health.status", "%d is not a final status: want 200 to 599", h.Status)
		}
	}
	if c := o.ClientCertificate; c != nil {
		f.checkCertificate(at+".client_certificate", *c)
	}
	if a := o.Auth; a != nil {
		switch {
		case a.Header == "" || a.Secret == "":
			f.errorf(at+".auth", "the secret for an origin needs header and secret, a file")
		case !headerRE.MatchString(a.Header):
			f.errorf(at+".auth.header", "%q is not the name of a header field", a.Header)
		}
	}
	for i, name := range o.PassFields {
		if err := cache.CheckPassField(name); err != nil {
			f.errorf(fmt.Sprintf("%s.pass_fields[%d]", at, i), "%v", err)
		}
	}
	if o.Shield != "" {
		f.checkEdgeNode(at+".shield", o.Shield)
	}
}

// checkEdgeNode adds an error if no edge has the name.
func (f *Fleet) checkEdgeNode(at, name string) {
	var edges []string
	for _, n := range f.Nodes {
		if n.Has(RoleEdge) {
			edges = append(edges, n.Name)
		}
	}
	switch {
	case slices.Contains(edges, name):
	case f.Node(name) != nil:
		f.errorf(at, "node %s is not an edge: %s", name, words.Suggest("", edges))
	default:
		f.errorf(at, "there is no node %s: %s", name, words.Suggest(name, edges))
	}
}

// checkSiteName adds an error if no site has the name.
func (f *Fleet) checkSiteName(at, name string) {
	var sites []string
	for _, s := range f.Sites {
		sites = append(sites, s.Name)
	}
	if !slices.Contains(sites, name) {
		f.errorf(at, "there is no site %s: %s", name, words.Suggest(name, sites))
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
	f.checkWord(at+".set_cookie", c.SetCookie,
		[]string{string(httpcache.StripSetCookie), string(httpcache.StoreSetCookie)})
	for i, glob := range c.IgnoreQuery {
		if _, err := path.Match(glob, ""); err != nil || glob == "" {
			f.errorf(fmt.Sprintf("%s.ignore_query[%d]", at, i),
				"%q is not a pattern: want a name, with * for any letters", glob)
		}
	}
	if c.Slice != 0 && c.Slice < 64<<10 {
		f.errorf(at+".slice", "%s is less than 64KiB", c.Slice)
	}
}
