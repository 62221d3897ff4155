package geodns

import (
	"fmt"

	"github.com/miekg/dns"
)

// rrset is the records of one type at one name, in the form that they are sent in. It does not change.
type rrset struct {
	rrtype  uint16
	ttl     uint32 // one for all (RFC 2181 section 5.2)
	line    int32  // of the first record in the zone file
	data    []rdata
	targets []name // of NS, MX and SRV: hosts whose addresses go into the additional section
	alias   name   // of CNAME and DNAME
}

// rdata is the data of a record, cut where there are names that may be compressed.
type rdata []part

// part is octets, or a name in wire form in the case that it was written in.
type part struct {
	text   string
	isName bool
}

// newRRset converts records of one type and owner, which dns.PackRR can pack. The TTL is the lowest of theirs.
func newRRset(rrs []dns.RR) (*rrset, error) {
	set := &rrset{rrtype: rrs[0].Header().Rrtype, ttl: rrs[0].Header().Ttl}
	for _, rr := range rrs {
		set.ttl = min(set.ttl, rr.Header().Ttl)
		buf := make([]byte, dns.Len(rr)+16) // Len is a bound, but for a few types it is one too low
		end, err := dns.PackRR(rr, buf, 0, nil, false)
		if err != nil {
			return nil, fmt.Errorf("pack %v: %w", rr.Header(), err)
		}
		owner, err := skipName(buf, 0, false)
		if err != nil {
			return nil, fmt.Errorf("pack %v: %w", rr.Header(), err)
		}
		data := string(buf[owner+10 : end])
		set.data = append(set.data, split(set.rrtype, data))
		set.refer(data)
	}
	return set, nil
}

// split finds the names. Only those of RFC 1035 may be compressed (RFC 3597 section 4).
func split(rrtype uint16, data string) rdata {
	switch rrtype {
	case dns.TypeNS, dns.TypeCNAME, dns.TypePTR:
		return rdata{{data, true}}
	case dns.TypeMX:
		return rdata{{data[:2], false}, {data[2:], true}}
	case dns.TypeSOA:
		end, err := skipName([]byte(data), 0, false)
		if err == nil {
			return rdata{{data[:end], true}, {data[end : len(data)-20], true}, {data[len(data)-20:], false}}
		}
	}
	return rdata{{data, false}}
}

// refer notes the names that an answer goes on with.
func (s *rrset) refer(data string) {
	at := 0
	switch s.rrtype {
	case dns.TypeMX:
		at = 2
	case dns.TypeSRV:
		at = 6
	case dns.TypeNS:
	case dns.TypeCNAME, dns.TypeDNAME:
		s.alias = lowerName([]byte(data))
		return
	default:
		return
	}
	if target := lowerName([]byte(data[at:])); !target.isRoot() {
		s.targets = append(s.targets, target)
	}
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
