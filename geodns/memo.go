package geodns

import (
	"encoding/binary"
	"net/netip"
)

const (
	memoSlots  = 1 << 13 // 384 KiB a core; must be a power of two
	memoPicked = 8       // an answer of more nodes is not remembered
)

// memo remembers what was chosen for the networks of clients, so that a network that asks again costs neither a look into the
// database of places nor a distance. It belongs to one goroutine, and its size does not depend on what is asked: each network and family has one
// slot, which the last that came has.
//
// It is correct because resolver.pickFor depends on three things only: on the configuration, told by its generation; on the states of
// its nodes, told by the server's epoch, which is increased after each change of one; and on the address, but on no more of its bits than
// are compared here.
type memo struct {
	generation, epoch uint64
	round             uint32 // increased when one of the two has changed, which voids all slots; none is of round 0
	slots             [memoSlots]choice
}

// choice is a slot.
type choice struct {
	round    uint32
	family   uint32 // its id
	high     uint64 // the first half of an IPv6 address; an IPv4 address, and 32 bits that are 0
	low      uint64
	is4      bool
	compared uint8 // bits of the address
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
	asked := choice{round: m.round, family: f.id, is4: addr.Is4()}
	network, shift := clientBits6, 64-clientBits6
	if asked.is4 {
		b := addr.As4()
		asked.high = uint64(binary.BigEndian.Uint32(b[:])) << 32
		network, shift = clientBits4, 64-clientBits4
	} else {
		b := addr.As16()
		asked.high, asked.low = binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
	}
	slot := &m.slots[mix(asked.high>>shift^uint64(f.id)<<48)%memoSlots]
	if slot.holds(&asked) {
		r.order = r.order[:0]
		for _, index := range slot.picked[:slot.n] {
			r.order = append(r.order, ranked{index: int(index)})
		}
		return r.order, int(slot.bits), slot.allDown
	}
	picked, bits, within, allDown := r.pickFor(e, f, addr)
	if len(picked) <= memoPicked && len(f.candidates) <= 1<<16 {
		asked.bits, asked.allDown, asked.n = uint8(bits), allDown, uint8(len(picked))
		// Rendezvous hashing goes by the network, the place by as many bits as it was found for.
		asked.compared = uint8(max(network, within))
		for i, p := range picked {
			asked.picked[i] = uint16(p.index)
		}
		*slot = asked
	}
	return picked, bits, allDown
}

// holds tells whether the choice is the one for what was asked.
func (c *choice) holds(asked *choice) bool {
	if c.round != asked.round || c.family != asked.family || c.is4 != asked.is4 {
		return false
	}
	high, low := c.high^asked.high, c.low^asked.low
	if c.compared <= 64 {
		return high>>(64-c.compared) == 0
	}
	return high == 0 && low>>(128-c.compared) == 0
}
