package geodns

import (
	"net/netip"
	"slices"

	"github.com/miekg/dns"
)

// maxChain bounds a chain of CNAMEs; what was found of a longer one is given, as for one that
// leaves our zones.
const maxChain = 16

// resolver is the work on one query, with what is kept for the next one's.
type resolver struct {
	*snapshot
	q    *query
	from netip.Addr
	response

	place   Place // space for the client's
	options []option
	order   []ranked
	https   httpsRecord
	hintSix []*candidate // whose addresses of IPv6 an HTTPS record has
	memo    *memo        // nil remembers nothing
}

// resolve fills the response (RFC 1034 section 4.3.2).
func (r *resolver) resolve() {
	switch {
	case r.q.qclass != dns.ClassINET:
		r.rcode = dns.RcodeRefused
		return
	case r.q.qtype == dns.TypeAXFR || r.q.qtype == dns.TypeIXFR:
		r.rcode = dns.RcodeRefused
		return
	case r.q.qtype == dns.TypeMAILB || r.q.qtype == dns.TypeMAILA:
		r.rcode = dns.RcodeNotImplemented
		return
	case r.q.qtype == dns.TypeNone || r.q.qtype == dns.TypeOPT || r.q.qtype == dns.TypeTSIG || r.q.qtype == dns.TypeNXNAME:
		r.rcode = dns.RcodeFormatError // no type that a name can have; NXNAME: RFC 9824 section 3.5
		return
	}
	zone := r.zoneFor(r.q.qname, r.q.qtype == dns.TypeDS)
	if zone == nil {
		r.rcode = dns.RcodeRefused
		return
	}
	r.aa, r.zone = true, zone
	r.chase(zone, r.q.qname, r.q.owner())
}

// chase answers for a name, given also as owner in the case that it is shown in, and for the names
// that aliases lead to, as long as they are in a zone of ours. The owner of an answer is the name
// that was asked for: that of a wildcard is never shown (RFC 4592 section 2.2.1), and one in the
// case of the question compresses to a pointer at it. Rcode and authority are those of the last one
// (RFC 6604 section 3), AA is about the first.
func (r *resolver) chase(zone *Zone, n name, owner string) {
	seen := make([]name, 0, 4)
	for zone != nil && len(seen) < maxChain && !slices.Contains(seen, n) {
		seen = append(seen, n)
		found, at := zone.lookup(n, r.q.qtype == dns.TypeDS)
		if len(seen) == 1 && at != nil {
			r.subject = at.name
		}
		var next string
		switch found {
		case missing:
			r.rcode = dns.RcodeNameError
			r.authority = append(r.authority, zone.soa)
		case delegation:
			r.refer(zone, at)
			r.aa = len(seen) > 1
		case redirect:
			next = r.redirect(at, n, owner)
		default:
			next = r.data(zone, at, owner)
		}
		if next == "" {
			return
		}
		n, owner = lowerName([]byte(next)), next
		zone = r.zoneFor(n, r.q.qtype == dns.TypeDS)
	}
}

// data answers from a node, whose name or wildcard matched owner. It returns the name to go on
// with, if there is an alias.
func (r *resolver) data(zone *Zone, at *node, owner string) (next string) {
	qtype := r.q.qtype
	if alias := at.set(dns.TypeCNAME); alias != nil {
		r.add(owner, alias)
		// ANY matches the CNAME itself (RFC 1034 section 3.6.2).
		if qtype == dns.TypeCNAME || qtype == dns.TypeANY {
			return ""
		}
		return alias.data[0]
	}
	if qtype == dns.TypeANY && (len(at.sets) > 0 || at.edge != nil) {
		r.any(at, owner)
		return ""
	}
	if at.edge != nil && at.set(qtype) == nil && (qtype == dns.TypeA || qtype == dns.TypeAAAA || qtype == dns.TypeHTTPS) && r.edge(at.edge, owner) {
		return ""
	}
	if set := at.set(qtype); set != nil {
		r.add(owner, set)
		r.addresses(set)
		return ""
	}
	r.authority = append(r.authority, zone.soa)
	return ""
}

// add adds an RRset to the answer, unless a chain has come to it before: a response has an RRset
// once (RFC 2181 section 5).
func (r *resolver) add(owner string, set *rrset) {
	for _, have := range r.answer {
		if have.rrset == set && lowerName([]byte(have.owner)) == lowerName([]byte(owner)) {
			return
		}
	}
	r.answer = append(r.answer, owned{owner, set})
}

// any gives the HINFO of RFC 8482 section 4.2, unless the name has one of its own.
func (r *resolver) any(at *node, owner string) {
	if set := at.set(dns.TypeHINFO); set != nil {
		r.answer = append(r.answer, owned{owner, set})
		return
	}
	r.answer = append(r.answer, owned{owner, &rrset{
		rrtype: dns.TypeHINFO, ttl: 3600, data: []string{"\x07RFC8482\x00"},
	}})
}

// redirect answers from a DNAME above the name: the DNAME, and a CNAME made from it (RFC 6672
// section 3.1).
func (r *resolver) redirect(at *node, n name, owner string) (next string) {
	dname := at.set(dns.TypeDNAME)
	r.add(at.owner, dname)
	// What of the name lies below the DNAME stays; lower case or not, a name has one length.
	next = owner[:len(n)-len(at.name)] + dname.data[0]
	if len(next) > maxName {
		r.rcode = dns.RcodeYXDomain // section 2.2
		return ""
	}
	r.answer = append(r.answer, owned{owner, &rrset{
		rrtype: dns.TypeCNAME, ttl: dname.ttl, data: []string{next},
	}})
	if r.q.qtype == dns.TypeCNAME {
		return ""
	}
	return next
}

// refer points at the servers of a zone cut, with every address of theirs that the zone has.
func (r *resolver) refer(zone *Zone, cut *node) {
	ns := cut.set(dns.TypeNS)
	r.authority = append(r.authority, owned{cut.owner, ns})
	// Required glue goes first, so that it is not what is left out.
	for _, required := range []bool{true, false} {
		for i := range ns.data {
			if target := ns.target(i); target.within(cut.name) == required {
				r.host(zone.nodes[target], required)
			}
		}
	}
}

// addresses adds the addresses of the hosts that an answer names.
func (r *resolver) addresses(set *rrset) {
	for i := range set.data {
		target := set.target(i)
		if target == "" {
			return // no type that names hosts
		}
		if target.isRoot() {
			continue // no host
		}
		zone := r.zoneFor(target, false)
		if zone == nil {
			continue
		}
		switch found, at := zone.lookup(target, false); found {
		case exact:
			r.host(at, false)
		case delegation:
			r.host(zone.nodes[target], false) // glue
		}
	}
}

// host adds the static addresses of a node. An edge name has none: an address that is chosen for a
// client must not be cached for others, and the scope of this answer may be 0.
func (r *resolver) host(at *node, required bool) {
	if at == nil {
		return
	}
	for _, family := range []uint16{dns.TypeA, dns.TypeAAAA} {
		set := at.set(family)
		if set == nil || slices.ContainsFunc(r.additional, func(e extra) bool { return e.rrset == set }) {
			continue
		}
		r.additional = append(r.additional, extra{owned{at.owner, set}, required})
	}
}
