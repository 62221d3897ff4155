package geodns

import (
	"encoding/binary"
	"net/netip"

	"github.com/kaiku-cdn/kaiku/fleet/rendezvous"
)

const (
	memoSlots  = 1 << 13 // 256 KiB per worker; must be a power of two
	memoPicked = 6       // answers with more nodes are not remembered
)

// memo remembers which nodes were chosen for which client networks. A client network that asks
// again then needs no database lookup and no distances. A memo belongs to one goroutine. Its size
// is fixed: each pair of network and family maps to one slot, and a new choice overwrites the slot.
//
// A remembered choice is correct because resolver.pickFor depends on three things only. The first
// is the configuration, which has a generation. The second is the states of its nodes: the server's
// epoch increases after each change of a state. The third is the leading bits of the address, which
// choice.holds compares.
type memo struct {
	generation, epoch uint64
	// The round increases when the generation or the epoch has changed, which invalidates all
	// slots. No slot in use has round 0.
	round uint32
	slots [memoSlots]choice
}

// choice is a slot. It has 32 octets, half a cache line.
type choice struct {
	round  uint32
	family uint32 // twice the family's id, plus 1 for an IPv4 address
	// The first 64 bits of the address. An IPv4 address is followed by zeros. A choice that depends
	// on more bits is not remembered.
	address  uint64
	compared uint8 // number of leading bits of address that the choice depends on
	bits     uint8
	allDown  bool
	n        uint8
	picked   [memoPicked]uint16
}

// follow invalidates all slots if the generation or the epoch has changed.
func (m *memo) follow(generation, epoch uint64) {
	if m.round == 0 || generation != m.generation || epoch != m.epoch {
		m.generation, m.epoch = generation, epoch
		// The round has wrapped after four billion changes, and old slots could look current.
		if m.round++; m.round == 0 {
			m.slots = [memoSlots]choice{}
			m.round = 1
		}
	}
}

// pick is like resolver.pickFor, but returns a remembered choice if there is one.
func (m *memo) pick(r *resolver, e *edge, f *family, addr netip.Addr) (picked []ranked, bits int, allDown bool) {
	key := choice{round: m.round, family: f.id << 1}
	network := clientBits6
	if addr.Is4() {
		b := addr.As4()
		key.address, key.family = uint64(binary.BigEndian.Uint32(b[:]))<<32, key.family|1
		network = clientBits4
	} else {
		b := addr.As16()
		key.address = binary.BigEndian.Uint64(b[:8])
	}
	slot := &m.slots[rendezvous.Mix(key.address>>(64-network)^uint64(key.family)<<48)%memoSlots]
	if slot.holds(&key) {
		r.order = r.order[:0]
		for _, index := range slot.picked[:slot.n] {
			r.order = append(r.order, ranked{index: int(index)})
		}
		return r.order, int(slot.bits), slot.allDown
	}
	picked, bits, within, allDown := r.pickFor(e, f, addr)
	// Rendezvous hashing uses the client network. The place depends on the first within bits.
	if compared := max(network, within); compared <= 64 && len(picked) <= memoPicked && len(f.candidates) <= 1<<16 {
		key.bits, key.allDown, key.n, key.compared = uint8(bits), allDown, uint8(len(picked)), uint8(compared)
		for i, p := range picked {
			key.picked[i] = uint16(p.index)
		}
		*slot = key
	}
	return picked, bits, allDown
}

// holds reports whether the slot holds the choice for key.
func (c *choice) holds(key *choice) bool {
	return c.round == key.round && c.family == key.family && (c.address^key.address)>>(64-c.compared) == 0
}
