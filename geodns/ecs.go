package geodns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// ecs is the EDNS Client Subnet option of a query (RFC 7871 section 6).
type ecs struct {
	// The option's data. The response repeats it with the scope filled in. It is nil if the query
	// has no such option.
	raw []byte
	// The address. All bits after the first source bits are 0. It is invalid for family 0.
	addr netip.Addr
	// SOURCE PREFIX-LENGTH. 0 asks the server to use no address (section 7.1.2).
	source int
}

// parseECS parses the option's data as strictly as section 6 demands. A malformed option gets
// FORMERR "as a signal to the software developer making the request to fix their implementation".
//
// Section 6 defines addresses only for families 1 and 2. An address of another family can't be
// checked, and no answer can be chosen for it. It is therefore an error, as in BIND and Knot DNS.
// Family 0 without an address is accepted, because some stub resolvers use it to say "do not use my
// address".
func parseECS(b []byte) (ecs, error) {
	if len(b) < 4 {
		return ecs{}, fmt.Errorf("client subnet: %d octets, want at least 4", len(b))
	}
	family, source, scope, address := binary.BigEndian.Uint16(b), int(b[2]), b[3], b[4:]
	if scope != 0 {
		return ecs{}, errors.New("client subnet: scope is not 0 in a query")
	}
	if len(address) != (source+7)/8 {
		return ecs{}, fmt.Errorf("client subnet: %d octets of address for a /%d", len(address), source)
	}
	if spare := source % 8; spare != 0 && address[len(address)-1]<<spare != 0 {
		return ecs{}, errors.New("client subnet: bits set beyond the source prefix")
	}
	e := ecs{raw: b, source: source}
	switch family {
	case 0:
		if source != 0 {
			return ecs{}, errors.New("client subnet: an address of family 0")
		}
	case 1:
		if source > 32 {
			return ecs{}, fmt.Errorf("client subnet: IPv4 /%d", source)
		}
		var full [4]byte
		copy(full[:], address)
		e.addr = netip.AddrFrom4(full)
	case 2:
		if source > 128 {
			return ecs{}, fmt.Errorf("client subnet: IPv6 /%d", source)
		}
		var full [16]byte
		copy(full[:], address)
		e.addr = netip.AddrFrom16(full)
	default:
		return ecs{}, fmt.Errorf("client subnet: unknown family %d", family)
	}
	return e, nil
}

// appendTo appends the option for the response. Family, source and address are those of the query
// (section 7.2.1).
func (e ecs) appendTo(b []byte, scope int) []byte {
	b = appendOption(b, optionECS, len(e.raw))
	at := len(b)
	b = append(b, e.raw...)
	b[at+3] = byte(scope)
	return b
}
