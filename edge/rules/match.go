package rules

import (
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"
)

// Request is a request as conditions see it. It must not be changed after the first use, because
// parts of it are parsed once.
type Request struct {
	Method   string
	Secure   bool   // https
	Host     string // lower case, without port
	Path     string // begins with "/", as the client sent it
	Query    string // begins with "?"; "" means no query
	Protocol int    // 1, 2 or 3: the major version of HTTP
	Header   http.Header
	Client   netip.Addr
	Now      time.Time
	// CrossOrigin means that the request may have a field Origin. Static looks at this in place of
	// Header.
	CrossOrigin bool
	Table       *Table // counts for limits; nil means that nothing is counted
	// Country returns the country of a client (ISO 3166-1 alpha-2), or "". nil means that none is
	// known.
	Country func(netip.Addr) string

	clean  string     // Path as conditions see it
	sent   string     // Query as the client sent it; checks remove tokens from Query
	params url.Values // of Query; nil until a condition needs them
}

// Match has the conditions of a rule. An empty condition holds for every request. A list holds if
// one of its entries does.
type Match struct {
	Paths     []Pattern // see cleanPath
	Hosts     []string  // lower case; *.NAME matches every name below NAME
	Methods   []string
	Protocols []string // "http1", "http2", "http3", or "http" and "https" for the scheme
	Query     []Field  // parameters, percent-decoded
	Header    []Field  // request fields
	Cookies   []Field
	Networks  []netip.Prefix
	Crawlers  []string // classes, such as CrawlerAI
	Countries []string // of the client; ISO 3166-1 alpha-2
}

// Field is a condition on a named value. With Absent, the request must have no value of that name.
// With a nil Value, it must have one, and any will do.
type Field struct {
	Name   string
	Value  *Pattern
	Absent bool
}

func (f *Field) holds(values []string) bool {
	switch {
	case f.Absent:
		return len(values) == 0
	case f.Value == nil:
		return len(values) > 0
	}
	return slices.ContainsFunc(values, f.Value.Match)
}

// target reports whether the conditions on method, target and protocol hold, and returns the path
// pattern that matches.
func (m *Match) target(r *Request) (matched *Pattern, ok bool) {
	if len(m.Methods) > 0 && !slices.Contains(m.Methods, r.Method) ||
		len(m.Hosts) > 0 && !slices.ContainsFunc(m.Hosts, func(host string) bool { return matchHost(host, r.Host) }) ||
		len(m.Protocols) > 0 && !slices.ContainsFunc(m.Protocols, r.speaks) {
		return nil, false
	}
	if len(m.Paths) > 0 {
		i := slices.IndexFunc(m.Paths, func(p Pattern) bool { return p.Match(r.clean) })
		if i < 0 {
			return nil, false
		}
		matched = &m.Paths[i]
	}
	if len(m.Query) > 0 {
		if r.params == nil {
			r.params, _ = url.ParseQuery(strings.TrimPrefix(r.Query, "?")) // ignores malformed parameters
		}
		for i := range m.Query {
			if !m.Query[i].holds(r.params[m.Query[i].Name]) {
				return nil, false
			}
		}
	}
	return matched, true
}

// needsMore reports whether there are conditions on more than method, target and protocol.
func (m *Match) needsMore() bool {
	return len(m.Header)+len(m.Cookies)+len(m.Networks)+len(m.Crawlers)+len(m.Countries) > 0
}

// rest reports whether the conditions hold that target doesn't check.
func (m *Match) rest(r *Request) bool {
	for i := range m.Header {
		if !m.Header[i].holds(r.Header[http.CanonicalHeaderKey(m.Header[i].Name)]) {
			return false
		}
	}
	for i := range m.Cookies {
		if !m.Cookies[i].holds(cookies(r.Header, m.Cookies[i].Name)) {
			return false
		}
	}
	if len(m.Crawlers) > 0 && !slices.ContainsFunc(m.Crawlers,
		func(class string) bool { return isCrawler(class, r.Header) }) {
		return false
	}
	if len(m.Countries) > 0 && (r.Country == nil || !slices.Contains(m.Countries, r.Country(r.Client))) {
		return false
	}
	client := r.Client.Unmap()
	return len(m.Networks) == 0 ||
		slices.ContainsFunc(m.Networks, func(p netip.Prefix) bool { return p.Contains(client) })
}

// cleanPath returns the path that conditions see: percent-decoded, without empty and dot segments.
// Otherwise a rule that denies /admin/** would let /%61dmin/, //admin/ and /x/../admin/ pass, which
// an origin may take for the same path.
func cleanPath(p string) string {
	if strings.Contains(p, "%") {
		if decoded, err := url.PathUnescape(p); err == nil {
			p = decoded
		}
	}
	if !strings.Contains(p, "//") && !strings.Contains(p, "/.") {
		return p
	}
	clean := path.Clean("/" + p)
	if last := p[strings.LastIndexByte(p, '/')+1:]; clean != "/" && (last == "" || last == "." || last == "..") {
		clean += "/"
	}
	return clean
}

func (r *Request) speaks(protocol string) bool {
	switch protocol {
	case "http":
		return !r.Secure
	case "https":
		return r.Secure
	}
	return r.Protocol > 0 && protocol == "http"+string(rune('0'+r.Protocol))
}

func matchHost(pattern, host string) bool {
	if below, ok := strings.CutPrefix(pattern, "*"); ok {
		return len(host) > len(below) && strings.HasSuffix(host, below)
	}
	return pattern == host
}

// cookies returns the values of the cookies with a name.
func cookies(h http.Header, name string) (values []string) {
	for _, line := range h["Cookie"] {
		for pair := range strings.SplitSeq(line, ";") {
			if n, v, ok := strings.Cut(strings.TrimSpace(pair), "="); ok && n == name {
				values = append(values, strings.Trim(v, `"`))
			}
		}
	}
	return values
}
