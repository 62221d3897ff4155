package geodns

import (
	"encoding/binary"

	"github.com/miekg/dns"
)

// signed reads the TSIG record at off; false where it is malformed. The server has no keys, so that
// every signature is by one that it does not know: the answer is NOTAUTH, and a TSIG record that
// says BADKEY (RFC 8945 section 5.2.1).
func (q *query) signed(req []byte, off int) bool {
	rr, end, err := dns.UnpackRR(req, off)
	if err != nil {
		return false
	}
	tsig, ok := rr.(*dns.TSIG)
	if !ok {
		return false
	}
	// The library takes a record that ends early. Whole ones are as long again, but for the owner,
	// which may be compressed.
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

// packTSIG is the record in wire form, or nil.
func packTSIG(t *dns.TSIG) []byte {
	record := make([]byte, dns.Len(t)+16) // as in rewire
	end, err := dns.PackRR(t, record, 0, nil, false)
	if err != nil {
		return nil
	}
	return record[:end]
}

// appendBadKey appends the TSIG record of the response, which is not signed (RFC 8945 section
// 5.3.2). One that does not fit, as may be with names of hundreds of octets in a response of 512,
// is left out.
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
