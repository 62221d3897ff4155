package world

import "net/netip"

// MTU is the size of the largest packet.
const MTU = 1500

// headerSize is an IPv4 header without options.
const headerSize = 20

// Destination reads the destination of an IPv4 packet (RFC 791, section 3.1). It is false for what
// is none: IPv6, whose neighbour discovery each new device tries, a packet that is cut short, or
// one whose length is not what it says.
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
