package geodns

import "github.com/miekg/dns"

// rrset holds the records of one type at one name, in wire format. It is immutable once its zone is
// complete. It is small because large zones have millions of them.
type rrset struct {
	rrtype uint16
	ttl    uint32 // the same for all records (RFC 2181 section 5.2)
	line   int32  // line of the first record, as in Zone.At
	size   uint32 // total size of the records in octets, uncompressed
	// Rdata of each record in wire format. Names keep the case of the master file.
	data []string
}

// names returns where names start in the rdata of a type, and how many there are. It covers only
// the types of RFC 1035, because names of other types must not be compressed (RFC 3597 section 4).
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

// target returns the host of record i for NS, MX and SRV, whose addresses belong in the additional
// section. It returns "" for other types. The root as target means that there is no host.
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

// lowered returns a name in lower case. It copies the name only if it has upper case letters.
func lowered(wire string) name {
	for i := range len(wire) {
		if c := wire[i]; 'A' <= c && c <= 'Z' {
			return lowerName([]byte(wire))
		}
	}
	return name(wire)
}

// withTTL returns a copy of the RRset with another TTL.
func (s *rrset) withTTL(ttl uint32) *rrset {
	other := *s
	other.ttl = ttl
	return &other
}

// owned is an RRset with its owner, in wire format and in the case to show.
type owned struct {
	owner string
	*rrset
	// Who signs the RRset, and under which owner in lower case: the wildcard for a record that was
	// synthesised from one (RFC 4035 section 2.2). nil means that the RRset has no signature.
	signer *signer
	source name
	random bool // a client made up source
}
