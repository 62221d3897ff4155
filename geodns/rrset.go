package geodns

import "github.com/miekg/dns"

// rrset is the records of one type at one name, in the form that they are sent in. It does not
// change once its zone is made. Large zones have millions: it is kept small.
type rrset struct {
	rrtype uint16
	ttl    uint32   // one for all (RFC 2181 section 5.2)
	line   int32    // of the first record, as Zone.At counts
	size   uint32   // of all records in octets, uncompressed
	data   []string // of each record, in wire form, names in the case that they were written in
}

// names tells where names begin in the data of a type, and how many there are: only those of RFC
// 1035 may be compressed (RFC 3597 section 4).
func names(rrtype uint16) (at, count int) {
	switch rrtype {
	case dns.TypeNS, dns.TypeCNAME, dns.TypePTR:
		return 0, 1
	case dns.TypeMX:
		return 2, 1
	case dns.TypeSOA:
		return 0, 2
	}
	return 0, 0
}

// target is the host, of NS, MX and SRV, whose addresses go into the additional section; the root
// is none.
func (s *rrset) target(i int) name {
	switch s.rrtype {
	case dns.TypeNS:
		return lowered(s.data[i])
	case dns.TypeMX:
		return lowered(s.data[i][2:])
	case dns.TypeSRV:
		return lowered(s.data[i][6:])
	}
	return ""
}

// lowered is a name in lower case, a copy only if it has to be.
func lowered(wire string) name {
	for i := range len(wire) {
		if c := wire[i]; 'A' <= c && c <= 'Z' {
			return lowerName([]byte(wire))
		}
	}
	return name(wire)
}

// withTTL is the set with another TTL.
func (s *rrset) withTTL(ttl uint32) *rrset {
	other := *s
	other.ttl = ttl
	return &other
}

// owned is an RRset of a message: with its owner, in wire form and in the case to be shown.
type owned struct {
	owner string
	*rrset
}
