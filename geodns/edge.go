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

// edge is an edge name in the form that queries are answered from.
type edge struct {
	name     name
	answers  int
	nodes    []*nodeState // the nodes that may be in answers, in the configured order
	out      []Node       // the nodes with Node.Out, which are in no answer
	fixed    []option     // nodes' options without their states; constant
	families map[uint16]*family
	// Whether no node was healthy when that was last logged. Guarded by Server.mu, like wasUp.
	allDown bool
	wasUp   bool // some node has been healthy before
}

// family holds the candidates of an edge name for one record type: the nodes with IPv4 addresses
// for A, those that speak TLS for HTTPS, and all nodes for AAAA. A node without IPv6 is a candidate
// for AAAA because it decides whether a more distant node's IPv6 address is worth answering (see
// muchFarther).
type family struct {
	// Unique in the snapshot, except that families with the same candidates and rules share an id.
	id         uint32
	candidates []*candidate
	fixed      []option // candidates' options without their states; constant
}

// familyIDs assigns ids to families. The key describes everything that resolver.pickFor uses of a
// family. Edge names with the same nodes therefore share the entries of a memo, and so do A, AAAA
// and HTTPS where possible.
type familyIDs map[string]uint32

func (n familyIDs) id(e *edge, f *family, rrtype uint16) uint32 {
	var key strings.Builder
	fmt.Fprint(&key, e.answers)
	for i, c := range f.candidates {
		fmt.Fprintf(&key, " %q %+v", c.node.name, f.fixed[i])
		if len(c.node.endpoints) > 1 {
			// One family's addresses may be dead while the other's are alive.
			fmt.Fprint(&key, " ", rrtype)
		}
	}
	id, ok := n[key.String()]
	if !ok {
		id = uint32(len(n))
		n[key.String()] = id
	}
	return id
}

// candidate is a node that may be in answers of one record type.
type candidate struct {
	node *nodeState
	// Its addresses of the family. It is nil for HTTPS, and if the node has no address of the
	// family.
	set *addressSet

	// For HTTPS only.
	ttl       uint32
	alpn      []string
	four, six *addressSet // nil if the node has none
}

// now sets the current state in o. If the node is healthy but its addresses of the family are dead,
// an A candidate counts as down. An AAAA candidate then counts as a node without IPv6, and its
// clients use IPv4.
func (c *candidate) now(o *option) {
	o.state = c.node.now()
	switch {
	case c.set == nil || o.standing == down || !c.set.isDead():
	case c.set.full.rrtype == dns.TypeAAAA:
		o.noAddress = true
	default:
		o.standing = down
	}
}

// newEdge builds an edge name from its validated configuration. nodes are the edge name's nodes.
// states are the states of all nodes.
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
		o := option{place: node.Place, group: groups[i], weight: float64(max(1, node.Weight)),
			id: xxhash.Sum64String(node.Name)}
		e.nodes = append(e.nodes, states[node.Name])
		e.fixed = append(e.fixed, o)
		four, six := addressSets(node.Addresses, seconds, states[node.Name])
		if four != nil {
			e.add(dns.TypeA, &candidate{node: states[node.Name], set: four}, o)
		}
		aaaaOption := o
		aaaaOption.noAddress = six == nil
		e.add(dns.TypeAAAA, &candidate{node: states[node.Name], set: six}, aaaaOption)
		if len(node.ALPN) > 0 {
			e.add(dns.TypeHTTPS,
				&candidate{node: states[node.Name], ttl: seconds, alpn: node.ALPN, four: four, six: six}, o)
		}
	}
	if f := e.families[dns.TypeAAAA]; f != nil &&
		!slices.ContainsFunc(f.fixed, func(o option) bool { return !o.noAddress }) {
		delete(e.families, dns.TypeAAAA)
	}
	return e
}

// partial reports whether some candidate has no address of the family, or none that answers. A nil
// family is not partial.
func (f *family) partial() bool {
	if f == nil {
		return false
	}
	for i := range f.candidates {
		if f.isUnreachable(i) {
			return true
		}
	}
	return false
}

// isUnreachable reports whether candidate i has no address of the family, or none that answers.
func (f *family) isUnreachable(i int) bool {
	o := f.fixed[i]
	f.candidates[i].now(&o)
	return o.noAddress
}

// add adds a candidate to the family of rrtype.
func (e *edge) add(rrtype uint16, c *candidate, o option) {
	f := e.families[rrtype]
	if f == nil {
		f = new(family)
		e.families[rrtype] = f
	}
	f.candidates = append(f.candidates, c)
	f.fixed = append(f.fixed, o)
}

// checkDown reports whether no node is healthy. As long as some node has not been probed yet and
// none is healthy, it returns what was last logged.
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

// inherit copies what was logged about the same edge name from the previous snapshot.
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

// edge answers from an edge name. It returns false if no node chosen for the client has an address
// of the requested family.
func (r *resolver) edge(e *edge, owner string) bool {
	f := e.families[r.q.qtype]
	if f == nil || r.q.qtype == dns.TypeHTTPS && slices.ContainsFunc(e.nodes, (*nodeState).plain) {
		// An HTTPS record makes browsers give up plain HTTP (RFC 9460 section 9.5), for every
		// client that shares the answer.
		return false
	}
	picked, bits, allDown := r.pick(e, f)
	for _, p := range picked {
		c := f.candidates[p.index]
		r.served = append(r.served, c)
		if r.q.qtype != dns.TypeHTTPS {
			r.answer = append(r.answer, r.own(owner, c.set.now()))
		}
	}
	if r.q.qtype == dns.TypeHTTPS {
		r.ipv6Hints = append(r.ipv6Hints[:0], r.served...)
		if six := e.families[dns.TypeAAAA]; six.partial() {
			bits = max(bits, r.keepIPv6Hints(e, six))
		}
		r.answer = append(r.answer, r.own(owner, r.https.build(r.served, r.ipv6Hints)))
	}
	r.allDown = allDown
	if r.q.subnet.source > 0 {
		r.scope = bits
		if bits > 0 && r.q.subnet.addr.Is4In6() {
			r.scope += 96 // bits counts from the start of the IPv4 address
		}
	}
	return len(picked) > 0
}

// keepIPv6Hints removes from ipv6Hints the nodes that an answer to AAAA would not have. The hints
// and the addresses then send clients to the same nodes. Like pick, it returns the prefix length
// for which this holds.
func (r *resolver) keepIPv6Hints(e *edge, six *family) (bits int) {
	picked, bits, _ := r.pick(e, six)
	r.ipv6Hints = slices.DeleteFunc(r.ipv6Hints, func(c *candidate) bool {
		return !slices.ContainsFunc(picked, func(p ranked) bool { return six.candidates[p.index].node == c.node })
	})
	return bits
}

// pick chooses the nodes to answer with. bits is the length of the client's prefix for which the
// choice holds. picked is valid until the next pick.
func (r *resolver) pick(e *edge, f *family) (picked []ranked, bits int, allDown bool) {
	addr := r.client()
	if r.memo != nil && addr.IsValid() {
		return r.memo.pick(r, e, f, addr)
	}
	picked, bits, _, allDown = r.pickFor(e, f, addr)
	return picked, bits, allDown
}

// pickFor is like pick, for the client address addr. All addresses of addr's client network that
// share its first within bits get the same nodes. If within is more than the number of bits of an
// address, the choice depends on the resolver's own address too.
//
// Some client subnets, such as those of private networks, have no place in any source. The
// resolver's address is then the best guess for the client's place. Such a choice holds for the
// whole prefix that has no place.
func (r *resolver) pickFor(e *edge, f *family, addr netip.Addr) (picked []ranked, bits, within int, allDown bool) {
	best, count, lacking := down, 0, false // count is that of nodes of the best standing so far
	r.options = append(r.options[:0], f.fixed...)
	for i := range r.options {
		o := &r.options[i]
		f.candidates[i].now(o)
		if o.standing < best {
			best, count, lacking = o.standing, 0, false
		}
		if o.standing == best {
			count++
			lacking = lacking || o.noAddress
		}
	}
	if count <= e.answers && !lacking { // every client gets the same nodes in the same order
		r.order, _, _ = choose(nil, 0, r.options, count, r.order[:0])
		return r.order, 0, 0, best == down
	}
	where := r.locate(addr)
	// Scope 0 would cover all networks of both families (RFC 7871 section 7.3.1). A place that
	// holds for a whole family doesn't cover the other one.
	bits, within = max(1, where.bits), where.bits
	byResolver := where.place == nil && addr != r.from
	if byResolver {
		addr, within = r.from, math.MaxInt
		where = r.locate(addr)
	}
	network, hash := clientNetwork(addr)
	order, best, byClient := choose(where.place, hash, r.options, e.answers, r.order[:0])
	r.order = order
	if byClient && !byResolver {
		bits = max(bits, network)
	}
	return order[:min(len(order), e.answers)], bits, within, best == down
}

// locate returns the location of addr. It keeps the last one, because an answer to HTTPS takes two
// choices for the same client.
func (r *resolver) locate(addr netip.Addr) location {
	if addr != r.locatedAddr {
		r.located, r.locatedAddr = r.locator.find(addr, &r.place), addr
	}
	return r.located
}

// client returns the address that an answer is chosen for. SOURCE PREFIX-LENGTH 0 asks the server
// not to use the client's address (RFC 7871 section 7.1.2). The resolver's address is used then, as
// for a query without a client subnet.
func (r *resolver) client() netip.Addr {
	if r.q.subnet.source > 0 {
		return r.q.subnet.addr.Unmap()
	}
	return r.from
}
