package edge

import (
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strconv"
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

// has says whether a host is of a site.
func (s *sites) has(site *Site, host string) bool {
	found, _ := s.find(host)
	return found == site
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

// target is the path and query of a request as they were sent, without fragment.
func target(r *http.Request) string {
	t := r.RequestURI
	if i := strings.Index(t, "://"); i >= 0 && !strings.HasPrefix(t, "/") { // absolute-form (RFC 9112, 3.2.2)
		t = t[i+3:]
		if j := strings.IndexAny(t, "/?"); j >= 0 {
			t = t[j:]
		} else {
			t = "/"
		}
		if t[0] == '?' {
			t = "/" + t
		}
	}
	t, _, _ = strings.Cut(t, "#")
	return t
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

// url is what purges know a target by: host, path and the query without what the site ignores.
func (s *Site) url(host, target string) string {
	p, query, ok := strings.Cut(target, "?")
	if !ok {
		return host + p
	}
	if len(s.IgnoreQuery) > 0 {
		var kept []string
		for param := range strings.SplitSeq(query, "&") {
			name, _, _ := strings.Cut(param, "=")
			if !s.ignores(name) {
				kept = append(kept, param)
			}
		}
		if len(kept) == 0 {
			return host + p
		}
		query = strings.Join(kept, "&")
	}
	return host + p + "?" + query
}

func (s *Site) ignores(name string) bool {
	for _, glob := range s.IgnoreQuery {
		if ok, _ := path.Match(glob, name); ok {
			return true
		}
	}
	return false
}

// authority is the scheme, host and port of an origin in the form that keys begin with; a default port is left out. Another scheme or port is another
// origin (RFC 9110, 4.3.1), though purges don't tell them apart.
func authority(secure bool, hostport string) string {
	scheme, usual := "http://", ":80"
	if secure {
		scheme, usual = "https://", ":443"
	}
	host := canonicalHost(hostport)
	port := ""
	if i := strings.LastIndexByte(hostport, ':'); i > strings.LastIndexByte(hostport, ']') {
		port = hostport[i:]
	}
	if port == ":" || port == usual {
		port = ""
	}
	return scheme + host + port
}

// validHost says whether a Host field names a host (RFC 9110, 7.2): a name, an IPv4 address, or an IPv6 address in brackets, and maybe a port.
func validHost(hostport string) bool {
	host, port := hostport, ""
	if i := strings.LastIndexByte(hostport, ':'); i > strings.LastIndexByte(hostport, ']') {
		host, port = hostport[:i], hostport[i+1:]
	}
	if port != "" {
		if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			return false
		}
	}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		addr, err := netip.ParseAddr(strings.TrimSuffix(inner, "]"))
		return err == nil && addr.Is6() && strings.HasSuffix(inner, "]")
	}
	for i := range len(host) {
		switch c := host[i]; {
		case 'a' <= c|0x20 && c|0x20 <= 'z', '0' <= c && c <= '9', c == '-', c == '.', c == '_':
		default:
			return false
		}
	}
	return host != ""
}

// URLOf turns an absolute URL, as a purge names it, into what objects are known by: scheme, port and fragment left out.
func URLOf(raw string) (string, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return "", err
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return "", fmt.Errorf("%q: %w", raw, errNotAbsolute)
	}
	host := canonicalHost(u.Host)
	_, rest, _ := strings.Cut(raw, "://")
	rest, _, _ = strings.Cut(rest, "#")
	i := strings.IndexAny(rest, "/?")
	switch {
	case i < 0:
		return host + "/", nil
	case rest[i] == '?':
		return host + "/" + rest[i:], nil
	}
	return host + rest[i:], nil
}

// clientIP is the address of the client without its port.
func clientIP(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}
