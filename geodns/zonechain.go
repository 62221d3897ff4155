package geodns

import (
	"slices"
	"sync"

	"github.com/miekg/dns"

	"github.com/kaiku-cdn/kaiku/geodns/dnssec"
)

// zoneOrder has the names of a zone file in canonical order (RFC 4034 section 6.1), without those
// below delegations. Copies of a zone share it. It is made when it is first needed.
type zoneOrder struct {
	once  sync.Once
	names []name
}

// sorted returns the order of the zone's names.
func (z *Zone) sorted() *zoneOrder {
	z.made.once.Do(func() {
		names := make([]name, 0, len(z.nodes))
		for n := range z.nodes {
			names = append(names, n)
		}
		slices.SortFunc(names, compareNames)
		var cut name
		z.made.names = slices.DeleteFunc(names, func(n name) bool {
			if cut != "" && n.within(cut) {
				return true
			}
			if cut = ""; n != z.origin && z.nodes[n].set(dns.TypeNS) != nil {
				cut = n
			}
			return false
		})
	})
	return z.made
}

func compareNames(a, b name) int { return dnssec.Compare(string(a), string(b)) }

// sortOverlay sorts the names that only the overlay has. Each change of the overlay of a signed
// zone ends with it.
func (z *Zone) sortOverlay() {
	if z.signer == nil {
		return
	}
	z.added = nil
	for n := range z.overlay {
		if z.nodes[n] == nil {
			z.added = append(z.added, n)
		}
	}
	slices.SortFunc(z.added, compareNames)
}

// neighbours returns the last name of the zone at or before n, and the first one after n, or "" if
// there is none. The zone must be signed.
func (z *Zone) neighbours(n name) (before, after name) {
	for _, names := range [][]name{z.order.names, z.added} {
		at, found := slices.BinarySearchFunc(names, n, compareNames)
		if found {
			before, at = n, at+1
		} else if at > 0 && (before == "" || compareNames(names[at-1], before) > 0) {
			before = names[at-1]
		}
		if at < len(names) && (after == "" || compareNames(names[at], after) < 0) {
			after = names[at]
		}
	}
	return before, after
}
