package geodns

import (
	"net/netip"
	"slices"

	"github.com/miekg/dns"
)

// maxChain is the maximum length of a chain of CNAMEs. The answer to a longer chain has the first
// maxChain names, as if the chain left the server's zones there.
const maxChain = 16

// resolver resolves one query after the other. It keeps its buffers between queries.
type resolver struct {
	*snapshot
	q    *query
	from netip.Addr
	response

	located     location   // result of the last locate
	locatedAddr netip.Addr // its address; invalid before the first locate of a query
	place       Place      // buffer for the place of located

	options   []option
	order     []ranked
	https     httpsRecord
	ipv6Hints []*candidate // nodes in the IPv6 hints of an HTTPS record
	memo      *memo        // nil to remember nothing

	at      signedAt // the name that the resolver is answering for, if its zone is signed
	signing signing
	section []owned // buffer of secure
	rdata   []byte  // buffers of an NSEC record
	types   []uint16
}

// resolve fills in the response (RFC 1034 section 4.3.2).
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
	case r.q.qtype == dns.TypeNone || r.q.qtype == dns.TypeOPT || r.q.qtype == dns.TypeTSIG ||
		r.q.qtype == dns.TypeNXNAME:
		// Names can't have these types. For NXNAME see RFC 9824 section 3.5.
		r.rcode = dns.RcodeFormatError
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

// chase answers for the name n, and for the names that aliases lead to as long as they are in a
// zone of the server. owner is n in the case of the question, or of the alias's target. Records in
// the answer have that owner. The name of a wildcard is therefore never in an answer (RFC 4592
// section 2.2.1), and an owner in the question's case can be compressed to a pointer. The rcode and
// the authority section are those of the last name (RFC 6604 section 3). AA is about the first
// name.
func (r *resolver) chase(zone *Zone, n name, owner string) {
	seen := make([]name, 0, 4)
	for zone != nil && len(seen) < maxChain && !slices.Contains(seen, n) {
		seen = append(seen, n)
		found, at := zone.lookup(n, r.q.qtype == dns.TypeDS)
		if len(seen) == 1 && at != nil {
			r.subject = at.name
		}
		r.enter(zone, n, found, at)
		var next string
		switch found {
		case missing:
			r.missing(zone, owner)
		case delegation:
			r.refer(zone, at)
			r.aa = len(seen) > 1
		case redirect:
			next = r.redirect(at, n, owner)
		default:
			answered := len(r.answer)
			next = r.data(zone, at, owner)
			if r.at.expanded && len(r.answer) > answered {
				r.deny(denial{kind: cover})
			}
		}
		if next == "" {
			return
		}
		n, owner = lowerName([]byte(next)), next
		zone = r.zoneFor(n, r.q.qtype == dns.TypeDS)
	}
}

// data answers from the node that matched owner, which may be a wildcard. If the node has an alias
// to follow, data returns its target, else "".
func (r *resolver) data(zone *Zone, at *node, owner string) (next string) {
	qtype := r.q.qtype
	if r.at.signer != nil && (qtype == dns.TypeNSEC || qtype == dns.TypeRRSIG) {
		r.deny(denial{kind: compact, owner: owner, at: at, answers: true})
		return ""
	}
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
	if at.edge != nil && at.set(qtype) == nil &&
		(qtype == dns.TypeA || qtype == dns.TypeAAAA || qtype == dns.TypeHTTPS) && r.edge(at.edge, owner) {
		return ""
	}
	if set := at.set(qtype); set != nil {
		r.add(owner, set)
		r.addresses(set)
		return ""
	}
	r.noData(zone, at, owner)
	return ""
}

// missing answers for a name that doesn't exist.
func (r *resolver) missing(zone *Zone, owner string) {
	signed := r.at.signer != nil
	if signed && (r.q.qtype == dns.TypeNSEC || r.q.qtype == dns.TypeRRSIG) {
		r.deny(denial{kind: compact, owner: owner, answers: true})
		return
	}
	if !signed || r.q.co {
		r.rcode = dns.RcodeNameError
	}
	r.authority = append(r.authority, r.negativeSOA(zone))
	r.deny(denial{kind: compact, owner: owner})
}

// noData answers for a name that has no record of the type.
func (r *resolver) noData(zone *Zone, at *node, owner string) {
	r.authority = append(r.authority, r.negativeSOA(zone))
	if r.at.expanded {
		r.deny(denial{kind: match, at: at})
		r.deny(denial{kind: cover, at: at})
		return
	}
	r.deny(denial{kind: compact, owner: owner, at: at})
}

// negativeSOA returns the SOA record of a negative answer.
func (r *resolver) negativeSOA(zone *Zone) owned {
	soa := zone.soa
	soa.signer = r.at.signer
	return soa
}

// own returns set as an RRset of owner. It copies from r.at what the signature of the RRset needs.
func (r *resolver) own(owner string, set *rrset) owned {
	return owned{owner: owner, rrset: set, signer: r.at.signer, source: r.at.source, random: r.at.random}
}

// add adds an RRset to the answer, unless the answer has it already. A response has each RRset once
// (RFC 2181 section 5), even if a chain comes to it again.
func (r *resolver) add(owner string, set *rrset) {
	for _, old := range r.answer {
		if old.rrset == set && lowerName([]byte(old.owner)) == lowerName([]byte(owner)) {
			return
		}
	}
	r.answer = append(r.answer, r.own(owner, set))
}

// any answers ANY with the HINFO record of RFC 8482 section 4.2. If the name has HINFO records of
// its own, any answers with those.
func (r *resolver) any(at *node, owner string) {
	if set := at.set(dns.TypeHINFO); set != nil {
		r.answer = append(r.answer, r.own(owner, set))
		return
	}
	r.answer = append(r.answer, r.own(owner, &rrset{
		rrtype: dns.TypeHINFO, ttl: 3600, data: []string{"\x07RFC8482\x00"},
	}))
}

// redirect answers a name below a DNAME, with the DNAME and the CNAME that is synthesized from it
// (RFC 6672 section 3.1). It returns the CNAME's target to follow, or "".
func (r *resolver) redirect(at *node, n name, owner string) (next string) {
	dname := at.set(dns.TypeDNAME)
	r.add(at.owner, dname)
	// Keep the labels below the DNAME. Names of different case have the same length.
	next = owner[:len(n)-len(at.name)] + dname.data[0]
	if len(next) > maxName {
		r.rcode = dns.RcodeYXDomain // RFC 6672 section 2.2
		return ""
	}
	// Validators make this record themselves. It has no signature (RFC 6672 section 5.3.1).
	r.answer = append(r.answer, owned{owner: owner, rrset: &rrset{
		rrtype: dns.TypeCNAME, ttl: dname.ttl, data: []string{next},
	}})
	if r.q.qtype == dns.TypeCNAME {
		return ""
	}
	return next
}

// refer answers with a referral: the NS records of the zone cut, and all addresses that the zone
// has of their hosts.
func (r *resolver) refer(zone *Zone, cut *node) {
	ns := cut.set(dns.TypeNS)
	r.authority = append(r.authority, owned{owner: cut.owner, rrset: ns}) // the child signs it
	if ds := cut.set(dns.TypeDS); ds != nil && r.at.signer != nil {
		r.authority = append(r.authority, r.own(cut.owner, ds))
	} else {
		r.deny(denial{kind: compact, owner: cut.owner, at: cut})
	}
	// Required glue comes first, so that it is left out last.
	for _, required := range []bool{true, false} {
		for i := range ns.data {
			if target := ns.target(i); target.within(cut.name) == required {
				r.host(zone.nodes[target], nil, required)
			}
		}
	}
}

// addresses adds the addresses of the hosts that the records of an answer refer to.
func (r *resolver) addresses(set *rrset) {
	for i := range set.data {
		target := set.target(i)
		if target == "" {
			return // the type doesn't refer to hosts
		}
		if target.isRoot() {
			continue // the root is not a host
		}
		zone := r.zoneFor(target, false)
		if zone == nil {
			continue
		}
		switch found, at := zone.lookup(target, false); found {
		case exact:
			r.host(at, zone.signs(r.q), false)
		case delegation:
			r.host(zone.nodes[target], nil, false) // glue
		}
	}
}

// host adds a node's static addresses to the additional section. It never adds addresses of an edge
// name: they are chosen for one client, but this answer may have scope 0, and resolvers would cache
// them for others. signer is nil for glue, which is never signed.
func (r *resolver) host(at *node, signer *signer, required bool) {
	if at == nil {
		return
	}
	for _, family := range []uint16{dns.TypeA, dns.TypeAAAA} {
		set := at.set(family)
		if set == nil || slices.ContainsFunc(r.additional, func(e extra) bool { return e.rrset == set }) {
			continue
		}
		r.additional = append(r.additional, extra{
			owned{owner: at.owner, rrset: set, signer: signer, source: at.name}, required})
	}
}
