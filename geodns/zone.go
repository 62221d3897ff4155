package geodns

import (
	"encoding/binary"

	"github.com/miekg/dns"
)

// Zone is the static data of a zone, as ParseZone made it. It does not change.
type Zone struct {
	origin name
	apex   *node
	nodes  map[name]*node // every name with data, and every empty non-terminal above one
	soa    owned          // for negative answers: the SOA with the TTL of RFC 2308 section 5

	nsLines []int // in the zone file, of the apex's NS records, in the order of their targets

	challenges map[name]*node // in place of those of nodes, or beside them; nil without challenges
}

// Name is the zone's name, with the dot at its end, in lower case.
func (z *Zone) Name() string { return z.origin.String() }

// serial is that of the SOA, or 0 without one.
func (z *Zone) serial() uint32 {
	soa := z.apex.sets[dns.TypeSOA]
	if soa == nil {
		return 0
	}
	fixed := soa.data[0][len(soa.data[0])-1].text // five numbers after the two names, of which this is the first (RFC 1035 section 3.3.13)
	return binary.BigEndian.Uint32([]byte(fixed[:4]))
}

// node is a name of a zone.
type node struct {
	name  name
	owner string            // the name as the file writes it, where it has data
	sets  map[uint16]*rrset // nil in an empty non-terminal
	wild  *node             // "*" below this name: the source of synthesis of RFC 4592 section 3.3.1
	edge  *edge

	covered *node // the wildcard that answers for this name, which is there for a challenge below it alone; else nil
}

// newZone makes a tree of records, which have been checked.
func newZone(origin name, drafts map[name]map[uint16]*draft) (*Zone, error) {
	z := &Zone{origin: origin, nodes: make(map[name]*node, len(drafts))}
	z.apex = z.node(origin)
	for owner, byType := range drafts {
		at := z.node(owner)
		at.sets = make(map[uint16]*rrset, len(byType))
		for rrtype, draft := range byType {
			set, err := newRRset(draft.rrs)
			if err != nil {
				return nil, err
			}
			set.line = int32(draft.lines[0])
			at.sets[rrtype], at.owner = set, draft.owner
		}
	}
	if ns := drafts[origin][dns.TypeNS]; ns != nil {
		for i, rr := range ns.rrs {
			if rr.(*dns.NS).Ns != "." { // which is no target
				z.nsLines = append(z.nsLines, ns.lines[i])
			}
		}
	}
	if soa := z.apex.sets[dns.TypeSOA]; soa != nil {
		minimum := drafts[origin][dns.TypeSOA].rrs[0].(*dns.SOA).Minttl
		z.soa = owned{z.apex.owner, soa.withTTL(min(soa.ttl, minimum))}
	}
	return z, nil
}

// node gives the node of a name in the zone, made with the empty non-terminals above it if need be.
func (z *Zone) node(n name) *node {
	if found := z.nodes[n]; found != nil {
		return found
	}
	made := &node{name: n}
	z.nodes[n] = made
	if n != z.origin {
		above := z.node(n.parent())
		if n.isWildcard() {
			above.wild = made
		}
	}
	return made
}

// Address finds what gives a name of the zone addresses: the type of its CNAME, A or AAAA records, and the line of the
// first of them. Line 0 means that there is none.
func (z *Zone) Address(owner string) (rrtype string, line int) {
	n, err := nameOf(owner)
	if err != nil {
		return "", 0
	}
	if set := z.address(n); set != nil {
		return dns.Type(set.rrtype).String(), int(set.line)
	}
	return "", 0
}

func (z *Zone) address(n name) *rrset {
	if at := z.nodes[n]; at != nil {
		for _, rrtype := range []uint16{dns.TypeCNAME, dns.TypeA, dns.TypeAAAA} {
			if at.sets[rrtype] != nil {
				return at.sets[rrtype]
			}
		}
	}
	return nil
}

// withEdges gives a zone that has edge names too. The zone itself is left as it is: another configuration may share it.
func (z *Zone) withEdges(edges []*edge) *Zone {
	if len(edges) == 0 {
		return z
	}
	served := &Zone{origin: z.origin, nodes: make(map[name]*node, len(z.nodes)+len(edges)), soa: z.soa, nsLines: z.nsLines}
	served.apex = served.node(z.origin)
	for n, old := range z.nodes {
		same := served.node(n)
		same.sets, same.owner = old.sets, old.owner
	}
	for _, e := range edges {
		served.node(e.name).edge = e
	}
	return served
}

// outcome is what RFC 1034 section 4.3.2 step 3 ends with.
type outcome int

const (
	exact      outcome = iota // the node of the name
	wildcard                  // the wildcard node that covers the name
	missing                   // NXDOMAIN
	delegation                // the node of the zone cut
	redirect                  // the node of the DNAME above the name
)

// lookup walks from the apex down to n, which must lie in the zone. At the cut itself the parent answers for DS
// (RFC 4035 section 3.1.4.1), so ds makes a cut at n ordinary data.
func (z *Zone) lookup(n name, ds bool) (outcome, *node) {
	var below [maxName / 2]name // the names from n up to the one below the apex
	depth := 0
	for m := n; len(m) > len(z.origin); m = m.parent() {
		below[depth] = m
		depth++
	}
	closest := z.apex
	for i := depth - 1; i >= 0; i-- {
		if closest.sets[dns.TypeDNAME] != nil {
			return redirect, closest
		}
		next := z.nodes[below[i]]
		if z.challenges != nil {
			if changed := z.challenges[below[i]]; changed != nil {
				next = changed
			}
		}
		if next == nil {
			if closest.wild != nil {
				return wildcard, closest.wild
			}
			return missing, nil
		}
		if next.sets[dns.TypeNS] != nil && !(ds && i == 0) {
			return delegation, next
		}
		closest = next
	}
	if closest.covered != nil {
		return wildcard, closest.covered
	}
	return exact, closest
}
