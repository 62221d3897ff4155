package geodns

import (
	"cmp"
	"fmt"
	"slices"
	"unsafe"

	"github.com/miekg/dns"
)

// maxSet is the maximum size of an RRset in octets. With a question and an OPT record it must fit
// into a message over TCP.
const maxSet = 60000

// record is a record of an entry. owner is in wire format, and lower is owner in lower case. data
// is in wire format. The next record reuses their bytes.
type record struct {
	owner, lower []byte
	rrtype       uint16
	ttl          uint32
	data         []byte
}

// add adds a record to its RRset. It fails if the record is not allowed there, or not allowed
// beside earlier records.
func (p *zoneParser) add(e *entry, rr record) bool {
	owner, rrtype := name(unsafe.String(&rr.lower[0], len(rr.lower))), rr.rrtype
	fail := func(format string, args ...any) bool {
		p.failAt(e, fmt.Sprintf(format, args...))
		return false
	}
	switch {
	case !owner.within(p.zone.origin):
		return fail("%s is outside the zone %s", name(rr.owner), p.zone.origin)
	case rrtype == dns.TypeNone, rrtype == dns.TypeOPT, rrtype >= 128 && rrtype <= 255:
		return fail("%s is not a type of data", dns.Type(rrtype)) // RFC 6895 section 3.1
	case rrtype == dns.TypeSOA && owner != p.zone.origin:
		return fail("SOA at %s, but the zone is %s", name(rr.owner), p.zone.origin)
	case owner.isWildcard() && (rrtype == dns.TypeNS || rrtype == dns.TypeDNAME):
		return fail("%s at a wildcard: RFC 4592 section 4 gives it no meaning", dns.Type(rrtype))
	}
	at := p.node(owner)
	set := at.set(rrtype)
	if set == nil {
		if other := at.conflict(p.zone, rrtype); other != nil {
			return fail("%s beside the %s of %s at %s", dns.Type(rrtype), dns.Type(other.rrtype),
				p.where(other.line, e), owner)
		}
		set = p.newSet(at, rrtype, rr.ttl, e.line)
	} else if rrtype == dns.TypeSOA || rrtype == dns.TypeCNAME || rrtype == dns.TypeDNAME {
		return fail("a second %s at %s; the first is on %s", dns.Type(rrtype), name(rr.owner), p.where(set.line, e))
	}
	if p.duplicate(at, set, rr.data) {
		return true // duplicates are dropped (RFC 2181 section 5)
	}
	set.ttl = min(set.ttl, rr.ttl)
	if set.size += uint32(len(rr.owner) + 10 + len(rr.data)); set.size > maxSet {
		return fail("the %s records at %s do not fit into a message", dns.Type(rrtype), name(rr.owner))
	}
	p.put(set, rr.data)
	switch {
	case at.owner != "":
	case string(rr.owner) == string(at.name):
		at.owner = string(at.name)
	default:
		at.owner = p.arena.keep(rr.owner)
	}
	p.dnames = p.dnames || rrtype == dns.TypeDNAME
	if rrtype == dns.TypeNS && at == p.zone.apex {
		p.zone.nsLines = append(p.zone.nsLines, int32(e.line))
	}
	return true
}

// where describes a line for a message. It adds the file if that is not the entry's file.
func (p *zoneParser) where(line int32, e *entry) string {
	f := fileAt(p.files, int(line))
	at := fmt.Sprintf("line %d", int(line)-f.first+1)
	if f != fileAt(p.files, e.line) {
		at += " of " + f.name
	}
	return at
}

// indexThreshold is the number of records from which on a set has an index of their data.
const indexThreshold = 32

// setKey identifies an RRset.
type setKey struct {
	at     *node
	rrtype uint16
}

// duplicate reports whether the RRset has the record already. Names are compared without regard to
// case.
func (p *zoneParser) duplicate(at *node, set *rrset, data []byte) bool {
	n := len(set.data)
	if n == 0 {
		return false
	}
	key := canonical(set.rrtype, data)
	if n < indexThreshold {
		return slices.ContainsFunc(set.data, func(old string) bool {
			return len(old) == len(data) && canonical(set.rrtype, []byte(old)) == key
		})
	}
	id := setKey{at, set.rrtype}
	seen := p.indexes[id]
	if seen == nil {
		seen = make(map[string]bool)
		for _, old := range set.data {
			seen[canonical(set.rrtype, []byte(old))] = true
		}
		if p.indexes == nil {
			p.indexes = make(map[setKey]map[string]bool)
		}
		p.indexes[id] = seen
	}
	was := seen[key]
	seen[key] = true
	return was
}

// canonical returns rdata with its names in lower case (RFC 4034 section 6.2). It covers the types
// whose names can be found without parsing all of the rdata.
func canonical(rrtype uint16, data []byte) string {
	from, to := 0, len(data)
	switch rrtype {
	case dns.TypeNS, dns.TypeCNAME, dns.TypePTR, dns.TypeDNAME, dns.TypeRP, dns.TypeMINFO, dns.TypeMB, dns.TypeMG,
		dns.TypeMR:
	case dns.TypeMX, dns.TypeAFSDB, dns.TypeRT, dns.TypeKX:
		from = 2
	case dns.TypeSRV:
		from = 6
	case dns.TypeSVCB, dns.TypeHTTPS:
		from = 2
		to = from + nameLen(string(data[from:]))
	default:
		return string(data)
	}
	same := []byte(string(data))
	toLower(same[min(from, to):to])
	return string(same)
}

// conflict returns an RRset of the node that must not be beside a type, or nil. A CNAME must be
// alone (RFC 1034 section 3.6.2), except for DNSSEC records (RFC 4034 sections 3 and 4). A DNAME
// must not be at a zone cut (RFC 6672 section 2.3).
func (at *node) conflict(z *Zone, rrtype uint16) *rrset {
	for i := range at.sets {
		other := at.sets[i].rrtype
		if besideCNAME(rrtype) || besideCNAME(other) {
			continue
		}
		cut := rrtype == dns.TypeNS && other == dns.TypeDNAME || rrtype == dns.TypeDNAME && other == dns.TypeNS
		if rrtype == dns.TypeCNAME || other == dns.TypeCNAME || cut && at != z.apex {
			return &at.sets[i]
		}
	}
	return nil
}

func besideCNAME(rrtype uint16) bool {
	return rrtype == dns.TypeRRSIG || rrtype == dns.TypeNSEC || rrtype == dns.TypeKEY
}

// check checks the zone as a whole. If an entry didn't parse, check doesn't report missing records,
// because the entry may have them.
func (p *zoneParser) check() {
	if p.dnames {
		p.checkBelow()
	}
	if p.broken {
		return
	}
	if p.zone.apex.set(dns.TypeSOA) == nil {
		p.fail(1, 1, fmt.Sprintf("no SOA at %s; add: @ 3600 IN SOA ns1 hostmaster 1 14400 3600 1209600 300",
			p.zone.origin))
	}
	if p.zone.apex.set(dns.TypeNS) == nil {
		p.fail(1, 1, fmt.Sprintf("no NS at %s; add a line for each name server, with its A or AAAA record: @ 3600 IN NS ns1", p.zone.origin))
	}
}

// checkBelow reports names with records below a DNAME (RFC 6672 section 2.4).
func (p *zoneParser) checkBelow() {
	for owner, at := range p.zone.nodes {
		for n := owner; n != p.zone.origin && len(at.sets) > 0; {
			n = n.parent()
			dname := p.zone.nodes[n].set(dns.TypeDNAME)
			if dname == nil {
				continue
			}
			first := slices.MinFunc(at.sets, func(a, b rrset) int { return cmp.Compare(a.line, b.line) })
			e := &entry{line: int(first.line)}
			p.failAt(e, fmt.Sprintf("%s is below the DNAME of %s", owner, p.where(dname.line, e)))
			break
		}
	}
}
