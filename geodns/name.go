package geodns

import (
	"fmt"

	"github.com/miekg/dns"
)

// name is a domain name in wire form, lower case and uncompressed: "\x03www\x07example\x03com\x00".
// It is what maps are keyed with, so that a name can be looked up from the bytes of a packet, and
// its ancestors are its suffixes.
type name string

// maxName is the longest name in wire form (RFC 1035 section 2.3.4).
const maxName = 255

// nameOf reads a name in presentation form. It is taken as absolute, with or without the dot at its
// end.
func nameOf(s string) (name, error) {
	var wire [maxName + 1]byte
	n, err := dns.PackDomainName(dns.Fqdn(s), wire[:], 0, nil, false)
	if err != nil || n > maxName {
		return "", fmt.Errorf("%q is not a domain name", s)
	}
	return lowerName(wire[:n]), nil
}

// lowerName lower-cases in place, and copies.
func lowerName(wire []byte) name {
	toLower(wire)
	return name(wire)
}

// toLower lower-cases in place. The octets that hold a label's length are at most 63 and so never a
// letter.
func toLower(wire []byte) {
	for i, c := range wire {
		if 'A' <= c && c <= 'Z' {
			wire[i] = c + 'a' - 'A'
		}
	}
}

// parent is the name without its first label; the root is its own parent.
func (n name) parent() name {
	if n.isRoot() {
		return n
	}
	return n[1+n[0]:]
}

func (n name) isRoot() bool { return len(n) <= 1 }

// isWildcard tells whether the first label is an asterisk (RFC 4592 section 2.1.1).
func (n name) isWildcard() bool { return len(n) > 1 && n[0] == 1 && n[1] == '*' }

// within tells whether the name is ancestor or lies below it.
func (n name) within(ancestor name) bool {
	for len(n) > len(ancestor) {
		n = n.parent()
	}
	return n == ancestor
}

// String gives the presentation form.
func (n name) String() string {
	s, _, err := dns.UnpackDomainName([]byte(n), 0)
	if err != nil {
		return fmt.Sprintf("%q", string(n))
	}
	return s
}
