package httpcache

import (
	"net/http"
	"strings"
	"time"
)

// maxDelta replaces delta-seconds that are too large to represent (RFC 9111, section 1.2.2).
const maxDelta = 1 << 31

// parseDelta parses delta-seconds, which consist of digits only (RFC 9111, section 1.2.2).
func parseDelta(s string) (time.Duration, bool) {
	if s == "" {
		return 0, false
	}
	var n int64
	for i := range len(s) {
		c := s[i]
		if c < '0' || c > '9' {
			return 0, false
		}
		if n = n*10 + int64(c-'0'); n > maxDelta {
			n = maxDelta
		}
	}
	return time.Duration(n) * time.Second, true
}

// trimOWS trims optional whitespace (RFC 9110, section 5.6.3) from both ends.
func trimOWS(s string) string { return strings.Trim(s, " \t") }

// IsToken reports whether s is a token (RFC 9110, section 5.6.2).
func IsToken(s string) bool {
	for i := range len(s) {
		if !isTokenByte(s[i]) {
			return false
		}
	}
	return s != ""
}

func isTokenByte(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return true
	}
	return strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// splitList splits field lines into list members (RFC 9110, section 5.6.1). It ignores commas
// inside quoted strings and drops empty members. A quote that is never closed is an ordinary byte,
// so nothing can hide behind it.
func splitList(lines []string) []string {
	var out []string
	add := func(m string) {
		if m = trimOWS(m); m != "" {
			out = append(out, m)
		}
	}
	for _, line := range lines {
		quoted, begin := false, 0
		for i := 0; i < len(line); i++ {
			switch {
			case line[i] == ',' && !quoted:
				add(line[begin:i])
				begin = i + 1
			case line[i] == '"':
				quoted = !quoted
			case line[i] == '\\' && quoted:
				i++
			}
		}
		if !quoted {
			add(line[begin:])
			continue
		}
		for m := range strings.SplitSeq(line[begin:], ",") {
			add(m)
		}
	}
	return out
}

// ListHas reports whether a list has the given member, ignoring case.
func ListHas(lines []string, member string) bool {
	if len(lines) == 1 && equalFold(lines[0], member) {
		return true
	}
	for _, m := range splitList(lines) {
		if equalFold(m, member) {
			return true
		}
	}
	return false
}

// unquote returns the text of s if s is exactly one quoted-string (RFC 9110, section 5.6.4).
func unquote(s string) (string, bool) {
	if len(s) < 2 || s[0] != '"' || s[len(s)-1] != '"' {
		return "", false
	}
	s = s[1 : len(s)-1]
	if strings.IndexByte(s, '\\') < 0 {
		return s, strings.IndexByte(s, '"') < 0
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '"':
			return "", false
		case '\\':
			if i++; i == len(s) {
				return "", false
			}
		}
		b = append(b, s[i])
	}
	return string(b), true
}

// isHopByHop reports whether a field is meant for a single connection (RFC 9110, section 7.6.1; RFC
// 9111, section 3.1).
func isHopByHop(name string) bool {
	switch name {
	case "Connection", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
		"Proxy-Authenticate", "Proxy-Authentication-Info", "Proxy-Authorization", "Http2-Settings":
		return true
	}
	return false
}

// endToEnd are fields that Connection must not name, because they are for all recipients (RFC 9110,
// section 7.6.1). A peer that names them would make the cache drop its instructions.
var endToEnd = map[string]bool{
	"Age": true, "Authorization": true, "Cache-Control": true, "Cdn-Cache-Control": true, "Cdn-Loop": true,
	"Surrogate-Control": true, "Content-Encoding": true,
	"Content-Length": true, "Content-Range": true, "Content-Type": true, "Cookie": true, "Date": true, "Etag": true,
	"Expires": true, "Host": true,
	"Last-Modified": true, "Pragma": true, "Range": true, "Set-Cookie": true, "Vary": true, "Via": true,
}

// RemoveHopByHop removes the fields that must not be forwarded or stored: hop-by-hop fields, and
// those that Connection names (RFC 9110, section 7.6.1).
func RemoveHopByHop(h http.Header) {
	for _, name := range splitList(h["Connection"]) {
		if name = http.CanonicalHeaderKey(name); !endToEnd[name] {
			delete(h, name)
		}
	}
	for name := range h {
		if isHopByHop(name) {
			delete(h, name)
		}
	}
}
