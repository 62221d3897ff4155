package geodns

import (
	"cmp"
	"encoding/binary"
	"math"
	"net/netip"
	"slices"
)

// option is a node that may be chosen, as it is now.
type option struct {
	place  Place
	group  int // nodes of one place have the same; from groupsOf
	weight float64
	id     uint64 // a hash of its name
	lacks  bool   // it has no address of the family that is asked for
	state
}

// state is what is known of a node at a moment.
type state struct {
	standing standing
	shed     float64 // 0 to 1: how much of what it could get is to go elsewhere
}

// standing orders nodes by what may be expected of them.
type standing int

const (
	good standing = iota // healthy, and nothing speaks against it
	away                 // healthy, but it drains, or has not yet heard of all purges
	down                 // its probes fail
)

// ranked is a node that was chosen.
type ranked struct {
	index    int
	distance float64 // km; 0 where the client's place is not known
	group    int
	near     float64 // distance of the nearest node of its group
	first    int     // index of the first node of its group
	score    float64 // of rendezvous hashing
}

// choose orders nodes for a client at a place, or at none that is known, for an answer of n of
// them. client is a hash of the client's network. It is the whole of the choice of an edge, and a
// pure function.
//
// Only nodes of the best standing that there is are chosen. They come by the distance of their
// group, nearest first, and groups without a place of the client in the order given. Within a group
// the client's network decides, by rendezvous hashing with weights (Thaler and Ravishankar 1998;
// Schindelhauer and Schomaker 2005), so that each client keeps its node and a node that is lost
// moves only its own clients; byClient says that it did decide what the n are. A node that sheds
// counts for less in its group; a group that sheds more than the next one loses the clients to it
// for which the way is least longer.
//
// A node that lacks the family is not chosen, and neither is one of a worse standing, or one that
// is much farther away: better no address of the family, so that clients use the other one, than
// one that they prefer though it is far. See muchFarther.
//
// order is appended to.
func choose(at *Place, client uint64, nodes []option, n int, order []ranked) (_ []ranked, best standing, byClient bool) {
	best = down
	for i := range nodes {
		best = min(best, nodes[i].standing)
	}
	lacking := math.Inf(1) // how far the nearest is that lacks the family
	for i := range nodes {
		if nodes[i].standing != best {
			continue
		}
		r := ranked{index: i, group: nodes[i].group}
		if at != nil {
			r.distance = at.Distance(nodes[i].place)
		}
		if nodes[i].lacks {
			lacking = min(lacking, r.distance)
			continue
		}
		r.near, r.first = r.distance, i
		order = append(order, r)
	}
	for i := range order {
		for _, o := range order {
			if o.group == order[i].group {
				order[i].near = min(order[i].near, o.distance)
				order[i].first = min(order[i].first, o.index)
			}
		}
	}
	order = slices.DeleteFunc(order, func(r ranked) bool { return r.near > lacking+muchFarther })
	slices.SortFunc(order, func(a, b ranked) int {
		return cmp.Or(cmp.Compare(a.near, b.near), cmp.Compare(a.first, b.first), cmp.Compare(a.index, b.index))
	})
	moveShed(at, nodes, order)
	for begin := 0; begin < len(order) && begin < n; {
		end := begin + groupLen(order[begin:])
		if end > n && end-begin > 1 { // else all of the group are answered, to everybody alike
			byClient = true
			rendezvous(client, nodes, order[begin:end])
		}
		begin = end
	}
	return order, best, byClient
}

// muchFarther is how many km a client's way may be longer for an address of IPv6, where the nearest
// node has none. Clients with both families prefer IPv6 whenever it answers (RFC 8305), however far
// it is, so that an answer to AAAA decides where nearly all of them go. A round trip over 1,000 km
// takes 10 ms in fibre and about 15 as cables go, of which a first page takes three or four; below
// that distance the table of countries can't tell places apart anyway. A client without IPv4 then
// depends on its network's NAT64, as it does for all sites without IPv6.
//
// A is never left out so: many clients have IPv4 alone, and those with both come to the near node
// by IPv6.
const muchFarther = 1000

// groupLen is how many nodes the first group has.
func groupLen(order []ranked) int {
	n := 1
	for n < len(order) && order[n].group == order[0].group {
		n++
	}
	return n
}

// rendezvous orders the nodes of a group for a client.
func rendezvous(client uint64, nodes []option, group []ranked) {
	for i := range group {
		o := &nodes[group[i].index]
		u := (float64(mix(client^o.id)>>11) + 0.5) / (1 << 53) // in (0, 1)
		group[i].score = o.weight * max(1-o.shed, 0.001) / -math.Log(u)
	}
	slices.SortFunc(group, func(a, b ranked) int { return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(a.index, b.index)) })
}

// moveShed puts the second group before the first where the first sheds more, for clients that lose
// little by it: those for which the distances differ least.
func moveShed(at *Place, nodes []option, order []ranked) {
	if at == nil || len(order) == 0 {
		return
	}
	first := groupLen(order)
	if first == len(order) {
		return
	}
	second := groupLen(order[first:])
	excess := shedOf(nodes, order[:first]) - shedOf(nodes, order[first:first+second])
	if excess > 0 && order[0].near >= (1-excess)*order[first].near {
		slices.Reverse(order[:first])
		slices.Reverse(order[first : first+second])
		slices.Reverse(order[:first+second])
	}
}

// shedOf is what a group sheds: the mean of its nodes', by weight.
func shedOf(nodes []option, group []ranked) float64 {
	var shed, weight float64
	for _, r := range group {
		shed += nodes[r.index].shed * nodes[r.index].weight
		weight += nodes[r.index].weight
	}
	return shed / weight
}

// onePlace is how near nodes are of one place, in km.
const onePlace = 100

// groupsOf gives each node the number of its group: nodes of the same region, or within onePlace of
// each other, are of one, and so are their neighbours'.
func groupsOf(nodes []Node) []int {
	groups := make([]int, len(nodes))
	for i := range groups {
		groups[i] = i
	}
	for i := range nodes {
		for j := range i {
			same := nodes[i].Region != "" && nodes[i].Region == nodes[j].Region || nodes[i].Place.Distance(nodes[j].Place) <= onePlace
			if from, to := groups[i], groups[j]; same && from != to {
				for k := range groups {
					if groups[k] == from {
						groups[k] = to
					}
				}
			}
		}
	}
	return groups
}

// Networks of clients that are told apart when nodes of one place share them: what one user's
// provider or office has, and what resolvers send (RFC 7871, 11.1).
const (
	clientBits4 = 24
	clientBits6 = 48
)

// clientNetwork is the length of the prefix of an address that names its network, and a hash of
// that.
func clientNetwork(addr netip.Addr) (bits int, hash uint64) {
	if !addr.IsValid() {
		return 0, 0
	}
	if addr.Is4() {
		b := addr.As4()
		return clientBits4, mix(uint64(binary.BigEndian.Uint32(b[:])>>8) | 1<<63)
	}
	b := addr.As16()
	return clientBits6, mix(binary.BigEndian.Uint64(b[:8]) >> 16)
}

// mix spreads the bits of x over all of the result (the finaliser of SplitMix64).
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
