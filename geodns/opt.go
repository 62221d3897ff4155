package geodns

import (
	"encoding/binary"
	"time"

	"github.com/miekg/dns"
)

// The options that are understood. All others are ignored, and not echoed (RFC 6891 section 6.1.2).
const (
	optionNSID      = 3  // RFC 5001
	optionECS       = 8  // RFC 7871
	optionCookie    = 10 // RFC 7873
	optionKeepalive = 11 // RFC 7828
)

// maxIdentity is the longest Server.Identity, so that an OPT with all options fits into the
// smallest response.
const maxIdentity = 128

// maxOPT is the longest OPT record of a response over UDP: the fixed part, a client subnet of IPv6,
// NSID and a cookie.
const maxOPT = 11 + 24 + 4 + maxIdentity + 4 + ourCookie

// finish reads the OPT, if there is one. An error found before is the answer, but for a version
// that we don't speak: in a message of that version nothing else is known to be wrong.
func (q *query) finish(opt []byte, rcode int) int {
	if opt == nil {
		return rcode
	}
	q.edns = true
	q.udpSize = max(plainSize, int(binary.BigEndian.Uint16(opt[2:]))) // RFC 6891 section 6.2.3: less is taken as 512
	q.do = opt[6]&0x80 != 0
	if rcode != dns.RcodeSuccess {
		return rcode
	}
	if version := opt[5]; version != 0 {
		return dns.RcodeBadVers // RFC 6891 section 6.1.3
	}
	for data := opt[10:]; len(data) > 0; {
		if len(data) < 4 {
			return dns.RcodeFormatError
		}
		code, size := binary.BigEndian.Uint16(data), int(binary.BigEndian.Uint16(data[2:]))
		if len(data) < 4+size {
			return dns.RcodeFormatError
		}
		if !q.option(code, data[4:4+size:4+size]) {
			return dns.RcodeFormatError
		}
		data = data[4+size:]
	}
	return dns.RcodeSuccess
}

// option takes one option; false where it is malformed. Of two with one code the first counts.
func (q *query) option(code uint16, data []byte) bool {
	switch code {
	case optionNSID:
		q.nsid = true // what a client may have put into it means nothing (RFC 5001 section 2.1)
	case optionECS:
		if q.subnet.raw != nil {
			return true // RFC 7871 is silent on a second one
		}
		subnet, err := parseECS(data)
		if err != nil {
			return false
		}
		q.subnet = subnet
	case optionCookie:
		if q.cookie != nil {
			return true // RFC 7873 section 5: all but the first are ignored
		}
		if !cookieFits(data) {
			return false
		}
		q.cookie = data
	case optionKeepalive:
		q.keepalive = data
	}
	return true
}

// optLen is the space that appendOPT takes.
func (r *response) optLen(q *query) int {
	if !q.edns {
		return 0
	}
	n := 11
	if q.subnet.raw != nil {
		n += 4 + len(q.subnet.raw)
	}
	if r.nsid != "" {
		n += 4 + len(r.nsid)
	}
	if q.cookie != nil {
		n += 4 + len(r.cookie)
	}
	if r.keepalive > 0 {
		n += 4 + 2
	}
	return n
}

// appendOPT appends our OPT record. DO is copied (RFC 3225 section 3); the zones are not signed. An
// option is there only where the query had it.
func (r *response) appendOPT(q *query, b []byte, rcode int) []byte {
	b = append(b, 0, 0, byte(dns.TypeOPT))
	b = binary.BigEndian.AppendUint16(b, ednsUDPSize)
	b = append(b, byte(rcode>>4), 0, 0, 0)
	if q.do {
		b[len(b)-2] |= 0x80
	}
	b = binary.BigEndian.AppendUint16(b, uint16(r.optLen(q)-11))
	if q.subnet.raw != nil {
		b = q.subnet.appendTo(b, r.scope)
	}
	if r.nsid != "" {
		b = appendOption(b, optionNSID, len(r.nsid))
		b = append(b, r.nsid...)
	}
	if q.cookie != nil {
		b = appendOption(b, optionCookie, len(r.cookie))
		b = append(b, r.cookie[:]...)
	}
	if r.keepalive > 0 {
		b = appendOption(b, optionKeepalive, 2)
		b = binary.BigEndian.AppendUint16(b, uint16(r.keepalive/(100*time.Millisecond)))
	}
	return b
}

// appendOption appends the head of an option.
func appendOption(b []byte, code, size int) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(code))
	return binary.BigEndian.AppendUint16(b, uint16(size))
}
