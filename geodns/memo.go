package geodns

import (
	"encoding/binary"
	"net/netip"
)

const (
	memoSlots  = 1 << 13 // 256 KiB a core; must be a power of two
	memoPicked = 6       // an answer of more nodes is not remembered
)

// memo remembers what was chosen for the networks of clients, so that a network that asks again
// costs neither a look into the database of places nor a distance. It belongs to one goroutine, and
// its size does not depend on what is asked: each network and family has one slot, which the last
// that came has.
//
// It is correct because resolver.pickFor depends on three things only: on the configuration, told
// by its generation; on the states of its nodes, told by the server's epoch, which is increased
// after each change of one; and on the address, but on no more of its bits than are compared here.
type memo struct {
	generation, epoch uint64
	round             uint32 // increased when one of the two has changed, which voids all slots; none is of round 0
	slots             [memoSlots]choice
}

// choice is a slot, of 32 octets: half a line of the processor's cache.
type choice struct {
	round    uint32
	family   uint32 // twice its id, and one more where the address is IPv4
	address  uint64 // its first 64 bits, those beyond an IPv4 address 0; a choice that hangs on more of them is not remembered
	compared uint8  // bits of the address
	bits     uint8
	allDown  bool
	n        uint8
	picked   [memoPicked]uint16
}

// follow makes void what was remembered of another configuration or other states.
func (m *memo) follow(generation, epoch uint64) {
	if m.round == 0 || generation != m.generation || epoch != m.epoch {
		m.generation, m.epoch = generation, epoch
		if m.round++; m.round == 0 { // after four billion changes a slot could be taken for one of now
			m.slots = [memoSlots]choice{}
			m.round = 1
		}
	}
}

// pick is resolver.pickFor, remembered.
func (m *memo) pick(r *resolver, e *edge, f *family, addr netip.Addr) (picked []ranked, bits int, allDown bool) {
	asked := choice{round: m.round, family: f.id << 1}
	network := clientBits6
	if addr.Is4() {
		b := addr.As4()
		asked.address, asked.family = uint64(binary.BigEndian.Uint32(b[:]))<<32, asked.family|1
		network = clientBits4
	} else {
		b := addr.As16()
		asked.address = binary.BigEndian.Uint64(b[:8])
	}
	slot := &m.slots[mix(asked.address>>(64-network)^uint64(asked.family)<<48)%memoSlots]
	if slot.holds(&asked) {
		r.order = r.order[:0]
		for _, index := range slot.picked[:slot.n] {
			r.order = append(r.order, ranked{index: int(index)})
		}
		return r.order, int(slot.bits), slot.allDown
	}
	picked, bits, within, allDown := r.pickFor(e, f, addr)
	// Rendezvous hashing goes by the network, the place by as many bits as it was found for.
	if compared := max(network, within); compared <= 64 && len(picked) <= memoPicked && len(f.candidates) <= 1<<16 {
		asked.bits, asked.allDown, asked.n, asked.compared = uint8(bits), allDown, uint8(len(picked)), uint8(compared)
		for i, p := range picked {
			asked.picked[i] = uint16(p.index)
		}
		*slot = asked
	}
	return picked, bits, allDown
}

// holds tells whether the choice is the one for what was asked.
func (c *choice) holds(asked *choice) bool {
	return c.round == asked.round && c.family == asked.family && (c.address^asked.address)>>(64-c.compared) == 0
}
