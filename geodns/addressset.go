package geodns

import (
	"net/netip"
	"sync/atomic"

	"github.com/miekg/dns"
)

// addressSet is the addresses of a node, of one family, of which some may be dead.
type addressSet struct {
	node  *nodeState
	full  *rrset      // with all of them
	of    []*endpoint // of each address; nil where the node is probed at one place for all
	alive atomic.Pointer[partOfSet]
}

// partOfSet is an RRset with some of the addresses, by the bits of mask.
type partOfSet struct {
	mask uint64
	set  *rrset
}

// addressSets makes an A and an AAAA RRset of a node's addresses, as far as there are any.
func addressSets(addrs []netip.Addr, ttl uint32, node *nodeState) (four, six *addressSet) {
	for i, addr := range addrs {
		addr = addr.Unmap()
		set, rrtype := &six, dns.TypeAAAA
		if addr.Is4() {
			set, rrtype = &four, dns.TypeA
		}
		if *set == nil {
			*set = &addressSet{node: node, full: &rrset{rrtype: rrtype, ttl: ttl}}
		}
		(*set).full.data = append((*set).full.data, string(addr.AsSlice()))
		if len(node.endpoints) == len(addrs) && node.endpoints[i].addr.IsValid() {
			(*set).of = append((*set).of, node.endpoints[i])
		}
	}
	return four, six
}

// mask has a bit for each address that answers. Of a node that is down as a whole any may be tried.
func (a *addressSet) mask() uint64 {
	all := uint64(1)<<len(a.full.data) - 1 // maxAddresses is the number of bits
	if a.of == nil || !a.node.isHealthy() {
		return all
	}
	mask := all
	for i, e := range a.of {
		if e.isDead() {
			mask &^= 1 << i
		}
	}
	return mask
}

// isDead reports whether no address answers, though others of the node do.
func (a *addressSet) isDead() bool { return a.mask() == 0 }

// now is the RRset of the addresses that answer, or of all if none does.
func (a *addressSet) now() *rrset {
	mask := a.mask()
	if mask == 0 || mask == uint64(1)<<len(a.full.data)-1 {
		return a.full
	}
	if part := a.alive.Load(); part != nil && part.mask == mask {
		return part.set
	}
	set := *a.full
	set.data = nil
	for i, data := range a.full.data {
		if mask&(1<<i) != 0 {
			set.data = append(set.data, data)
		}
	}
	a.alive.Store(&partOfSet{mask, &set})
	return &set
}
