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

// httpsRecord holds the only HTTPS record of an answer, and its buffers.
type httpsRecord struct {
	set  rrset
	data [1]string
	wire []byte
}

// build returns an RRset with the HTTPS record for the answered nodes (RFC 9460). The target is the
// owner name itself. ALPN lists the protocols that all nodes speak, except HTTP/1.1, which is
// implied. The hints are the nodes' IPv4 addresses and the IPv6 addresses of six. The RRset is
// valid until the next call.
func (h *httpsRecord) build(nodes, six []*candidate) *rrset {
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

// param appends a parameter unless its value is empty.
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
