package geodns

import (
	"encoding/binary"

	"github.com/miekg/dns"
)

// signed parses the TSIG record at off. It returns false if the record is malformed. The server has
// no keys, so every key is unknown to it. It answers with NOTAUTH and a TSIG record that says
// BADKEY (RFC 8945 section 5.2.1).
func (q *query) signed(req []byte, off int) bool {
	rr, end, err := dns.UnpackRR(req, off)
	if err != nil {
		return false
	}
	tsig, ok := rr.(*dns.TSIG)
	if !ok {
		return false
	}
	// The library accepts a record that ends early. Packing a complete record again gives the same
	// length, except for the owner, which may have been compressed.
	_, owner, err := dns.UnpackDomainName(req, off)
	if err != nil {
		return false
	}
	record := packTSIG(tsig)
	data, err := skipName(record, 0, false)
	if err != nil || len(record)-data != end-owner {
		return false
	}
	q.tsig = tsig
	return true
}

// packTSIG returns the record in wire format, or nil if it can't be packed.
func packTSIG(t *dns.TSIG) []byte {
	record := make([]byte, dns.Len(t)+16) // dns.Len may be too low
	end, err := dns.PackRR(t, record, 0, nil, false)
	if err != nil {
		return nil
	}
	return record[:end]
}

// appendBadKey appends the TSIG record of the response, which is not signed (RFC 8945 section
// 5.3.2). If the record doesn't fit, it is left out. That can happen with names of hundreds of
// octets in a response of 512 octets.
func (q *query) appendBadKey(b []byte, limit int) (_ []byte, added bool) {
	t := *q.tsig
	t.Hdr.Class, t.Hdr.Ttl = dns.ClassANY, 0
	t.MACSize, t.MAC, t.OtherLen, t.OtherData = 0, "", 0, ""
	t.OrigId, t.Error = binary.BigEndian.Uint16(q.header[:]), dns.RcodeBadKey
	record := packTSIG(&t)
	if record == nil || len(b)+len(record) > limit {
		return b, false
	}
	return append(b, record...), true
}
