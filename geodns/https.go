package geodns

import (
	"encoding/binary"
	"slices"
)

// Keys of service parameters (RFC 9460 section 14.3.2).
const (
	svcALPN     = 1
	svcIPv4Hint = 4
	svcIPv6Hint = 6
)

// httpsSet makes the one HTTPS record of the nodes that are answered (RFC 9460): the name itself is the target, the protocols are those that all of them speak beside
// HTTP/1.1, which is always meant, and the hints are their addresses.
func httpsSet(nodes []*candidate) *rrset {
	data := []byte{0, 1, 0} // priority 1, target "."
	var alpn []byte
	for _, protocol := range nodes[0].alpn {
		if protocol == "http/1.1" || slices.ContainsFunc(nodes, func(c *candidate) bool { return !slices.Contains(c.alpn, protocol) }) {
			continue
		}
		alpn = append(alpn, byte(len(protocol)))
		alpn = append(alpn, protocol...)
	}
	var four, six []byte
	for _, c := range nodes {
		four = appendAddresses(four, c.four)
		six = appendAddresses(six, c.six)
	}
	for _, param := range []struct {
		key   uint16
		value []byte
	}{{svcALPN, alpn}, {svcIPv4Hint, four}, {svcIPv6Hint, six}} {
		if len(param.value) > 0 {
			data = binary.BigEndian.AppendUint16(data, param.key)
			data = binary.BigEndian.AppendUint16(data, uint16(len(param.value)))
			data = append(data, param.value...)
		}
	}
	set := *nodes[0].set
	set.data = []rdata{{{string(data), false}}}
	return &set
}

func appendAddresses(b []byte, set *rrset) []byte {
	if set == nil {
		return b
	}
	for _, data := range set.data {
		b = append(b, data[0].text...)
	}
	return b
}
