package geodns

import (
	"encoding/binary"
	"maps"

	"github.com/miekg/dns"
)

// Zone is the static data of a zone, as ReadZone made it. It does not change.
type Zone struct {
	origin name
	apex   *node
	nodes  map[name]*node // every name with data, and every empty non-terminal above one
	over   map[name]*node // edge names and challenges: in place of those of nodes, or beside them; nil without any
	soa    owned          // for negative answers: the SOA with the TTL of RFC 2308 section 5

	files   []zoneFile // that it was read from
	nsLines []int32    // of the apex's NS records
}

// Name is the zone's name, with the dot at its end, in lower case.
func (z *Zone) Name() string { return z.origin.String() }

// serial is that of the SOA, or 0 without one.
func (z *Zone) serial() uint32 {
	soa := z.apex.set(dns.TypeSOA)
	if soa == nil {
		return 0
	}
	data := soa.data[0] // ends with five numbers, of which the serial is the first (RFC 1035 section 3.3.13)
	return binary.BigEndian.Uint32([]byte(data[len(data)-20:]))
}

// finish makes what negative answers have.
func (z *Zone) finish() {
	if soa := z.apex.set(dns.TypeSOA); soa != nil {
		data := soa.data[0]
		minimum := binary.BigEndian.Uint32([]byte(data[len(data)-4:]))
		z.soa = owned{z.apex.owner, soa.withTTL(min(soa.ttl, minimum))}
	}
}

// node is a name of a zone.
type node struct {
	name  name
	owner string  // the name as the file writes it, where it has data
	sets  []rrset // one of each type; none in an empty non-terminal
	wild  *node   // "*" below this name: the source of synthesis of RFC 4592 section 3.3.1
	edge  *edge

	covered *node // the wildcard that answers for this name, which is there for a challenge below it alone; else nil
}

// set is the records of a type, or nil.
func (at *node) set(rrtype uint16) *rrset {
	for i := range at.sets {
		if at.sets[i].rrtype == rrtype {
			return &at.sets[i]
		}
	}
	return nil
}

// at is the node of a name, or nil.
func (z *Zone) at(n name) *node {
	if z.over != nil {
		if changed := z.over[n]; changed != nil {
			return changed
		}
	}
	return z.nodes[n]
}

// Address finds what gives a name of the zone addresses: the type of its CNAME, A or AAAA records,
// and the line of the first of them, as At counts. Line 0 means that there is none.
func (z *Zone) Address(owner string) (rrtype string, line int) {
	n, err := nameOf(owner)
	if err != nil {
		return "", 0
	}
	if at := z.nodes[n]; at != nil {
		if set := at.address(); set != nil {
			return dns.Type(set.rrtype).String(), int(set.line)
		}
	}
	return "", 0
}

func (at *node) address() *rrset {
	for _, rrtype := range []uint16{dns.TypeCNAME, dns.TypeA, dns.TypeAAAA} {
		if set := at.set(rrtype); set != nil {
			return set
		}
	}
	return nil
}

// overlaid is a copy of the zone that may be given other nodes. It shares those of the zone, so
// that a large zone costs no more than a small one.
func (z *Zone) overlaid() *Zone {
	served := *z
	served.over = maps.Clone(z.over)
	if served.over == nil {
		served.over = make(map[name]*node)
	}
	return &served
}

// own is the node of a name in an overlaid zone, which may be changed: a copy, or one made with the
// empty non-terminals above it.
func (z *Zone) own(n name) *node {
	if own := z.over[n]; own != nil {
		return own
	}
	made := &node{name: n}
	if shared := z.nodes[n]; shared != nil {
		*made = *shared
	} else if n != z.origin {
		z.own(n.parent())
	}
	z.over[n] = made
	switch {
	case n == z.origin:
		z.apex = made
	case n.isWildcard():
		z.own(n.parent()).wild = made
	}
	return made
}

// withEdges gives a zone that has edge names too. The zone itself is left as it is: another
// configuration may share it.
func (z *Zone) withEdges(edges []*edge) *Zone {
	if len(edges) == 0 {
		return z
	}
	served := z.overlaid()
	for _, e := range edges {
		served.own(e.name).edge = e
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

// lookup walks from the apex down to n, which must lie in the zone. At the cut itself the parent
// answers for DS (RFC 4035 section 3.1.4.1), so ds makes a cut at n ordinary data.
func (z *Zone) lookup(n name, ds bool) (outcome, *node) {
	var below [maxName / 2]name // the names from n up to the one below the apex
	depth := 0
	for m := n; len(m) > len(z.origin); m = m.parent() {
		below[depth] = m
		depth++
	}
	closest := z.apex
	for i := depth - 1; i >= 0; i-- {
		if closest.set(dns.TypeDNAME) != nil {
			return redirect, closest
		}
		next := z.at(below[i])
		if next == nil {
			if closest.wild != nil {
				return wildcard, closest.wild
			}
			return missing, nil
		}
		if next.set(dns.TypeNS) != nil && !(ds && i == 0) {
			return delegation, next
		}
		closest = next
	}
	if closest.covered != nil {
		return wildcard, closest.covered
	}
	return exact, closest
}
