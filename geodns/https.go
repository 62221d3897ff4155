package geodns

import (
	"encoding/binary"
	"slices"
	"unsafe"

	"github.com/miekg/dns"
)

// Keys of service parameters (RFC 9460 section 14.3.2).
const (
	svcALPN     = 1
	svcIPv4Hint = 4
	svcIPv6Hint = 6
)

// httpsRecord is the one HTTPS record of an answer, and the space that it is made in.
type httpsRecord struct {
	set  rrset
	data [1]string
	wire []byte
}

// of makes the record of the nodes that are answered (RFC 9460): the name itself is the target, the
// protocols are those that all of them speak beside HTTP/1.1, which is always meant, and the hints
// are their addresses, of IPv6 those of six. It is good until the next is made.
func (h *httpsRecord) of(nodes, six []*candidate) *rrset {
	h.wire = append(h.wire[:0], 0, 1, 0) // priority 1, target "."
	h.param(svcALPN, func(b []byte) []byte {
		for _, protocol := range nodes[0].alpn {
			if protocol != "http/1.1" && allSpeak(nodes, protocol) {
				b = append(b, byte(len(protocol)))
				b = append(b, protocol...)
			}
		}
		return b
	})
	h.param(svcIPv4Hint, func(b []byte) []byte {
		for _, c := range nodes {
			b = appendAddresses(b, c.four)
		}
		return b
	})
	h.param(svcIPv6Hint, func(b []byte) []byte {
		for _, c := range six {
			b = appendAddresses(b, c.six)
		}
		return b
	})
	h.data[0] = unsafe.String(&h.wire[0], len(h.wire))
	h.set = rrset{rrtype: dns.TypeHTTPS, ttl: nodes[0].ttl, data: h.data[:]}
	return &h.set
}

// param appends a parameter, unless its value is empty.
func (h *httpsRecord) param(key uint16, value func([]byte) []byte) {
	before := len(h.wire)
	h.wire = binary.BigEndian.AppendUint16(h.wire, key)
	h.wire = append(h.wire, 0, 0)
	begin := len(h.wire)
	h.wire = value(h.wire)
	if len(h.wire) == begin {
		h.wire = h.wire[:before]
		return
	}
	binary.BigEndian.PutUint16(h.wire[begin-2:], uint16(len(h.wire)-begin))
}

func allSpeak(nodes []*candidate, protocol string) bool {
	return !slices.ContainsFunc(nodes, func(c *candidate) bool { return !slices.Contains(c.alpn, protocol) })
}

func appendAddresses(b []byte, set *addressSet) []byte {
	if set == nil || set.isDead() {
		return b
	}
	for _, data := range set.now().data {
		b = append(b, data...)
	}
	return b
}
