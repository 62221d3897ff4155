package geodns

import (
	"encoding/binary"
	"time"

	"github.com/miekg/dns"
)

// The options that the server understands. It ignores all others, and doesn't echo them (RFC 6891
// section 6.1.2).
const (
	optionNSID      = 3  // RFC 5001
	optionECS       = 8  // RFC 7871
	optionCookie    = 10 // RFC 7873
	optionKeepalive = 11 // RFC 7828
)

// maxIdentity is the maximum length of Server.Identity in octets. With it, an OPT record with all
// options fits into the smallest response.
const maxIdentity = 128

// maxOPT is the maximum size in octets of an OPT record in a response over UDP: the fixed part, an
// IPv6 client subnet, NSID and a cookie.
const maxOPT = 11 + 24 + 4 + maxIdentity + 4 + ourCookie

// finish parses the OPT record, if there is one. It returns rcode if that is already an error. The
// exception is an unknown EDNS version, which takes precedence: nothing else is known about a
// message of that version.
func (q *query) finish(opt []byte, rcode int) int {
	if opt == nil {
		return rcode
	}
	q.edns = true
	// RFC 6891 section 6.2.3: values below 512 count as 512.
	q.udpSize = max(plainSize, int(binary.BigEndian.Uint16(opt[2:])))
	q.do = opt[6]&0x80 != 0
	q.co = q.do && opt[6]&0x40 != 0
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

// option parses one option. It returns false if the option is malformed. If an option is repeated,
// the first one counts.
func (q *query) option(code uint16, data []byte) bool {
	switch code {
	case optionNSID:
		q.nsid = true // the option's data has no meaning in a query (RFC 5001 section 2.1)
	case optionECS:
		if q.subnet.raw != nil {
			return true // RFC 7871 doesn't say what a second one means
		}
		subnet, err := parseECS(data)
		if err != nil {
			return false
		}
		q.subnet = subnet
	case optionCookie:
		if q.cookie != nil {
			return true // all but the first are ignored (RFC 7873 section 5)
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

// optLen returns the size in octets of the record that appendOPT appends.
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

// appendOPT appends the server's OPT record. It copies DO from the query (RFC 3225 section 3), even
// for a zone that is not signed. It adds only options that the query had.
func (r *response) appendOPT(q *query, b []byte, rcode int) []byte {
	b = append(b, 0, 0, byte(dns.TypeOPT))
	b = binary.BigEndian.AppendUint16(b, ednsUDPSize)
	b = append(b, byte(rcode>>4), 0, 0, 0)
	if q.do {
		b[len(b)-2] |= 0x80
	}
	if q.co && r.zone != nil && r.zone.signer != nil {
		b[len(b)-2] |= 0x40
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

// appendOption appends the code and the length of an option.
func appendOption(b []byte, code, size int) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(code))
	return binary.BigEndian.AppendUint16(b, uint16(size))
}
