package geodns

import (
	"cmp"
	"slices"
	"unsafe"

	"github.com/miekg/dns"

	"github.com/kaiku-cdn/kaiku/geodns/dnssec"
)

// maxAdditional is the maximum number of RRsets in the additional section of a signed response,
// without their signatures. Each may need a signature.
const maxAdditional = 8

// signedAt is a name of a signed zone for which the resolver is answering.
type signedAt struct {
	zone     *Zone
	signer   *signer // nil if the zone is not signed, or the client doesn't ask for signatures
	name     name    // in lower case
	source   name    // owner of the signed records: name, or the wildcard it is synthesised from
	expanded bool    // a validator needs proof of no closer name (RFC 4035 section 3.1.3.3)
	random   bool    // a client made up source
}

// signs returns the zone's signer if the client asks for signatures, else nil.
func (z *Zone) signs(q *query) *signer {
	if !q.do {
		return nil
	}
	return z.signer
}

// enter sets r.at to the name n, for which the resolver is answering. found and at are the result
// of its lookup.
//
// An answer of a wildcard has the wildcard's signature, so that all names below it share one. The
// exception is a name below one that exists only because of a challenge. There a validator would
// find that the wildcard doesn't apply, so the name is signed as if it existed (RFC 9824).
func (r *resolver) enter(zone *Zone, n name, found outcome, at *node) {
	r.at = signedAt{}
	signer := zone.signs(r.q)
	if signer == nil {
		return
	}
	r.at = signedAt{zone: zone, signer: signer, name: n, source: n}
	switch found {
	case missing:
		r.at.random = true
	case wildcard:
		closer := n
		for len(closer.parent()) > len(at.name.parent()) {
			closer = closer.parent()
		}
		if zone.at(closer) != nil {
			r.at.random = true
			return
		}
		r.at.expanded, r.at.source = true, at.name
	default:
		r.at.source = at.name
		if found == delegation {
			r.at.name = at.name
		}
	}
}

// denialKind is a kind of NSEC record.
type denialKind int

const (
	compact denialKind = iota // at the name itself, and covers no other name (RFC 9824)
	match                     // at the wildcard that the name is synthesised from
	cover                     // proves that no name closer than the wildcard exists
)

// denial is an NSEC record to add to a response.
type denial struct {
	kind  denialKind
	owner string // of a compact denial, in the case to show
	// The node that has no record of the requested type. nil means that the name doesn't exist, or,
	// for a cover, that nothing is missing.
	at      *node
	answers bool // the record is the answer, to a query for NSEC or RRSIG
	where   signedAt
}

// deny adds an NSEC record for the name in r.at, if its zone is signed.
func (r *resolver) deny(d denial) {
	if r.at.signer != nil {
		d.where = r.at
		r.denials = append(r.denials, d)
	}
}

// secure adds NSEC records and signatures to the response. It is the last step before the response
// is packed, so that a response that the rate limit suppresses costs no signature. If the budget
// has no time for a signature, secure empties the response. Over UDP it sets TC, and the client
// retries over TCP. Over TCP the response is SERVFAIL, and the client asks another server.
func (w *worker) secure(tcp bool) {
	r := &w.resolver
	if !r.q.do || r.truncated || r.signatures == nil {
		return
	}
	if !tcp && r.exceeds(w.query.limit(false)) {
		r.empty() // the answer doesn't fit, so don't sign it
		r.truncated = true
		return
	}
	r.signing.cache, r.signing.budget = r.signatures, w.budget
	if r.signing.budget == nil {
		r.signing.budget = &r.signatures.shared
	}
	if w.server.signingFree {
		r.signing.budget = nil
	}
	if r.signing.now = w.wall; r.signing.now == 0 {
		r.signing.now = w.server.wallClock()
	}
	if !r.addSignatures() {
		w.server.metrics.unsigned.Inc()
		r.empty()
		r.served, r.allDown, r.scope = r.served[:0], false, 0
		if tcp {
			r.rcode, r.aa = dns.RcodeServerFailure, false
		} else {
			r.rcode, r.truncated = dns.RcodeSuccess, true
		}
	}
	if n := r.signing.made; n > 0 {
		w.server.metrics.signatures.Add(float64(n))
		r.signing.made = 0
	}
}

// exceeds reports whether signed records have more than limit octets of data.
func (r *resolver) exceeds(limit int) bool {
	for _, set := range r.answer {
		if set.signer == nil {
			continue
		}
		for _, data := range set.data {
			if limit -= len(data); limit < 0 {
				return true
			}
		}
	}
	return false
}

// addSignatures adds the signatures and the NSEC records. It returns false if the budget has no
// time for one of them.
func (r *resolver) addSignatures() bool {
	var ok bool
	if r.answer, ok = r.signSection(r.answer); !ok {
		return false
	}
	if r.authority, ok = r.signSection(r.authority); !ok {
		return false
	}
	for i := range r.denials {
		if !r.addDenial(&r.denials[i]) {
			return false
		}
	}
	if len(r.additional) == 0 {
		return true
	}
	return r.signAdditional()
}

// signSection returns the section with a signature after each RRset that has one. An RRset may be
// in several parts one after the other, as the addresses of several nodes are.
func (r *resolver) signSection(section []owned) ([]owned, bool) {
	out := r.section[:0]
	for i := 0; i < len(section); {
		first := &section[i]
		end := i + 1
		for end < len(section) && section[end].rrtype == first.rrtype && section[end].signer == first.signer &&
			section[end].source == first.source && section[end].owner == first.owner {
			end++
		}
		out = append(out, section[i:end]...)
		if first.signer != nil {
			sig, ok := r.sign(section[i:end])
			if !ok {
				return section, false
			}
			out = append(out, owned{owner: first.owner, rrset: &sig.set})
		}
		i = end
	}
	r.section = section // the two buffers swap
	return out, true
}

// sign returns the signature of an RRset that is in several parts.
func (r *resolver) sign(parts []owned) (*signature, bool) {
	r.signing.data = r.signing.data[:0]
	for i := range parts {
		for _, data := range parts[i].data {
			r.signing.data = append(r.signing.data, canonicalData(parts[i].rrtype, data))
		}
	}
	set := dnssec.RRset{Owner: string(parts[0].source), Type: parts[0].rrtype, TTL: parts[0].ttl}
	return r.signing.sign(parts[0].signer, set, parts[0].random)
}

// signAdditional signs the additional section. The section has only static records of the zones, so
// all clients share its signatures. signAdditional leaves out RRsets beyond maxAdditional.
func (r *resolver) signAdditional() bool {
	if !slices.ContainsFunc(r.additional, func(e extra) bool { return e.signer != nil }) {
		return true
	}
	r.additional = r.additional[:min(len(r.additional), maxAdditional)]
	for i := range r.additional {
		if set := r.additional[i]; set.signer != nil {
			sig, ok := r.sign([]owned{set.owned})
			if !ok {
				return false
			}
			r.additional = append(r.additional, extra{owned: owned{owner: set.owner, rrset: &sig.set}})
		}
	}
	return true
}

// addDenial adds an NSEC record and its signature, unless the response has them.
func (r *resolver) addDenial(d *denial) bool {
	at := &d.where
	owner, shown, here := at.name, d.owner, d.at
	b, missing := r.rdata[:0], r.q.qtype
	if d.kind == compact {
		b = dnssec.Successor(b, string(owner), string(at.zone.origin))
	} else {
		if owner = at.source; d.kind == cover {
			owner, _ = at.zone.neighbours(at.name)
		}
		if slices.ContainsFunc(r.authority,
			func(o owned) bool { return o.rrtype == dns.TypeNSEC && o.source == owner }) {
			return true
		}
		if d.at == nil || owner != at.source {
			missing = dns.TypeNone
		}
		shown, here = string(owner), at.zone.at(owner)
		_, next := at.zone.neighbours(owner)
		b = append(b, cmp.Or(next, at.zone.origin)...) // the first name follows the last one
	}
	if r.types = r.types[:0]; here != nil {
		r.types = here.types(at.zone, missing, r.types)
	} else {
		r.types = append(r.types, dns.TypeRRSIG, dns.TypeNSEC, dns.TypeNXNAME)
	}
	r.rdata = dnssec.AppendTypes(b, r.types)
	r.signing.data = append(r.signing.data[:0], unsafe.String(&r.rdata[0], len(r.rdata)))
	set := dnssec.RRset{Owner: string(owner), Type: dns.TypeNSEC, TTL: at.zone.soa.ttl}
	sig, ok := r.signing.sign(at.signer, set, at.random)
	if !ok {
		return false
	}
	section := &r.authority
	if d.answers {
		section = &r.answer
	}
	if !d.answers || r.q.qtype == dns.TypeNSEC {
		*section = append(*section, owned{owner: shown, rrset: sig.nsec, source: owner})
	}
	*section = append(*section, owned{owner: shown, rrset: &sig.set})
	return true
}
