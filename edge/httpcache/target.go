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

// Target is the URI that a request is for (RFC 9110, 7.1). Requests to origins, the keys of the
// store and what purges name are made of it, so that they can't disagree. The zero value is no
// target.
//
// Path and Query are as they were sent. They hold no space, control character or "#".
type Target struct {
	Secure bool   // https
	Host   string // in lower case, without the final dot; an IPv6 address is in brackets
	Port   string // "" if it is the default of the scheme
	Path   string // begins with "/"; "*" for OPTIONS of the whole server
	Query  string // begins with "?"; "" if there is none
}

// What is wrong with a request whose target can't be used. Each of them is answered with 400.
var (
	ErrMethod    = errors.New("malformed method: want a token")
	ErrAuthority = errors.New("malformed Host: want a name or an address, and maybe a port")
	ErrTarget    = errors.New("malformed request target: want a path that begins with / or an http or https URL, " +
		"without spaces, control characters, # and user names")
)

// ParseTarget returns the target of a request as a server got it; secure reports whether it is for
// https. Only an origin-form is taken, an absolute-form of http or https over HTTP/1, and "*" with
// OPTIONS (RFC 9112, 3.2). A request of HTTP/1.0 may name no host: that of its target is "" then.
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
	// HTTP/2 and HTTP/3 may have both fields, which must have the same value (RFC 9113, 8.3.1; RFC
	// 9114, 4.3.1).
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

// ParseURL returns the target that an absolute URL names. A fragment and a user name are left out.
// Spaces and other bytes that no request can have are encoded, as browsers do it.
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

// ErrNotAbsolute is the error of a URL that is not absolute, or of another scheme.
var ErrNotAbsolute = errors.New("want an absolute URL, http:// or https:// and a host")

// cutAbsolute cuts an http or https URL at the end of its authority. An empty path becomes "/".
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

// ParseAuthority returns the canonical form of a Host field (RFC 9110, 7.2) of http, or of https if
// secure. It reports false if that does not name a host: a name, an IPv4 address, or an IPv6
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

// maxHost bounds the bytes of a host; DNS has 253.
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

// isTarget reports whether the path and query of a request can be used. Beside the bytes of RFC
// 3986 it takes those that browsers and curl send as they are, such as "|", "^", "[", `"` and what
// is not ASCII: they have one meaning in a request line.
func isTarget(s string) bool {
	for i := range len(s) {
		if !isTargetByte(s[i]) {
			return false
		}
	}
	return true
}

func isTargetByte(c byte) bool { return c > ' ' && c != '#' && c != 0x7f }

// isPath reports whether a path has only bytes of RFC 3986, and brackets. One that begins with "//"
// has to, or net/http could not send it as it is.
func isPath(s string) bool {
	for i := range len(s) {
		if c := s[i]; c >= 0x80 || strings.IndexByte("\"<>\\^`{|}", c) >= 0 {
			return false
		}
	}
	return true
}

// escape encodes the bytes that no target has.
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

// Authority is the host, with the port unless that is the default: the value of Host.
func (t Target) Authority() string {
	if t.Port == "" {
		return t.Host
	}
	return t.Host + ":" + t.Port
}

// Origin is the scheme and authority (RFC 9110, 4.3.1).
func (t Target) Origin() string { return t.Scheme() + "://" + t.Authority() }

// Scheme is "http" or "https".
func (t Target) Scheme() string {
	if t.Secure {
		return "https"
	}
	return "http"
}

// RequestURI is the path and query, as in the request line of the origin-form.
func (t Target) RequestURI() string { return t.Path + t.Query }

// URL is what purges know the target by: host, path and query. They tell neither schemes nor ports
// apart.
func (t Target) URL() string { return t.Host + t.Path + t.Query }

// String is the target as an absolute URL.
func (t Target) String() string { return t.Origin() + t.RequestURI() }

// Key is what the store knows the response by.
func (t Target) Key() Key { return Key(t.String()) }

// RequestURL is the URL of an http.Request that is sent with just this path and query. Its scheme
// and host are for whoever knows the server.
func (t Target) RequestURL() *url.URL {
	u := &url.URL{Path: t.Path, RawPath: t.Path, RawQuery: strings.TrimPrefix(t.Query, "?"), ForceQuery: t.Query == "?"}
	if decoded, err := url.PathUnescape(t.Path); err == nil {
		u.Path = decoded
	}
	if u.EscapedPath() != t.Path && !strings.HasPrefix(t.Path, "//") {
		u.Opaque = t.Path // bytes that url would encode
	}
	return u
}
