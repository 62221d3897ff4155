package geodns

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/miekg/dns"
)

// maxSet is the most that an RRset may take: with room for a question and an OPT it must fit a message over TCP.
const maxSet = 60000

// draft is an RRset while it is read.
type draft struct {
	owner string // in wire form, as the file writes it
	rrs   []dns.RR
	lines []int // of rrs
	size  int   // in octets, uncompressed
}

// wireOwner gives a name in wire form, its case kept.
func wireOwner(presentation string) string {
	var wire [maxName + 1]byte
	n, err := dns.PackDomainName(presentation, wire[:], 0, nil, false)
	if err != nil {
		return "\x00" // not after rewire
	}
	return string(wire[:n])
}

// add puts a record into its RRset, if it may stand there beside what came before it.
func (p *zoneParser) add(e *entry, rr dns.RR) bool {
	h := rr.Header()
	owner, err := nameOf(h.Name)
	if err != nil {
		p.failAt(e, err.Error())
		return false
	}
	rrtype := h.Rrtype
	switch {
	case !owner.within(p.zone):
		p.failAt(e, fmt.Sprintf("%s is outside of the zone %s", h.Name, p.zone))
		return false
	case rrtype == dns.TypeNone, rrtype == dns.TypeOPT, rrtype >= 128 && rrtype <= 255:
		p.failAt(e, fmt.Sprintf("%s is not a type of data", dns.Type(rrtype))) // RFC 6895 section 3.1
		return false
	case rrtype == dns.TypeSOA && owner != p.zone:
		p.failAt(e, fmt.Sprintf("SOA at %s: the zone is %s", h.Name, p.zone))
		return false
	case owner.isWildcard() && (rrtype == dns.TypeNS || rrtype == dns.TypeDNAME):
		p.failAt(e, fmt.Sprintf("%s at a wildcard: RFC 4592 section 4 gives it no meaning", dns.Type(rrtype)))
		return false
	}
	sets := p.sets[owner]
	if sets == nil {
		sets = make(map[uint16]*draft)
		p.sets[owner], p.placed[owner] = sets, make(map[uint16]*entry)
	}
	set := sets[rrtype]
	if set == nil {
		if msg := p.conflict(owner, rrtype); msg != "" {
			p.failAt(e, msg)
			return false
		}
		set = &draft{owner: wireOwner(h.Name)}
		sets[rrtype], p.placed[owner][rrtype] = set, e
	}
	if single := rrtype == dns.TypeSOA || rrtype == dns.TypeCNAME || rrtype == dns.TypeDNAME; single && len(set.rrs) > 0 {
		p.failAt(e, fmt.Sprintf("a second %s at %s; the first is on line %d",
			dns.Type(rrtype), h.Name, p.placed[owner][rrtype].line))
		return false
	}
	if slices.ContainsFunc(set.rrs, func(old dns.RR) bool { return dns.IsDuplicate(old, rr) }) {
		return true // RFC 2181 section 5: suppressed
	}
	if set.size += dns.Len(rr); set.size > maxSet {
		p.failAt(e, fmt.Sprintf("the %s records at %s do not fit into a message", dns.Type(rrtype), h.Name))
		return false
	}
	set.rrs, set.lines = append(set.rrs, rr), append(set.lines, e.line)
	return true
}

// conflict tells why a type may not stand beside those that its owner has: a CNAME stands alone (RFC 1034 section 3.6.2), but
// for what DNSSEC puts there (RFC 4034 section 3 and 4), and a DNAME is at no zone cut (RFC 6672 section 2.3).
func (p *zoneParser) conflict(owner name, rrtype uint16) string {
	for other, e := range p.placed[owner] {
		if dnssec(rrtype) || dnssec(other) {
			continue
		}
		cut := rrtype == dns.TypeNS && other == dns.TypeDNAME || rrtype == dns.TypeDNAME && other == dns.TypeNS
		if rrtype == dns.TypeCNAME || other == dns.TypeCNAME || cut && owner != p.zone {
			return fmt.Sprintf("%s beside the %s of line %d at %s",
				dns.Type(rrtype), dns.Type(other), e.line, owner)
		}
	}
	return ""
}

func dnssec(rrtype uint16) bool {
	return rrtype == dns.TypeRRSIG || rrtype == dns.TypeNSEC || rrtype == dns.TypeKEY
}

// check looks at the zone as a whole. What is missing is not told of a file that did not all parse.
func (p *zoneParser) check() {
	for owner, placed := range p.placed {
		for n := owner; n != p.zone && len(placed) > 0; {
			n = n.parent()
			if dname := p.placed[n][dns.TypeDNAME]; dname != nil {
				e := first(placed)
				p.failAt(e, fmt.Sprintf("%s is below the DNAME of line %d", owner, dname.line)) // RFC 6672 section 2.4
				break
			}
		}
	}
	if p.broken {
		return
	}
	if p.sets[p.zone][dns.TypeSOA] == nil {
		p.fail(1, 1, fmt.Sprintf("no SOA at %s; add: @ 3600 IN SOA ns1 hostmaster 1 14400 3600 1209600 300", p.zone))
	}
	if p.sets[p.zone][dns.TypeNS] == nil {
		p.fail(1, 1, fmt.Sprintf("no NS at %s; add a line for each name server, with its A or AAAA record: @ 3600 IN NS ns1", p.zone))
	}
}

// first is the entry that comes first in the file.
func first(placed map[uint16]*entry) (e *entry) {
	for _, other := range placed {
		if e == nil || other.line < e.line {
			e = other
		}
	}
	return e
}

func (p *zoneParser) sortErrors() {
	slices.SortStableFunc(p.errs, func(a, b ZoneError) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col), cmp.Compare(a.Msg, b.Msg))
	})
	p.errs = p.errs[:min(len(p.errs), maxErrors)]
}
