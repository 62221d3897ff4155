package httpcache

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// Target is the URI of a request (RFC 9110, section 7.1). Requests to origins, keys of the store
// and URLs of purges are all derived from it, so they can't disagree. The zero value is not a valid
// target.
//
// Path and Query are as the client sent them. They contain no spaces, control characters or "#".
type Target struct {
	Secure bool   // https
	Host   string // lower case, without final dot; an IPv6 address is in brackets
	Port   string // "" means the default port of the scheme
	Path   string // begins with "/"; or "*" for OPTIONS *
	Query  string // begins with "?"; "" means no query
}

// Errors of requests with an invalid target. The response is 400.
var (
	ErrMethod    = errors.New("malformed method: want a token")
	ErrAuthority = errors.New("malformed Host: want a name or an address, and maybe a port")
	ErrTarget    = errors.New("malformed request target: want a path that begins with / or an http or https URL, " +
		"without spaces, control characters, # and user names")
)

// ParseTarget returns the target of a request that a server received. secure means https.
// ParseTarget accepts origin-form, absolute-form with http or https over HTTP/1, and "*" with
// OPTIONS (RFC 9112, section 3.2). A request over HTTP/1.0 may have no host; the host of its target
// is then "".
func ParseTarget(r *http.Request, secure bool) (Target, error) {
	t := Target{Secure: secure}
	if !IsToken(r.Method) {
		return t, ErrMethod
	}
	authority, rest := r.Host, r.RequestURI
	switch {
	case strings.HasPrefix(rest, "/"):
	case rest == "*" && r.Method == http.MethodOptions:
	case r.ProtoMajor > 1:
		return t, ErrTarget
	default:
		var ok bool
		if authority, rest, ok = cutAbsolute(rest); !ok {
			return t, ErrTarget
		}
	}
	// HTTP/2 and HTTP/3 requests may have both :authority and Host, which must be equal (RFC 9113,
	// section 8.3.1; RFC 9114, section 4.3.1).
	if lines := r.Header["Host"]; len(lines) > 1 || len(lines) == 1 && lines[0] != authority {
		return t, ErrAuthority
	}
	if authority != "" || r.ProtoAtLeast(1, 1) {
		var ok bool
		if t.Host, t.Port, ok = ParseAuthority(authority, secure); !ok {
			return t, ErrAuthority
		}
	}
	t.split(rest)
	if !isTarget(rest) || strings.HasPrefix(t.Path, "//") && !isPath(t.Path) {
		return t, ErrTarget
	}
	return t, nil
}

// ParseURL returns the target of an absolute URL. It drops a fragment and user information. Like
// browsers, it percent-encodes spaces and other bytes that a request can't contain.
func ParseURL(raw string) (Target, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return Target{}, err
	}
	t := Target{Secure: u.Scheme == "https"}
	if !t.Secure && u.Scheme != "http" || u.Host == "" {
		return Target{}, fmt.Errorf("%q: %w", raw, ErrNotAbsolute)
	}
	var ok bool
	if t.Host, t.Port, ok = ParseAuthority(u.Host, t.Secure); !ok {
		return Target{}, fmt.Errorf("%q: %w", raw, ErrAuthority)
	}
	raw, _, _ = strings.Cut(raw, "#")
	_, rest, ok := cutAbsolute(raw)
	if !ok {
		return Target{}, fmt.Errorf("%q: %w", raw, ErrNotAbsolute)
	}
	t.split(escape(rest))
	return t, nil
}

// ErrNotAbsolute means that a URL is not absolute or has another scheme.
var ErrNotAbsolute = errors.New("want an absolute URL, http:// or https:// and a host")

// cutAbsolute splits an http or https URL after its authority. An empty path becomes "/".
func cutAbsolute(raw string) (authority, rest string, ok bool) {
	scheme, rest, ok := strings.Cut(raw, "://")
	if !ok || !equalFold(scheme, "http") && !equalFold(scheme, "https") {
		return "", "", false
	}
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	authority, rest = rest[:end], rest[end:]
	if !strings.HasPrefix(rest, "/") {
		rest = "/" + rest
	}
	return authority, rest, authority != ""
}

// ParseAuthority returns the canonical form of a Host field (RFC 9110, section 7.2) for http, or
// for https if secure is set. ok is false unless the host is a name, an IPv4 address or an IPv6
// address in brackets.
func ParseAuthority(authority string, secure bool) (host, port string, ok bool) {
	host = authority
	if i := strings.LastIndexByte(authority, ':'); i > strings.LastIndexByte(authority, ']') {
		host, port = authority[:i], authority[i+1:]
	}
	if port != "" {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			return "", "", false
		}
		port = strconv.FormatUint(n, 10)
		if port == "80" && !secure || port == "443" && secure {
			port = ""
		}
	}
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if strings.HasPrefix(host, "[") {
		addr, err := netip.ParseAddr(strings.TrimSuffix(host[1:], "]"))
		return host, port, err == nil && addr.Is6() && addr.Zone() == "" && strings.HasSuffix(host, "]")
	}
	return host, port, isHostName(host)
}

// maxHost is the maximum length of a host in bytes. DNS allows 253.
const maxHost = 255

func isHostName(host string) bool {
	if host == "" || len(host) > maxHost {
		return false
	}
	last := byte('.')
	for i := range len(host) {
		c := host[i]
		switch {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '_':
		case c == '.' && last != '.':
		default:
			return false
		}
		last = c
	}
	return last != '.'
}

// isTarget reports whether a path and query are acceptable. Besides the characters of RFC 3986 it
// accepts those that browsers and curl send unencoded, such as "|", "^", "[", `"` and non-ASCII
// bytes. They are unambiguous in a request line.
func isTarget(s string) bool {
	for i := range len(s) {
		if !isTargetByte(s[i]) {
			return false
		}
	}
	return true
}

func isTargetByte(c byte) bool { return c > ' ' && c != '#' && c != 0x7f }

// isPath reports whether a path contains only characters of RFC 3986 and brackets. A path that
// begins with "//" must, or net/http could not send it unchanged.
func isPath(s string) bool {
	for i := range len(s) {
		if c := s[i]; c >= 0x80 || strings.IndexByte("\"<>\\^`{|}", c) >= 0 {
			return false
		}
	}
	return true
}

// escape percent-encodes the bytes that a target can't contain.
func escape(s string) string {
	if isTarget(s) {
		return s
	}
	const digits = "0123456789ABCDEF"
	var b []byte
	for i := range len(s) {
		if c := s[i]; isTargetByte(c) {
			b = append(b, c)
		} else {
			b = append(b, '%', digits[c>>4], digits[c&15])
		}
	}
	return string(b)
}

func (t *Target) split(rest string) {
	t.Path = rest
	if i := strings.IndexByte(rest, '?'); i >= 0 {
		t.Path, t.Query = rest[:i], rest[i:]
	}
}

// Authority returns the host, and the port unless it is the default. This is the value of Host.
func (t Target) Authority() string {
	if t.Port == "" {
		return t.Host
	}
	return t.Host + ":" + t.Port
}

// Origin returns the scheme and authority (RFC 9110, section 4.3.1).
func (t Target) Origin() string { return t.Scheme() + "://" + t.Authority() }

// Scheme returns "http" or "https".
func (t Target) Scheme() string {
	if t.Secure {
		return "https"
	}
	return "http"
}

// RequestURI returns the path and query, as in the request line.
func (t Target) RequestURI() string { return t.Path + t.Query }

// URL returns the form that purges use: host, path and query. It has no scheme and no port, so a
// purge covers all of them.
func (t Target) URL() string { return t.Host + t.Path + t.Query }

// String returns the target as an absolute URL.
func (t Target) String() string { return t.Origin() + t.RequestURI() }

// Key returns the key of the response in the store.
func (t Target) Key() Key { return Key(t.String()) }

// RequestURL returns a URL for an http.Request that is sent with exactly this path and query. The
// caller sets scheme and host.
func (t Target) RequestURL() *url.URL {
	u := &url.URL{Path: t.Path, RawPath: t.Path, RawQuery: strings.TrimPrefix(t.Query, "?"), ForceQuery: t.Query == "?"}
	if decoded, err := url.PathUnescape(t.Path); err == nil {
		u.Path = decoded
	}
	if u.EscapedPath() != t.Path && !strings.HasPrefix(t.Path, "//") {
		u.Opaque = t.Path // contains bytes that url.URL would encode
	}
	return u
}
