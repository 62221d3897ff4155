package geodns

import (
	"net/netip"
	"sync/atomic"

	"github.com/miekg/dns"
)

// addressSet holds a node's addresses of one family. Some of them may be dead.
type addressSet struct {
	node *nodeState
	full *rrset // all addresses
	// The endpoint of each address. It is nil if the node is not probed at each of its addresses.
	endpoints []*endpoint
	subset    atomic.Pointer[addressSubset]
}

// addressSubset is an RRset of only those addresses whose bit in mask is set.
type addressSubset struct {
	mask uint64
	set  *rrset
}

// addressSets returns the A and the AAAA RRset of a node's addresses. A family without addresses is
// nil.
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
			(*set).endpoints = append((*set).endpoints, node.endpoints[i])
		}
	}
	return four, six
}

// mask returns a bit mask of the addresses that answer: bit i stands for address i. If the whole
// node is down, all bits are set, because any of its addresses may be worth a try.
func (a *addressSet) mask() uint64 {
	all := uint64(1)<<len(a.full.data) - 1 // at most maxAddresses (64) bits
	if a.endpoints == nil || !a.node.isHealthy() {
		return all
	}
	mask := all
	for i, e := range a.endpoints {
		if e.isDead() {
			mask &^= 1 << i
		}
	}
	return mask
}

// isDead reports whether the node is healthy and yet none of these addresses answers.
func (a *addressSet) isDead() bool { return a.mask() == 0 }

// now returns the RRset of the addresses that answer, or of all addresses if none answers.
func (a *addressSet) now() *rrset {
	mask := a.mask()
	if mask == 0 || mask == uint64(1)<<len(a.full.data)-1 {
		return a.full
	}
	if cached := a.subset.Load(); cached != nil && cached.mask == mask {
		return cached.set
	}
	set := *a.full
	set.data = nil
	for i, data := range a.full.data {
		if mask&(1<<i) != 0 {
			set.data = append(set.data, data)
		}
	}
	a.subset.Store(&addressSubset{mask, &set})
	return &set
}
