package geodns

import (
	"encoding/binary"
	"maps"

	"github.com/miekg/dns"
)

// Zone is the static data of a zone, as returned by ReadZone. It is immutable.
type Zone struct {
	origin name
	apex   *node
	nodes  map[name]*node // every name with records, and every empty non-terminal
	// Nodes with edge names and challenges. They replace or complement those of nodes. nil if there
	// are none.
	overlay map[name]*node
	// The SOA record of negative answers, with the TTL of RFC 2308 section 5.
	soa owned

	signer *signer    // nil if the zone is not signed
	made   *zoneOrder // shared by all copies
	order  *zoneOrder // made, set once its names are sorted
	// Names that only the overlay has, in canonical order. nil if the zone is not signed.
	added []name

	files   []zoneFile // the files it was read from
	nsLines []int32    // lines of the apex's NS records
}

// Name returns the zone's name in lower case, with the final dot.
func (z *Zone) Name() string { return z.origin.String() }

// serial returns the serial of the SOA record, or 0 if there is none.
func (z *Zone) serial() uint32 {
	soa := z.apex.set(dns.TypeSOA)
	if soa == nil {
		return 0
	}
	// The data ends with five 32-bit numbers. The serial is the first (RFC 1035 section 3.3.13).
	data := soa.data[0]
	return binary.BigEndian.Uint32([]byte(data[len(data)-20:]))
}

// finish sets the SOA record of negative answers.
func (z *Zone) finish() {
	z.made = new(zoneOrder)
	if soa := z.apex.set(dns.TypeSOA); soa != nil {
		data := soa.data[0]
		minimum := binary.BigEndian.Uint32([]byte(data[len(data)-4:]))
		z.soa = owned{owner: z.apex.owner, rrset: soa.withTTL(min(soa.ttl, minimum)), source: z.origin}
	}
}

// node is a name of a zone with its records.
type node struct {
	name  name
	owner string  // the name in the case of the file, if it has records
	sets  []rrset // one per type; none in an empty non-terminal
	// The node of "*" below this name, or nil. It is the source of synthesis of RFC 4592 section
	// 3.3.1.
	wild *node
	edge *edge

	// The wildcard that answers for this name, if the name exists only because of a challenge at it
	// or below it. Otherwise nil.
	covered *node
}

// set returns the RRset of a type, or nil.
func (at *node) set(rrtype uint16) *rrset {
	for i := range at.sets {
		if at.sets[i].rrtype == rrtype {
			return &at.sets[i]
		}
	}
	return nil
}

// at returns the node of a name, or nil.
func (z *Zone) at(n name) *node {
	if z.overlay != nil {
		if changed := z.overlay[n]; changed != nil {
			return changed
		}
	}
	return z.nodes[n]
}

// Address returns the type of the records that give the name addresses in the zone: CNAME, A or
// AAAA, in this order. line is the line of the first of them, as in Zone.At. line is 0 if there are
// none.
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

// overlaid returns a copy of the zone with an overlay, to which nodes can be added. The copy shares
// the zone's nodes, so that a copy of a large zone costs no more than one of a small zone.
func (z *Zone) overlaid() *Zone {
	served := *z
	served.overlay = maps.Clone(z.overlay)
	if served.overlay == nil {
		served.overlay = make(map[name]*node)
	}
	return &served
}

// editable returns a node of an overlaid zone that may be changed. The node is in the overlay
// already, or is a copy of the zone's node, or is new. It creates missing empty non-terminals.
func (z *Zone) editable(n name) *node {
	if at := z.overlay[n]; at != nil {
		return at
	}
	made := &node{name: n}
	if shared := z.nodes[n]; shared != nil {
		*made = *shared
	} else if n != z.origin {
		z.editable(n.parent())
	}
	z.overlay[n] = made
	switch {
	case n == z.origin:
		z.apex = made
	case n.isWildcard():
		z.editable(n.parent()).wild = made
	}
	return made
}

// withEdges returns a copy of the zone with the given edge names. The zone itself doesn't change,
// because another configuration may share it.
func (z *Zone) withEdges(edges []*edge) *Zone {
	if len(edges) == 0 {
		return z
	}
	served := z.overlaid()
	for _, e := range edges {
		served.editable(e.name).edge = e
	}
	served.sortOverlay()
	return served
}

// outcome is the result of a lookup (RFC 1034 section 4.3.2 step 3).
type outcome int

const (
	exact      outcome = iota // with the node of the name
	wildcard                  // with the wildcard node that covers the name
	missing                   // NXDOMAIN, without a node
	delegation                // with the node of the zone cut
	redirect                  // with the node of the DNAME above the name
)

// lookup walks from the apex down to n, which must be in the zone. For a DS query at a zone cut,
// the parent zone answers (RFC 4035 section 3.1.4.1). ds therefore makes lookup treat a cut at n
// itself as ordinary data.
func (z *Zone) lookup(n name, ds bool) (outcome, *node) {
	var below [maxName / 2]name // the names from n up to the child of the apex
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
