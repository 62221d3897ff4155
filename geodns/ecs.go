package geodns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// ecs is an EDNS Client Subnet option as a query carries it (RFC 7871 section 6).
type ecs struct {
	raw    []byte     // the option's data, echoed with the scope set; nil where there is no option
	addr   netip.Addr // the address, zeros after source bits; not valid for family 0
	source int        // SOURCE PREFIX-LENGTH; 0 asks that no address be used (section 7.1.2)
}

// parseECS reads the option's data, as strictly as section 6 asks for: a malformed option is
// answered with FORMERR "as a signal to the software developer making the request to fix their
// implementation".
//
// Section 6 defines the address for families 1 and 2 only. The address of another family cannot be
// checked, nor can the answer be made for it, so it is an error too, as it is in BIND and Knot DNS.
// Family 0 is let through where it carries no address: some stubs say "do not use my address" that
// way.
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

// appendTo appends the whole option for a response: family, source and address as in the query
// (section 7.2.1), and scope.
func (e ecs) appendTo(b []byte, scope int) []byte {
	b = appendOption(b, optionECS, len(e.raw))
	at := len(b)
	b = append(b, e.raw...)
	b[at+3] = byte(scope)
	return b
}
