package geodns

import (
	"cmp"
	"encoding/binary"

	"github.com/miekg/dns"
)

// packer writes a message into a buffer. The length of the buffer bounds the message. A packer may
// be reused for further messages.
type packer struct {
	buf   []byte
	off   int
	class uint16 // class of every record; 0 means IN

	// Names already written, for compression (RFC 1035 section 4.1.4). They are few enough for a
	// linear search. Once the table is full, further names are not remembered.
	names [40]struct {
		suffix string
		off    int
	}
	numNames int
}

// set writes all records of an RRset. If they don't fit it returns false and resets off. It then
// forgets all names, so only a new message may be written after that.
func (p *packer) set(set owned) bool {
	before := p.off
	for _, data := range set.data {
		if !p.record(set, data) {
			p.off, p.numNames = before, 0
			return false
		}
	}
	return true
}

func (p *packer) record(set owned, data string) bool {
	if !p.name(set.owner) || len(p.buf)-p.off < 10 {
		return false
	}
	fixed := p.buf[p.off:]
	binary.BigEndian.PutUint16(fixed, set.rrtype)
	binary.BigEndian.PutUint16(fixed[2:], cmp.Or(p.class, dns.ClassINET))
	binary.BigEndian.PutUint32(fixed[4:], set.ttl)
	p.off += 10
	begin := p.off
	if !p.data(set.rrtype, data) {
		return false
	}
	binary.BigEndian.PutUint16(fixed[8:], uint16(p.off-begin))
	return true
}

// data writes the data of a record. It compresses names where that is allowed.
func (p *packer) data(rrtype uint16, data string) bool {
	at, count := names(rrtype)
	if at > 0 {
		if !p.raw(data[:at]) {
			return false
		}
		data = data[at:]
	}
	for range count {
		end := nameLen(data)
		if !p.name(data[:end]) {
			return false
		}
		data = data[end:]
	}
	return p.raw(data)
}

func (p *packer) raw(text string) bool {
	if len(p.buf)-p.off < len(text) {
		return false
	}
	p.off += copy(p.buf[p.off:], text)
	return true
}

// nameLen returns the length in octets of the uncompressed name at the start of data.
func nameLen(data string) int {
	at := 0
	for data[at] != 0 {
		at += 1 + int(data[at])
	}
	return at + 1
}

// name writes a name. It ends the name with a pointer if the rest has been written before, in the
// same case. The client therefore sees names in the case of their source.
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
		if p.numNames < len(p.names) && p.off < 0x4000 {
			p.names[p.numNames].suffix, p.names[p.numNames].off = n, p.off
			p.numNames++
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
	for _, seen := range p.names[:p.numNames] {
		if seen.suffix == suffix {
			return seen.off, true
		}
	}
	return 0, false
}
