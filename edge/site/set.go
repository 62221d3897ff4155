package site

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/kaiku-cdn/kaiku/origin"
)

// Set is the sites of an edge, found by host.
type Set struct {
	List   []*Site
	byHost map[string]*Site
	any    *Site // the site that serves any host; nil if there is none
}

// NewSet makes a set of sites.
func NewSet(list []*Site) *Set {
	s := &Set{List: list, byHost: map[string]*Site{}}
	for _, site := range list {
		if site.Rules.Len() > 0 && site.known == nil {
			site.known = &known{}
		}
		if len(site.Hosts) == 0 {
			s.any = site
		}
		for _, h := range site.Hosts {
			s.byHost[h] = site
		}
	}
	return s
}

// Find returns the site of a Host field, or nil. It also returns the host in its canonical form, as
// in keys.
func (s *Set) Find(host string) (*Site, string) {
	host = CanonicalHost(host)
	if site := s.byHost[host]; site != nil {
		return site, host
	}
	if site := s.byHost[WildcardOf(host)]; site != nil {
		return site, host
	}
	if host == "" {
		return nil, ""
	}
	return s.any, host
}

// Has reports whether a host belongs to a site.
func (s *Set) Has(site *Site, host string) bool {
	found, _ := s.Find(host)
	return found == site
}

// ReachedBy reports whether a TLS connection with a given server name may be used for a site: the
// name is one of the site's hosts, or the client sent none. Browsers use one connection for several
// hosts of its certificate. Which hosts they may request must not depend on the certificate.
func (s *Set) ReachedBy(serverName string, site *Site) bool {
	return serverName == "" || s.Has(site, serverName)
}

// UnknownHostError is the error of a host that belongs to no site.
type UnknownHostError struct {
	host  string
	known []string
}

// Error names the host and the hosts of all sites.
func (e *UnknownHostError) Error() string {
	return fmt.Sprintf("no site has the host %s: the hosts are %s", e.host, Listed(e.known))
}

// Unknown returns the error of a host that belongs to no site of the set.
func (s *Set) Unknown(host string) error {
	return &UnknownHostError{host, slices.Sorted(maps.Keys(s.byHost))}
}

// AnyHost reports whether one of the sites serves any host.
func (s *Set) AnyHost() bool { return s.any != nil }

// Named returns the site with a name, or nil.
func (s *Set) Named(name string) *Site {
	for _, site := range s.List {
		if site.Name == name {
			return site
		}
	}
	return nil
}

// Origins returns the status of each pool that the sites fetch from: their origins, and the tiers
// of other edges. A pool that several sites share is listed once.
func (s *Set) Origins() []origin.Status {
	var pools []*origin.Pool
	for _, site := range s.List {
		for r := range site.Routes {
			for _, p := range []*origin.Pool{r.Origin, r.Ring, r.Shield} {
				if p != nil && !slices.Contains(pools, p) {
					pools = append(pools, p)
				}
			}
		}
	}
	out := make([]origin.Status, len(pools))
	for i, p := range pools {
		out[i] = p.Status()
	}
	return out
}

// Sum returns a hash of the names and hosts of the sites. Edges with different sums may take the
// purge of one site for a purge of another.
func (s *Set) Sum() string {
	var lines []string
	for _, site := range s.List {
		lines = append(lines, fmt.Sprintf("%q %q\n", site.Name, slices.Sorted(slices.Values(site.Hosts))))
	}
	slices.Sort(lines)
	sum := sha256.Sum256([]byte(strings.Join(lines, "")))
	return hex.EncodeToString(sum[:8])
}

// Table holds the sites that an edge serves now. They are replaced as a whole while it serves. The
// zero value has none.
type Table struct{ now atomic.Pointer[Set] }

// Set replaces the sites.
func (t *Table) Set(list []*Site) { t.now.Store(NewSet(list)) }

// Now returns the current sites. A Set doesn't change, so one request does all of its look-ups in
// one Set.
func (t *Table) Now() *Set {
	if s := t.now.Load(); s != nil {
		return s
	}
	return &Set{}
}

// maxListed is how many names an error lists.
const maxListed = 30

// Listed returns names as a list for an error.
func Listed(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	if more := len(names) - maxListed; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:maxListed], ", "), more)
	}
	return strings.Join(names, ", ")
}

// WildcardOf returns the wildcard that covers a host.
func WildcardOf(host string) string {
	_, parent, _ := strings.Cut(host, ".")
	return "*." + parent
}

// CanonicalHost returns a host in lower case, without its port and a trailing dot.
func CanonicalHost(host string) string {
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.HasSuffix(host, "]") {
		host = host[:i]
	}
	return strings.TrimSuffix(strings.ToLower(host), ".")
}
