package geodns

import (
	"encoding/binary"
	"slices"
	"time"
	"unsafe"

	"github.com/miekg/dns"
)

// response is the content of a response, before it is known whether all of it fits.
type response struct {
	rcode      int
	aa         bool
	answer     []owned
	authority  []owned
	additional []extra
	zone       *Zone // the zone of the requested name; nil if there is none
	truncated  bool  // set TC even if everything fits
	// The name in the zone that the answer begins with. For a name below a wildcard it is the
	// wildcard.
	subject name
	scope   int    // scope of the client subnet, in bits
	nsid    string // the server's identity; "" to leave it out
	cookie  [ourCookie]byte
	// How long the connection stays open; 0 to leave it out.
	keepalive time.Duration
	served    []*candidate // nodes in the answer of an edge name
	denials   []denial     // NSEC records to add, in the order of secure
	allDown   bool         // no node of the edge name is healthy
}

// reset empties the response. It keeps the slices for reuse.
func (r *response) reset() {
	clear(r.answer) // don't keep what the elements point to alive
	clear(r.authority)
	clear(r.additional)
	clear(r.served)
	clear(r.denials)
	*r = response{answer: r.answer[:0], authority: r.authority[:0], additional: r.additional[:0], served: r.served[:0],
		denials: r.denials[:0]}
}

// empty removes all records.
func (r *response) empty() {
	r.answer, r.authority, r.additional, r.denials = r.answer[:0], r.authority[:0], r.additional[:0], r.denials[:0]
}

// extra is an RRset of the additional section.
type extra struct {
	owned
	// Glue without which the referral is useless. If it doesn't fit, TC is set (RFC 9471).
	required bool
}

// pack writes the response into buf, or into a new buffer if the capacity of buf is less than
// limit. The minimal response always fits: a header, a question and an OPT record with all options
// take at most 12+259+maxOPT octets, and limit is at least 512.
func (r *response) pack(p *packer, q *query, limit int, tcp bool, buf []byte) []byte {
	if cap(buf) < limit {
		buf = make([]byte, limit)
	}
	buf = buf[:limit]
	p.buf, p.off, p.numNames, p.class = buf[:limit-r.optLen(q)], headerLen, 0, q.qclass
	copy(buf, q.header[:2])
	if len(q.question) > 0 {
		p.name(q.owner())
		p.off += copy(p.buf[p.off:], q.question[len(q.question)-4:])
	}
	questionEnd := p.off

	counts, fits := r.packSections(p)
	rcode, aa, tc := r.rcode, r.aa, r.truncated
	if !fits {
		p.off, counts = questionEnd, [3]int{}
		if tcp {
			// A TCP message can't hold the answer, and there is no other transport to try.
			rcode, aa = dns.RcodeServerFailure, false
		} else {
			tc = true
		}
	}
	out := buf[:p.off]
	if q.edns {
		out = r.appendOPT(q, out, rcode)
		counts[2]++
	}
	if q.tsig != nil && rcode == dns.RcodeNotAuth {
		var added bool
		if out, added = q.appendBadKey(out, limit); added {
			counts[2]++
		}
	}
	putHeader(out, q, rcode, aa, tc, counts)
	return out
}

// packSections writes the three sections and counts their records. fits is false if the response
// must be replaced by an empty one, because a necessary record doesn't fit.
func (r *response) packSections(p *packer) (counts [3]int, fits bool) {
	for i, section := range [...][]owned{r.answer, r.authority} {
		for _, set := range section {
			if !p.set(set) {
				return counts, false
			}
			counts[i] += len(set.data)
		}
	}
	for i, e := range r.additional {
		if p.set(e.owned) {
			counts[2] += len(e.data)
			continue
		}
		// The first RRset that doesn't fit ends the section. Required glue is at the front.
		if slices.ContainsFunc(r.additional[i:], func(e extra) bool { return e.required }) {
			return counts, false
		}
		break
	}
	return counts, true
}

func putHeader(b []byte, q *query, rcode int, aa, tc bool, counts [3]int) {
	flags := uint16(1)<<15 | uint16(q.opcode())<<11 | uint16(rcode&0xf)
	set := func(on bool, bit uint16) {
		if on {
			flags |= bit
		}
	}
	set(aa, 1<<10)
	set(tc, 1<<9)
	set(q.rd(), 1<<8)
	set(q.cd(), 1<<4) // copied from the query (RFC 4035 section 3.1.6)
	binary.BigEndian.PutUint16(b[2:], flags)
	binary.BigEndian.PutUint16(b[4:], 0)
	if len(q.question) > 0 {
		binary.BigEndian.PutUint16(b[4:], 1)
	}
	for i, n := range counts {
		binary.BigEndian.PutUint16(b[6+2*i:], uint16(n))
	}
}

// owner returns the question's name in wire format, in the case of the question. Its bytes are
// those of the packet, and are valid as long as the packet is.
func (q *query) owner() string { return unsafe.String(&q.question[0], len(q.question)-4) }
