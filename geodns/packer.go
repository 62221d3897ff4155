package geodns

import (
	"cmp"
	"encoding/binary"

	"github.com/miekg/dns"
)

// packer writes a message into a buffer that ends where the message must. It may be used for one message after the other.
type packer struct {
	buf   []byte
	off   int
	class uint16 // of every record; 0 is IN

	// Names written, for compression (RFC 1035 section 4.1.4). Few enough to be searched one by one; names beyond them are
	// written out.
	names [40]struct {
		suffix string
		off    int
	}
	known int
}

// set writes an RRset whole, or returns false and leaves the message as it was, but for names that must not be pointed at:
// only a new message may follow.
func (p *packer) set(set owned) bool {
	before := p.off
	for _, data := range set.data {
		if !p.record(set, data) {
			p.off, p.known = before, 0
			return false
		}
	}
	return true
}

func (p *packer) record(set owned, data rdata) bool {
	if !p.name(set.owner) || len(p.buf)-p.off < 10 {
		return false
	}
	fixed := p.buf[p.off:]
	binary.BigEndian.PutUint16(fixed, set.rrtype)
	binary.BigEndian.PutUint16(fixed[2:], cmp.Or(p.class, dns.ClassINET))
	binary.BigEndian.PutUint32(fixed[4:], set.ttl)
	p.off += 10
	begin := p.off
	for _, part := range data {
		if part.isName {
			if !p.name(part.text) {
				return false
			}
			continue
		}
		if len(p.buf)-p.off < len(part.text) {
			return false
		}
		p.off += copy(p.buf[p.off:], part.text)
	}
	binary.BigEndian.PutUint16(fixed[8:], uint16(p.off-begin))
	return true
}

// name writes a name in wire form, with a pointer where its end has been written before, in the same case: a name is shown
// as it was written.
func (p *packer) name(n string) bool {
	for n != "\x00" {
		if at, ok := p.find(n); ok {
			if len(p.buf)-p.off < 2 {
				return false
			}
			binary.BigEndian.PutUint16(p.buf[p.off:], uint16(0xc000|at))
			p.off += 2
			return true
		}
		label := 1 + int(n[0])
		if len(p.buf)-p.off < label {
			return false
		}
		if p.known < len(p.names) && p.off < 0x4000 {
			p.names[p.known].suffix, p.names[p.known].off = n, p.off
			p.known++
		}
		p.off += copy(p.buf[p.off:], n[:label])
		n = n[label:]
	}
	if p.off == len(p.buf) {
		return false
	}
	p.buf[p.off] = 0
	p.off++
	return true
}

func (p *packer) find(suffix string) (off int, ok bool) {
	for _, seen := range p.names[:p.known] {
		if seen.suffix == suffix {
			return seen.off, true
		}
	}
	return 0, false
}
