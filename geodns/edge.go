package geodns

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/miekg/dns"
)

// edge is an edge name as it is served.
type edge struct {
	name     name
	answers  int
	nodes    []*nodeState // that may be answered, in the order configured
	out      []Node       // that are taken out
	fixed    []option     // of nodes, without their states
	families map[uint16]*family
	allDown  bool // no node is healthy: what was last logged; guarded by Server.mu, as is wasUp
	wasUp    bool // a node was healthy once
}

// family is the nodes of an edge name that have addresses of one family, or that speak TLS. That of
// AAAA has all nodes, of which some lack addresses: these tell whether an address of the others is
// worth having (muchFarther).
type family struct {
	id         uint32 // in the snapshot, the same for those that are chosen from alike
	candidates []*candidate
	fixed      []option // of candidates
}

// familyNumbers numbers families, by all that resolver.pickFor takes from one: names that are
// answered with the same nodes share what is remembered of clients, and A with AAAA and HTTPS.
type familyNumbers map[string]uint32

func (n familyNumbers) of(e *edge, f *family, rrtype uint16) uint32 {
	var key strings.Builder
	fmt.Fprint(&key, e.answers)
	for i, c := range f.candidates {
		fmt.Fprintf(&key, " %q %+v", c.node.name, f.fixed[i])
		if len(c.node.endpoints) > 1 {
			fmt.Fprint(&key, " ", rrtype) // the addresses of one family may be well and those of the other not
		}
	}
	number, ok := n[key.String()]
	if !ok {
		number = uint32(len(n))
		n[key.String()] = number
	}
	return number
}

// candidate is a node that may be answered.
type candidate struct {
	node *nodeState
	set  *addressSet // its addresses of the family; nil if it lacks them, and for HTTPS

	// For HTTPS.
	ttl       uint32
	alpn      []string
	four, six *addressSet // nil where the node has none
}

// now fills in what is known of a candidate at the moment. One whose addresses of the family are
// dead, though the node is not, is no better than one that is down, but for IPv6: clients then have
// IPv4, as with a node that lacks the family.
func (c *candidate) now(o *option) {
	o.state = c.node.now()
	switch {
	case c.set == nil || o.standing == down || !c.set.isDead():
	case c.set.full.rrtype == dns.TypeAAAA:
		o.lacks = true
	default:
		o.standing = down
	}
}

// newEdge takes what was validated, the edge name's nodes, and the states of all nodes.
func newEdge(n name, cfg EdgeName, nodes []Node, states map[string]*nodeState) *edge {
	e := &edge{name: n, answers: max(1, cfg.Answers), families: make(map[uint16]*family)}
	ttl := cfg.TTL
	if ttl == 0 {
		ttl = 30 * time.Second
	}
	seconds := uint32(math.Ceil(ttl.Seconds()))
	isOut := func(node Node) bool { return node.Out }
	for _, node := range nodes {
		if isOut(node) {
			e.out = append(e.out, node)
		}
	}
	nodes = slices.DeleteFunc(slices.Clone(nodes), isOut)
	groups := groupsOf(nodes)
	for i, node := range nodes {
		o := option{place: node.Place, group: groups[i], weight: float64(max(1, node.Weight)), id: xxhash.Sum64String(node.Name)}
		e.nodes = append(e.nodes, states[node.Name])
		e.fixed = append(e.fixed, o)
		four, sixth := addressSets(node.Addresses, seconds, states[node.Name])
		if four != nil {
			e.add(dns.TypeA, &candidate{node: states[node.Name], set: four}, o)
		}
		six := o
		six.lacks = sixth == nil
		e.add(dns.TypeAAAA, &candidate{node: states[node.Name], set: sixth}, six)
		if len(node.ALPN) > 0 {
			e.add(dns.TypeHTTPS, &candidate{node: states[node.Name], ttl: seconds, alpn: node.ALPN, four: four, six: sixth}, o)
		}
	}
	if f := e.families[dns.TypeAAAA]; f != nil && !slices.ContainsFunc(f.fixed, func(o option) bool { return !o.lacks }) {
		delete(e.families, dns.TypeAAAA)
	}
	return e
}

// partial reports whether some nodes lack addresses of the family, or have none that answers.
func (f *family) partial() bool {
	if f == nil {
		return false
	}
	for i := range f.candidates {
		if f.lacks(i) {
			return true
		}
	}
	return false
}

// lacks reports whether a candidate has no address of the family that answers.
func (f *family) lacks(i int) bool {
	o := f.fixed[i]
	f.candidates[i].now(&o)
	return o.lacks
}

// add makes a node one of those that are answered to a type.
func (e *edge) add(rrtype uint16, c *candidate, o option) {
	f := e.families[rrtype]
	if f == nil {
		f = new(family)
		e.families[rrtype] = f
	}
	f.candidates = append(f.candidates, c)
	f.fixed = append(f.fixed, o)
}

// checkDown reports whether no node is healthy. A node that was not probed yet may turn out either
// way, so that with one there is no news.
func (e *edge) checkDown() bool {
	for _, state := range e.nodes {
		if state.isHealthy() {
			e.wasUp = true
			return false
		}
		if state.nowPhase() == unknown {
			return e.allDown
		}
	}
	return true
}

// inherit goes on with what was logged of the same name.
func (e *edge) inherit(before *snapshot) {
	if before == nil {
		return
	}
	for _, old := range before.edges {
		if old.name == e.name {
			e.allDown, e.wasUp = old.allDown, old.wasUp
		}
	}
}

// edge answers with the nearest healthy nodes; false where none that is chosen for the client has
// an address of the family asked for.
func (r *resolver) edge(e *edge, owner string) bool {
	f := e.families[r.q.qtype]
	if f == nil || r.q.qtype == dns.TypeHTTPS && slices.ContainsFunc(e.nodes, (*nodeState).plain) {
		return false // the record would have browsers give up plain HTTP (RFC 9460, 9.5), for all that share the answer
	}
	picked, bits, allDown := r.pick(e, f)
	for _, p := range picked {
		c := f.candidates[p.index]
		r.served = append(r.served, c)
		if r.q.qtype != dns.TypeHTTPS {
			r.answer = append(r.answer, owned{owner, c.set.now()})
		}
	}
	if r.q.qtype == dns.TypeHTTPS {
		r.hintSix = append(r.hintSix[:0], r.served...)
		if six := e.families[dns.TypeAAAA]; six.partial() {
			bits = max(bits, r.keepSix(e, six))
		}
		r.answer = append(r.answer, owned{owner, r.https.of(r.served, r.hintSix)})
	}
	r.allDown = allDown
	if r.q.subnet.source > 0 {
		r.scope = bits
		if bits > 0 && r.q.subnet.addr.Is4In6() {
			r.scope += 96 // bits are those of the IPv4 address
		}
	}
	return len(picked) > 0
}

// keepSix leaves those nodes in hintSix that AAAA is answered with too, so that the record and the
// addresses send clients the same way. It tells, as pick, for how long a prefix that holds.
func (r *resolver) keepSix(e *edge, six *family) (bits int) {
	picked, bits, _ := r.pick(e, six)
	r.hintSix = slices.DeleteFunc(r.hintSix, func(c *candidate) bool {
		return !slices.ContainsFunc(picked, func(p ranked) bool { return six.candidates[p.index].node == c.node })
	})
	return bits
}

// pick chooses the nodes to answer with, and tells for how long a prefix of the client's address
// the choice holds. The nodes are good until the next pick.
func (r *resolver) pick(e *edge, f *family) (picked []ranked, bits int, allDown bool) {
	addr := r.client()
	if r.memo != nil && addr.IsValid() {
		return r.memo.pick(r, e, f, addr)
	}
	picked, bits, _, allDown = r.pickFor(e, f, addr)
	return picked, bits, allDown
}

// pickFor is pick for an address. All addresses of the same network that share so many bits as
// within are given the same; more than an address has means that the resolver's own address counted
// too.
//
// A client subnet that no source has a place for, as those of private networks, says nothing about
// the client: its resolver is then the best guess. The choice holds for all of what has no place.
func (r *resolver) pickFor(e *edge, f *family, addr netip.Addr) (picked []ranked, bits, within int, allDown bool) {
	best, of, lacking := down, 0, false // of the best standing that there is
	r.options = append(r.options[:0], f.fixed...)
	for i := range r.options {
		o := &r.options[i]
		f.candidates[i].now(o)
		if o.standing < best {
			best, of, lacking = o.standing, 0, false
		}
		if o.standing == best {
			of++
			lacking = lacking || o.lacks
		}
	}
	if of <= e.answers && !lacking { // everyone gets the same, in the same order
		r.order, _, _ = choose(nil, 0, r.options, of, r.order[:0])
		return r.order, 0, 0, best == down
	}
	where := r.locator.find(addr, &r.place)
	// Scope 0 is for all networks of both families (RFC 7871 section 7.3.1), a place of all of one
	// is not.
	bits, within = max(1, where.bits), where.bits
	byResolver := where.place == nil && addr != r.from
	if byResolver {
		addr, within = r.from, math.MaxInt
		where = r.locator.find(addr, &r.place)
	}
	network, hash := clientNetwork(addr)
	order, best, byClient := choose(where.place, hash, r.options, e.answers, r.order[:0])
	r.order = order
	if byClient && !byResolver {
		bits = max(bits, network)
	}
	return order[:min(len(order), e.answers)], bits, within, best == down
}

// client is the address that an answer is chosen for. Source prefix 0 asks that the client's
// address not be used (RFC 7871 section 7.1.2): the resolver's is, as without.
func (r *resolver) client() netip.Addr {
	if r.q.subnet.source > 0 {
		return r.q.subnet.addr.Unmap()
	}
	return r.from
}
