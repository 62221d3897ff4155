package geodns

import (
	"encoding/binary"
	"net/netip"
)

// networkOf names the network that an address is taken to be one client with: the /24 of IPv4, the
// /56 of IPv6. Whoever has one address there may well have all.
func networkOf(addr netip.Addr) uint64 {
	if addr.Is4() {
		b := addr.As4()
		return uint64(binary.BigEndian.Uint32(b[:])) &^ 0xff
	}
	b := addr.As16()
	return binary.BigEndian.Uint64(b[:8])&^0xff | 1 // not one of IPv4
}
