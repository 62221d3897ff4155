package geodns

import (
	"math"
	"net/netip"
	"time"

	"github.com/miekg/dns"
)

// edge is an edge name as it is served.
type edge struct {
	name     name
	answers  int
	nodes    []*nodeState // all of them, in the order configured
	places   []Place      // of nodes
	families map[uint16]*family
	allDown  bool // no node is healthy: what was last logged; guarded by Server.mu
}

// family is the nodes of an edge name that have addresses of one family.
type family struct {
	candidates []*candidate
	places     []Place // of candidates
}

// candidate is a node that may be answered.
type candidate struct {
	node *nodeState
	set  *rrset // its addresses of the family
}

// newEdge takes what was validated, the edge name's nodes, and the states of all nodes.
func newEdge(n name, cfg EdgeName, nodes []Node, states map[string]*nodeState) *edge {
	e := &edge{name: n, answers: max(1, cfg.Answers), families: make(map[uint16]*family)}
	ttl := cfg.TTL
	if ttl == 0 {
		ttl = 30 * time.Second
	}
	seconds := uint32(math.Ceil(ttl.Seconds()))
	for _, node := range nodes {
		e.nodes = append(e.nodes, states[node.Name])
		e.places = append(e.places, node.Place)
		for rrtype, set := range addressSets(node.Addresses, seconds) {
			f := e.families[rrtype]
			if f == nil {
				f = new(family)
				e.families[rrtype] = f
			}
			f.candidates = append(f.candidates, &candidate{node: states[node.Name], set: set})
			f.places = append(f.places, node.Place)
		}
	}
	return e
}

// addressSets makes an A and an AAAA RRset of addresses, as far as there are any.
func addressSets(addrs []netip.Addr, ttl uint32) map[uint16]*rrset {
	sets := make(map[uint16]*rrset)
	for _, addr := range addrs {
		addr = addr.Unmap()
		rrtype := dns.TypeAAAA
		if addr.Is4() {
			rrtype = dns.TypeA
		}
		if sets[rrtype] == nil {
			sets[rrtype] = &rrset{rrtype: rrtype, ttl: ttl}
		}
		sets[rrtype].data = append(sets[rrtype].data, rdata{{string(addr.AsSlice()), false}})
	}
	return sets
}

// checkDown tells whether no node is healthy, and whether that is news. A node that was not probed yet may turn out either
// way, so that with one there is no news.
func (e *edge) checkDown() (down, changed bool) {
	down = true
	for _, state := range e.nodes {
		if state.isHealthy() {
			down = false
			break
		}
		if state.phase.Load() == unknown {
			return e.allDown, false
		}
	}
	changed = down != e.allDown
	e.allDown = down
	return down, changed
}

// inherit goes on with what was logged of the same name.
func (e *edge) inherit(before *snapshot) {
	if before == nil {
		return
	}
	for _, old := range before.edges {
		if old.name == e.name {
			e.allDown = old.allDown
		}
	}
}

// edge answers with the nearest healthy nodes; false where no node has an address of the family asked for.
func (r *resolver) edge(e *edge, owner string) bool {
	f := e.families[r.q.qtype]
	if f == nil {
		return false
	}
	picked, bits, allDown := r.pick(e, f)
	for _, p := range picked {
		c := f.candidates[p.index]
		r.served = append(r.served, c)
		r.answer = append(r.answer, owned{owner, c.set})
	}
	r.allDown = allDown
	if r.q.subnet.source > 0 {
		r.scope = bits
	}
	return true
}

// pick chooses the nodes to answer with, and tells for how long a prefix of the client's address the choice holds.
func (r *resolver) pick(e *edge, f *family) (picked []ranked, bits int, allDown bool) {
	healthy := func(i int) bool { return f.candidates[i].node.isHealthy() }
	order, allDown := choose(nil, f.places, healthy)
	if len(order) <= e.answers {
		return order, 0, allDown // everyone gets the same, in the same order
	}
	// Source prefix 0 asks that the client's address not be used (RFC 7871 section 7.1.2): the resolver's is, as without.
	addr := r.from
	if r.q.subnet.source > 0 {
		addr = r.q.subnet.addr
	}
	where := r.locator.find(addr)
	order, allDown = choose(where.place, f.places, healthy)
	if len(order) > e.answers {
		order = order[:e.answers]
	}
	return order, where.bits, allDown
}
