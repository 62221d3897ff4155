package edge

import (
	"fmt"
	"maps"
	"net"
	"net/http"
	"path"
	"slices"
	"strings"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
	"github.com/kaiku-cdn/kaiku/origin"
	"github.com/kaiku-cdn/kaiku/storage"
)

// Site is what an edge serves under some hosts.
type Site struct {
	Name        string
	Hosts       []string // lower case, without port; *.NAME is each name one label below NAME that no site has itself; none means any host, and then it is the only site
	Origin      *origin.Route
	Policy      httpcache.Policy
	MaxObject   int64    // bytes of the largest representation that is stored; 0 means no limit of its own
	Slice       int64    // a range of what is not stored is fetched in slices of so many bytes; 0 means 8 MiB
	IgnoreQuery []string // globs over the names of query parameters that are not part of the key
	PassFields  []string // request fields, in canonical form, that pass from clients to the origin though they may impersonate
	Redirect    bool     // requests over plain HTTP are sent to https://, where the edge has a listener for that
	HSTS        string   // value of Strict-Transport-Security in responses over TLS; "" means none
}

// sites finds a site by host.
type sites struct {
	list   []*Site
	byHost map[string]*Site
	any    *Site
}

func newSites(list []*Site) *sites {
	s := &sites{list: list, byHost: map[string]*Site{}}
	for _, site := range list {
		if len(site.Hosts) == 0 {
			s.any = site
		}
		for _, h := range site.Hosts {
			s.byHost[h] = site
		}
	}
	return s
}

// find returns the site of a Host field and the host in the form that keys have, or nil.
func (s *sites) find(host string) (*Site, string) {
	host = canonicalHost(host)
	if site := s.byHost[host]; site != nil {
		return site, host
	}
	if site := s.byHost[wildcardOf(host)]; site != nil {
		return site, host
	}
	if host == "" {
		return nil, ""
	}
	return s.any, host
}

// has reports whether a host is of a site.
func (s *sites) has(site *Site, host string) bool {
	found, _ := s.find(host)
	return found == site
}

// reachedBy reports whether a TLS connection that was made with a server name may ask for a site:
// the name is one of the site's hosts, or the client gave none. Browsers use one connection for
// several hosts of its certificate; what may be asked for is not to depend on which certificate
// that is.
func (s *sites) reachedBy(serverName string, site *Site) bool {
	return serverName == "" || s.has(site, serverName)
}

// unknownHost is the error of a host that no site has.
type unknownHost struct {
	host  string
	known []string
}

func (e *unknownHost) Error() string {
	return fmt.Sprintf("no site has the host %s: the hosts are %s", e.host, listed(e.known))
}

func (s *sites) unknown(host string) error {
	return &unknownHost{host, slices.Sorted(maps.Keys(s.byHost))}
}

// maxListed is how many names an error lists.
const maxListed = 30

// listed lists names for an error.
func listed(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	if more := len(names) - maxListed; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:maxListed], ", "), more)
	}
	return strings.Join(names, ", ")
}

// wildcardOf is the wildcard that a host is below.
func wildcardOf(host string) string {
	_, parent, _ := strings.Cut(host, ".")
	return "*." + parent
}

// canonicalHost lowers a host, and cuts its port and a trailing dot.
func canonicalHost(host string) string {
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.HasSuffix(host, "]") {
		host = host[:i]
	}
	return strings.TrimSuffix(strings.ToLower(host), ".")
}

// maxObject is the size in bytes of the largest body of the site that is stored.
func (s *Site) maxObject(store *storage.Store) int64 {
	if s.MaxObject == 0 {
		return store.MaxObject()
	}
	return min(s.MaxObject, store.MaxObject())
}

// slice is the size in bytes of a slice.
func (s *Site) slice() int64 {
	if s.Slice == 0 {
		return 8 << 20
	}
	return s.Slice
}

// reduce removes the query parameters that the site ignores from a target. What is not part of the
// key isn't sent to the origin either.
func (s *Site) reduce(t httpcache.Target) httpcache.Target {
	t.Query = s.reduceQuery(t.Query)
	return t
}

// reduceQuery is reduce for a query, which begins with "?" if there is one.
func (s *Site) reduceQuery(query string) string {
	if query == "" || len(s.IgnoreQuery) == 0 {
		return query
	}
	var kept []string
	for param := range strings.SplitSeq(query[1:], "&") {
		name, _, _ := strings.Cut(param, "=")
		if !s.ignores(name) {
			kept = append(kept, param)
		}
	}
	if len(kept) == 0 {
		return ""
	}
	return "?" + strings.Join(kept, "&")
}

func (s *Site) ignores(name string) bool {
	for _, glob := range s.IgnoreQuery {
		if ok, _ := path.Match(glob, name); ok {
			return true
		}
	}
	return false
}

// clientIP is the address of the client without its port.
func clientIP(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}
