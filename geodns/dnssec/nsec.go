package dnssec

import "slices"

// Types that only signed zones have.
const (
	TypeRRSIG  = 46
	TypeNSEC   = 47
	TypeNXNAME = 128 // in the types of a name that doesn't exist (RFC 9824 section 3.4)
)

// AppendTypes appends the type bitmap of an NSEC record (RFC 4034 section 4.1.2). It sorts types.
func AppendTypes(b []byte, types []uint16) []byte {
	slices.Sort(types)
	for len(types) > 0 {
		window := byte(types[0] >> 8)
		at := len(b)
		b = append(b, window, 0)
		for len(types) > 0 && byte(types[0]>>8) == window {
			octet := int(types[0]&0xff) / 8
			for len(b) < at+2+octet+1 {
				b = append(b, 0)
			}
			b[at+2+octet] |= 0x80 >> (types[0] & 7)
			types = types[1:]
		}
		b[at+1] = byte(len(b) - at - 2)
	}
	return b
}
