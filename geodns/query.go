package geodns

import (
	"encoding/binary"
	"errors"
	"unsafe"

	"github.com/miekg/dns"
)

const (
	headerLen = 12
	// The payload size that the server announces, and its maximum over UDP. Packets of this size
	// are not fragmented (DNS flag day 2020).
	ednsUDPSize = 1232
	plainSize   = 512 // RFC 1035 section 2.3.4
)

// query is a parsed query: everything that a response depends on.
type query struct {
	header [headerLen]byte
	// The question as received. The case of its name is kept (0x20). It is empty unless there is
	// exactly one question.
	question []byte
	// The name in lower case. Its bytes are in lower, so it is valid until the next parse.
	qname  name
	lower  []byte // buffer, reused for the next query
	qtype  uint16
	qclass uint16

	edns    bool
	udpSize int // size that the client accepts, at least 512
	do      bool
	co      bool // the client takes NXDOMAIN with a compact denial (RFC 9824 section 5.1)
	subnet  ecs
	nsid    bool   // the client asks which server answers (RFC 5001)
	cookie  []byte // 8, or 16 to 40 octets; nil if there is none

	tsig *dns.TSIG // nil if the query is not signed

	// nil if the client doesn't ask how long the connection stays open.
	keepalive []byte
}

var errMessage = errors.New("malformed message")

// parse parses a packet. ok is false if the packet must not be answered, because it is shorter than
// a header or is a response. A packet shorter than a header has no ID. Two servers that answer
// responses could send packets to each other forever. If rcode is not NOERROR, it is the response's
// rcode.
//
// When parse fails it keeps what it has parsed so far, so that the error response can have the
// question and an OPT record.
func (q *query) parse(req []byte) (rcode int, ok bool) {
	*q = query{lower: q.lower}
	if len(req) < headerLen || req[2]&0x80 != 0 {
		return 0, false
	}
	copy(q.header[:], req)
	rcode = q.parseSections(req)
	// Other opcodes may have another message format, so NOTIMP replaces most errors. Only an
	// unknown EDNS version and a signature come first.
	if q.opcode() != dns.OpcodeQuery && rcode != dns.RcodeBadVers && rcode != dns.RcodeNotAuth {
		rcode = dns.RcodeNotImplemented
	}
	return rcode, true
}

func (q *query) opcode() int { return int(q.header[2]>>3) & 0xf }
func (q *query) rd() bool    { return q.header[2]&0x01 != 0 }
func (q *query) cd() bool    { return q.header[3]&0x10 != 0 }

// parseSections parses the whole message. An OPT record may be anywhere in the additional section.
// A message with octets after its last record is malformed.
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

	var opt []byte // the record without its owner
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
				// RFC 6891: there is one at most, in the additional section (section 6.1.1), and
				// its owner is the root (section 6.1.2).
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
	// Without a question, a client may ask for a server cookie alone (RFC 7873 section 5.4).
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

// skipName returns the offset after the name at off. A compression pointer ends a name. pointers is
// true if compression pointers are allowed. The question must not have one, because it is the first
// name of a message and has nothing to point at.
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
