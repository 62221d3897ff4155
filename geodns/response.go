package geodns

import (
	"encoding/binary"
	"slices"
	"time"
	"unsafe"

	"github.com/miekg/dns"
)

// response is what is to be said, before it is known whether it fits.
type response struct {
	rcode      int
	aa         bool
	answer     []owned
	authority  []owned
	additional []extra
	zone       *Zone  // that the name asked for is in; nil if it is in none
	truncated  bool   // says TC, whether or not it fits
	subject    name   // of the zone data that the answer begins with: that of a wildcard, not what was asked for
	scope      int    // of the client subnet
	nsid       string // who answers; "" is not said
	cookie     [ourCookie]byte
	keepalive  time.Duration // for how long the connection stays open; 0 is not said
	served     []*candidate  // nodes of an edge name that are in the answer
	allDown    bool          // of which none is healthy
}

// reset empties the response, whose slices are used again.
func (r *response) reset() {
	clear(r.answer) // what they point at need not stay
	clear(r.authority)
	clear(r.additional)
	clear(r.served)
	*r = response{answer: r.answer[:0], authority: r.authority[:0], additional: r.additional[:0], served: r.served[:0]}
}

// extra is an RRset of the additional section.
type extra struct {
	owned
	required bool // glue without which a referral leads nowhere: no room for it means TC (RFC 9471)
}

// pack writes the response into buf, whose capacity it may use, growing it where that is less than
// limit. It always fits: a header, a question and an OPT with all options take at most
// 12+259+maxOPT octets, and no limit is below 512.
func (r *response) pack(p *packer, q *query, limit int, tcp bool, buf []byte) []byte {
	if cap(buf) < limit {
		buf = make([]byte, limit)
	}
	buf = buf[:limit]
	p.buf, p.off, p.known, p.class = buf[:limit-r.optLen(q)], headerLen, 0, q.qclass
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
			rcode, aa = dns.RcodeServerFailure, false // more than a message can hold, and nowhere to send the client
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

// packSections writes the sections and counts their records; fits is false where the client must
// ask again over TCP.
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
		// The first that does not fit ends the section; those with required glue come first.
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
	set(q.cd(), 1<<4) // RFC 4035 section 3.1.6: copied
	binary.BigEndian.PutUint16(b[2:], flags)
	binary.BigEndian.PutUint16(b[4:], 0)
	if len(q.question) > 0 {
		binary.BigEndian.PutUint16(b[4:], 1)
	}
	for i, n := range counts {
		binary.BigEndian.PutUint16(b[6+2*i:], uint16(n))
	}
}

// owner is the name asked about, in wire form, in the case that it was asked in. Its bytes are the
// packet's, and good for as long as that is.
func (q *query) owner() string { return unsafe.String(&q.question[0], len(q.question)-4) }
