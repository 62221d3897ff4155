package geodns

import (
	"cmp"
	"encoding/binary"
	"math"
	"net/netip"
	"slices"

	"github.com/kaiku-cdn/kaiku/fleet/rendezvous"
)

// option is a node that may be chosen, with its current state.
type option struct {
	place     Place
	group     int // group number from groupsOf; nodes at one place have the same
	weight    float64
	id        uint64 // hash of the node's name
	noAddress bool   // the node has no address of the family in question
	state
}

// state is what the server knows about a node at one moment.
type state struct {
	standing standing
	shed     float64 // 0 to 1: the share of the node's clients to send elsewhere
}

// standing ranks nodes by how well they can be expected to serve a client. Lower is better.
type standing int

const (
	good     standing = iota // healthy, and neither draining nor stale
	degraded                 // healthy, but draining or behind with purges
	down                     // its probes fail
)

// ranked is a chosen node and what decided its rank.
type ranked struct {
	index    int
	distance float64 // km; 0 if the client's place is unknown
	group    int
	near     float64 // km to the nearest node of its group
	first    int     // lowest index of a node of its group
	score    float64 // score of rendezvous hashing; 0 if it was not needed
}

// choose ranks the nodes for a client at a place, for an answer with n nodes. A nil at means that
// the place is unknown. client is a hash of the client's network. It appends the ranked nodes to
// order. choose is a pure function. No other code affects the ranking.
//
// Only nodes of the best standing found are ranked. Groups are ranked by the distance of their
// nearest node, nearest first. If the client's place is unknown, groups keep the configured order.
// Within a group, weighted rendezvous hashing of the client's network decides. Each client
// therefore keeps its node, and only the clients of a lost node move. byClient reports whether this
// hashing decided which nodes are among the first n. A node that sheds clients has a lower weight
// in its group. If the first group sheds more than the second, some of its clients move to the
// second, first those whose distance grows least.
//
// A node that lacks the address family is not ranked. Its standing still counts: nodes of a worse
// standing than it are not ranked either. The same holds for groups that are more than muchFarther
// km farther away than the nearest such node. Clients that get no address of the family use the
// other family. That is better than a distant address, which they would prefer.
func choose(
	at *Place, client uint64, nodes []option, n int, order []ranked,
) (_ []ranked, best standing, byClient bool) {
	best = down
	for i := range nodes {
		best = min(best, nodes[i].standing)
	}
	lacking := math.Inf(1) // distance of the nearest node that lacks the family
	for i := range nodes {
		if nodes[i].standing != best {
			continue
		}
		r := ranked{index: i, group: nodes[i].group}
		if at != nil {
			r.distance = at.Distance(nodes[i].place)
		}
		if nodes[i].noAddress {
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
		if end > n && end-begin > 1 { // otherwise the answer has the whole group
			byClient = true
			sortForClient(client, nodes, order[begin:end])
		}
		begin = end
	}
	return order, best, byClient
}

// muchFarther is how many km farther a node with IPv6 may be than the nearest node without. Clients
// with both families prefer IPv6 whenever it answers (RFC 8305), at any distance, so the answer to
// AAAA decides where nearly all of them go. A round trip over 1,000 km takes 10 ms in a straight
// fibre and about 15 ms along real cables. A first page needs three or four round trips. Below
// 1,000 km the table of countries can't tell places apart anyway. Where the AAAA record is left
// out, a client without IPv4 depends on its network's NAT64, as it does for every site without
// IPv6.
//
// A records are never left out in this way. Many clients have only IPv4, and those with both
// families reach the near node over IPv6.
const muchFarther = 1000

// groupLen returns the number of nodes in the first group of order.
func groupLen(order []ranked) int {
	n := 1
	for n < len(order) && order[n].group == order[0].group {
		n++
	}
	return n
}

// sortForClient sorts the nodes of a group for a client, best first.
func sortForClient(client uint64, nodes []option, group []ranked) {
	for i := range group {
		o := &nodes[group[i].index]
		group[i].score = rendezvous.Score(rendezvous.Draw(client, o.id), o.weight*max(1-o.shed, 0.001))
	}
	slices.SortFunc(group, func(a, b ranked) int {
		return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(a.index, b.index))
	})
}

// moveShed swaps the first two groups for some clients if the first group sheds more than the
// second. These are the clients for which the two distances differ least, because they lose least.
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

// shedOf returns how much a group sheds: the mean over its nodes, weighted by weight.
func shedOf(nodes []option, group []ranked) float64 {
	var shed, weight float64
	for _, r := range group {
		shed += nodes[r.index].shed * nodes[r.index].weight
		weight += nodes[r.index].weight
	}
	return shed / weight
}

// onePlace is the distance in km up to which two nodes count as being at one place.
const onePlace = 100

// groupsOf returns the group number of each node. Two nodes are in one group if they have the same
// region or are within onePlace of each other. The relation is transitive: a neighbour's neighbours
// are in the group too.
func groupsOf(nodes []Node) []int {
	groups := make([]int, len(nodes))
	for i := range groups {
		groups[i] = i
	}
	for i := range nodes {
		for j := range i {
			same := nodes[i].Region != "" && nodes[i].Region == nodes[j].Region ||
				nodes[i].Place.Distance(nodes[j].Place) <= onePlace
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

// Prefix lengths of client networks. The nodes of a group share clients by client network. The
// lengths are what a provider gives to one customer or office, and what resolvers send (RFC 7871
// section 11.1).
const (
	clientBits4 = 24
	clientBits6 = 48
)

// clientNetwork returns the prefix length of the client network that addr is in, and a hash of that
// network. Both are 0 if addr is not valid.
func clientNetwork(addr netip.Addr) (bits int, hash uint64) {
	if !addr.IsValid() {
		return 0, 0
	}
	if addr.Is4() {
		b := addr.As4()
		return clientBits4, rendezvous.Mix(uint64(binary.BigEndian.Uint32(b[:])>>8) | 1<<63)
	}
	b := addr.As16()
	return clientBits6, rendezvous.Mix(binary.BigEndian.Uint64(b[:8]) >> 16)
}
