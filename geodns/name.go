package geodns

import (
	"fmt"

	"github.com/miekg/dns"
)

// name is a domain name in wire format, in lower case and uncompressed:
// "\x03www\x07example\x03com\x00". Maps have it as their key, so a name can be looked up from the
// bytes of a packet. The ancestors of a name are suffixes of it.
type name string

// maxName is the maximum length of a name in wire format, in octets (RFC 1035 section 2.3.4).
const maxName = 255

// nameOf parses a name in presentation format. The name is absolute, with or without a final dot.
// nameOf returns an error if s is not a domain name.
func nameOf(s string) (name, error) {
	var wire [maxName + 1]byte
	n, err := dns.PackDomainName(dns.Fqdn(s), wire[:], 0, nil, false)
	if err != nil || n > maxName {
		return "", fmt.Errorf("%q is not a domain name", s)
	}
	return lowerName(wire[:n]), nil
}

// lowerName converts wire to lower case in place, and returns a copy.
func lowerName(wire []byte) name {
	toLower(wire)
	return name(wire)
}

// toLower converts a name to lower case in place. A length octet is at most 63, so it is never
// taken for a letter.
func toLower(wire []byte) {
	for i, c := range wire {
		if 'A' <= c && c <= 'Z' {
			wire[i] = c + 'a' - 'A'
		}
	}
}

// parent returns the name without its first label. The root is its own parent.
func (n name) parent() name {
	if n.isRoot() {
		return n
	}
	return n[1+n[0]:]
}

func (n name) isRoot() bool { return len(n) <= 1 }

// isWildcard reports whether the first label is an asterisk (RFC 4592 section 2.1.1).
func (n name) isWildcard() bool { return len(n) > 1 && n[0] == 1 && n[1] == '*' }

// within reports whether n is ancestor, or is below it.
func (n name) within(ancestor name) bool {
	for len(n) > len(ancestor) {
		n = n.parent()
	}
	return n == ancestor
}

// String returns the name in presentation format.
func (n name) String() string {
	s, _, err := dns.UnpackDomainName([]byte(n), 0)
	if err != nil {
		return fmt.Sprintf("%q", string(n))
	}
	return s
}
