package geodns

import (
	"encoding/binary"
	"net/netip"
)

// networkOf returns a number for the network that addr is in: its /24 for IPv4, its /56 for IPv6.
// One client may well have all addresses of such a network, so limits count per network.
func networkOf(addr netip.Addr) uint64 {
	if addr.Is4() {
		b := addr.As4()
		return uint64(binary.BigEndian.Uint32(b[:])) &^ 0xff
	}
	b := addr.As16()
	return binary.BigEndian.Uint64(b[:8])&^0xff | 1 // keeps IPv6 numbers apart from IPv4 numbers
}
