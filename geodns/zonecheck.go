package geodns

import (
	"cmp"
	"fmt"
	"slices"
	"unsafe"

	"github.com/miekg/dns"
)

// maxSet is the most that an RRset may take: with room for a question and an OPT it must fit a
// message over TCP.
const maxSet = 60000

// record is one of an entry: its owner in wire form, also in lower case, and its data in wire form.
// Their bytes are used again for the next.
type record struct {
	owner, lower []byte
	rrtype       uint16
	ttl          uint32
	data         []byte
}

// add puts a record into its RRset, if it may stand there beside what came before it.
func (p *zoneParser) add(e *entry, rr record) bool {
	owner, rrtype := name(unsafe.String(&rr.lower[0], len(rr.lower))), rr.rrtype
	fail := func(format string, args ...any) bool {
		p.failAt(e, fmt.Sprintf(format, args...))
		return false
	}
	switch {
	case !owner.within(p.zone.origin):
		return fail("%s is outside of the zone %s", name(rr.owner), p.zone.origin)
	case rrtype == dns.TypeNone, rrtype == dns.TypeOPT, rrtype >= 128 && rrtype <= 255:
		return fail("%s is not a type of data", dns.Type(rrtype)) // RFC 6895 section 3.1
	case rrtype == dns.TypeSOA && owner != p.zone.origin:
		return fail("SOA at %s: the zone is %s", name(rr.owner), p.zone.origin)
	case owner.isWildcard() && (rrtype == dns.TypeNS || rrtype == dns.TypeDNAME):
		return fail("%s at a wildcard: RFC 4592 section 4 gives it no meaning", dns.Type(rrtype))
	}
	at := p.node(owner)
	set := at.set(rrtype)
	if set == nil {
		if other := at.conflict(p.zone, rrtype); other != nil {
			return fail("%s beside the %s of %s at %s", dns.Type(rrtype), dns.Type(other.rrtype), p.where(other.line, e), owner)
		}
		set = p.newSet(at, rrtype, rr.ttl, e.line)
	} else if rrtype == dns.TypeSOA || rrtype == dns.TypeCNAME || rrtype == dns.TypeDNAME {
		return fail("a second %s at %s; the first is on %s", dns.Type(rrtype), name(rr.owner), p.where(set.line, e))
	}
	if p.duplicate(at, set, rr.data) {
		return true // RFC 2181 section 5: suppressed
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
		at.owner = p.space.keep(rr.owner)
	}
	p.dnames = p.dnames || rrtype == dns.TypeDNAME
	if rrtype == dns.TypeNS && at == p.zone.apex {
		p.zone.nsLines = append(p.zone.nsLines, int32(e.line))
	}
	return true
}

// where tells of a line, and of its file if that is another than the entry's.
func (p *zoneParser) where(line int32, e *entry) string {
	f := fileAt(p.files, int(line))
	at := fmt.Sprintf("line %d", int(line)-f.first+1)
	if f != fileAt(p.files, e.line) {
		at += " of " + f.name
	}
	return at
}

// manyRecords is from how many records of a set on they are looked up by their data.
const manyRecords = 32

// manyOf is a set of so many.
type manyOf struct {
	at     *node
	rrtype uint16
}

// duplicate reports whether a set has a record already, names compared without case.
func (p *zoneParser) duplicate(at *node, set *rrset, data []byte) bool {
	n := len(set.data)
	if n == 0 {
		return false
	}
	key := canonical(set.rrtype, data)
	if n < manyRecords {
		return slices.ContainsFunc(set.data, func(old string) bool {
			return len(old) == len(data) && canonical(set.rrtype, []byte(old)) == key
		})
	}
	of := manyOf{at, set.rrtype}
	seen := p.many[of]
	if seen == nil {
		seen = make(map[string]bool)
		for _, old := range set.data {
			seen[canonical(set.rrtype, []byte(old))] = true
		}
		if p.many == nil {
			p.many = make(map[manyOf]map[string]bool)
		}
		p.many[of] = seen
	}
	was := seen[key]
	seen[key] = true
	return was
}

// canonical is data with the names in it in lower case (RFC 4034 section 6.2), so far as that is
// told without reading all of it.
func canonical(rrtype uint16, data []byte) string {
	from, to := 0, len(data)
	switch rrtype {
	case dns.TypeNS, dns.TypeCNAME, dns.TypePTR, dns.TypeDNAME, dns.TypeRP, dns.TypeMINFO, dns.TypeMB, dns.TypeMG, dns.TypeMR:
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

// conflict finds what a type may not stand beside: a CNAME stands alone (RFC 1034 section 3.6.2),
// but for what DNSSEC puts there (RFC 4034 section 3 and 4), and a DNAME is at no zone cut (RFC
// 6672 section 2.3).
func (at *node) conflict(z *Zone, rrtype uint16) *rrset {
	for i := range at.sets {
		other := at.sets[i].rrtype
		if dnssec(rrtype) || dnssec(other) {
			continue
		}
		cut := rrtype == dns.TypeNS && other == dns.TypeDNAME || rrtype == dns.TypeDNAME && other == dns.TypeNS
		if rrtype == dns.TypeCNAME || other == dns.TypeCNAME || cut && at != z.apex {
			return &at.sets[i]
		}
	}
	return nil
}

func dnssec(rrtype uint16) bool {
	return rrtype == dns.TypeRRSIG || rrtype == dns.TypeNSEC || rrtype == dns.TypeKEY
}

// check looks at the zone as a whole. What is missing is not told of a file that did not all parse.
func (p *zoneParser) check() {
	if p.dnames {
		p.checkBelow()
	}
	if p.broken {
		return
	}
	if p.zone.apex.set(dns.TypeSOA) == nil {
		p.fail(1, 1, fmt.Sprintf("no SOA at %s; add: @ 3600 IN SOA ns1 hostmaster 1 14400 3600 1209600 300", p.zone.origin))
	}
	if p.zone.apex.set(dns.TypeNS) == nil {
		p.fail(1, 1, fmt.Sprintf("no NS at %s; add a line for each name server, with its A or AAAA record: @ 3600 IN NS ns1", p.zone.origin))
	}
}

// checkBelow finds data below a DNAME (RFC 6672 section 2.4).
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
