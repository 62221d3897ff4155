package world

import "net/netip"

// MTU is the size of the largest packet in bytes.
const MTU = 1500

// headerSize is the size of an IPv4 header without options in bytes.
const headerSize = 20

// Destination returns the destination of an IPv4 packet (RFC 791, section 3.1). It returns false
// for IPv6 (every new device tries neighbour discovery), for packets that are cut short, and for
// packets with a wrong length.
func Destination(packet []byte) (netip.Addr, bool) {
	if len(packet) < headerSize || packet[0]>>4 != 4 {
		return netip.Addr{}, false
	}
	header, total := int(packet[0]&15)*4, int(packet[2])<<8|int(packet[3])
	if header < headerSize || header > total || total != len(packet) {
		return netip.Addr{}, false
	}
	return netip.AddrFrom4([4]byte(packet[16:20])), true
}
