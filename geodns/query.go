package geodns

import (
	"encoding/binary"
	"errors"
	"unsafe"

	"github.com/miekg/dns"
)

const (
	headerLen   = 12
	ednsUDPSize = 1232 // what we say that we take, and the most we send over UDP: no path fragments it (DNS flag day 2020)
	plainSize   = 512  // RFC 1035 section 2.3.4
)

// query is what a response depends on.
type query struct {
	header   [headerLen]byte
	question []byte // as it came, the case of its name kept (0x20); empty where there is not one question
	qname    name   // its bytes are in lower: of the query, and no longer good when the query is parsed again
	lower    []byte // may be kept from query to query
	qtype    uint16
	qclass   uint16

	edns    bool
	udpSize int // what the client takes, at least 512
	do      bool
	subnet  ecs
	nsid    bool   // the client wants to know which server answers (RFC 5001)
	cookie  []byte // of 8, or 16 to 40 octets; nil where there is none

	tsig *dns.TSIG // nil where the query is not signed

	keepalive []byte // nil where the client does not ask for how long the connection stays open
}

var errMessage = errors.New("malformed message")

// parse reads a packet. ok is false where it must not be answered: shorter than a header, there
// being no id to answer to, or a response, which must not be answered lest two servers talk
// forever. A rcode other than NOERROR is the answer.
//
// What was understood before an error is in the query, so that an error is answered with the
// question and an OPT.
func (q *query) parse(req []byte) (rcode int, ok bool) {
	*q = query{lower: q.lower}
	if len(req) < headerLen || req[2]&0x80 != 0 {
		return 0, false
	}
	copy(q.header[:], req)
	rcode = q.parseSections(req)
	// The form of a message is that of its opcode; only a foreign EDNS version and a signature come
	// before.
	if q.opcode() != dns.OpcodeQuery && rcode != dns.RcodeBadVers && rcode != dns.RcodeNotAuth {
		rcode = dns.RcodeNotImplemented
	}
	return rcode, true
}

func (q *query) opcode() int { return int(q.header[2]>>3) & 0xf }
func (q *query) rd() bool    { return q.header[2]&0x01 != 0 }
func (q *query) cd() bool    { return q.header[3]&0x10 != 0 }

// parseSections walks the whole message: an OPT may stand anywhere in the additional section, and
// what does not parse to its last octet is FORMERR.
func (q *query) parseSections(req []byte) (rcode int) {
	questions := int(binary.BigEndian.Uint16(req[4:]))
	off := headerLen
	for range questions {
		end, err := skipName(req, off, false)
		if err != nil || end+4 > len(req) {
			q.question = nil
			return dns.RcodeFormatError
		}
		if questions == 1 {
			q.setQuestion(req[off : end+4])
		}
		off = end + 4
	}

	var opt []byte // the whole record after its owner
	for section := 1; section <= 3; section++ {
		records := binary.BigEndian.Uint16(req[4+2*section:])
		for i := range records {
			end, err := skipName(req, off, true)
			if err != nil || end+10 > len(req) {
				return q.finish(opt, dns.RcodeFormatError)
			}
			next := end + 10 + int(binary.BigEndian.Uint16(req[end+8:]))
			if next > len(req) {
				return q.finish(opt, dns.RcodeFormatError)
			}
			if binary.BigEndian.Uint16(req[end:]) == dns.TypeOPT {
				// RFC 6891 section 6.1.1: one, in the additional section; 6.1.2: the root owns it.
				if section != 3 || opt != nil || end != off+1 {
					return q.finish(opt, dns.RcodeFormatError)
				}
				opt = req[end:next]
			}
			if binary.BigEndian.Uint16(req[end:]) == dns.TypeTSIG {
				if section != 3 || i != records-1 || !q.signed(req, off) {
					return q.finish(opt, dns.RcodeFormatError) // RFC 8945 section 5.1
				}
			}
			off = next
		}
	}
	if off != len(req) || questions > 1 {
		return q.finish(opt, dns.RcodeFormatError)
	}
	rcode = q.finish(opt, dns.RcodeSuccess)
	if q.tsig != nil && rcode == dns.RcodeSuccess {
		return dns.RcodeNotAuth
	}
	// Without a question a client may ask for a server cookie alone (RFC 7873 section 5.4).
	if questions == 0 && q.cookie == nil && rcode == dns.RcodeSuccess {
		rcode = dns.RcodeFormatError
	}
	return rcode
}

func (q *query) setQuestion(b []byte) {
	q.question = b
	at := len(b) - 4
	q.lower = append(q.lower[:0], b[:at]...)
	toLower(q.lower)
	q.qname = name(unsafe.String(&q.lower[0], at))
	q.qtype = binary.BigEndian.Uint16(b[at:])
	q.qclass = binary.BigEndian.Uint16(b[at+2:])
}

// skipName gives the offset after the name at off. A pointer ends a name; the question, the first
// name of a message, has nothing to point at.
func skipName(b []byte, off int, pointers bool) (int, error) {
	for start := off; off < len(b) && off-start < maxName; {
		switch c := int(b[off]); {
		case c == 0:
			return off + 1, nil
		case c < 0x40:
			off += 1 + c
		case c >= 0xc0 && pointers && off+2 <= len(b):
			return off + 2, nil
		default:
			return 0, errMessage
		}
	}
	return 0, errMessage
}
