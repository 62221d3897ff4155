package geodns

import (
	"encoding/binary"

	"github.com/miekg/dns"
)

// signed reads the TSIG record at off; false where it is malformed. The server has no keys, so that every signature is by one
// that it does not know: the answer is NOTAUTH, and a TSIG record that says BADKEY (RFC 8945 section 5.2.1).
func (q *query) signed(req []byte, off int) bool {
	rr, _, err := dns.UnpackRR(req, off)
	if err != nil {
		return false
	}
	var ok bool
	q.tsig, ok = rr.(*dns.TSIG)
	return ok
}

// appendBadKey appends the TSIG record of the response, which is not signed (RFC 8945 section 5.3.2). One that does not fit,
// as may be with names of hundreds of octets in a response of 512, is left out.
func (q *query) appendBadKey(b []byte, limit int) (_ []byte, added bool) {
	t := *q.tsig
	t.Hdr.Class, t.Hdr.Ttl = dns.ClassANY, 0
	t.MACSize, t.MAC, t.OtherLen, t.OtherData = 0, "", 0, ""
	t.OrigId, t.Error = binary.BigEndian.Uint16(q.header[:]), dns.RcodeBadKey
	record := make([]byte, dns.Len(&t)+16) // as in newRRset
	end, err := dns.PackRR(&t, record, 0, nil, false)
	if err != nil || len(b)+end > limit {
		return b, false
	}
	return append(b, record[:end]...), true
}
