package geodns

import "unsafe"

// zoneSpace is where the parts of a zone are put while it is read, close together: one zone may
// have millions of them.
type zoneSpace struct {
	text  []byte
	nodes pieces[node]
	sets  pieces[rrset]
	data  pieces[string]
}

// keep copies octets, to stay.
func (s *zoneSpace) keep(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	if len(s.text)+len(b) > cap(s.text) {
		s.text = make([]byte, 0, max(len(b), nextPiece(cap(s.text), 256, 64<<10)))
	}
	from := len(s.text)
	s.text = append(s.text, b...)
	return unsafe.String(&s.text[from], len(b))
}

// pieces hands out slices of one element, of pieces of memory that are small for a small zone and
// few for a large one.
type pieces[T any] struct {
	free []T
	size int // of the last piece
}

func (p *pieces[T]) one() []T {
	if len(p.free) == 0 {
		p.size = nextPiece(p.size, 4, 1024)
		p.free = make([]T, p.size)
	}
	made := p.free[:1:1]
	p.free = p.free[1:]
	return made
}

func nextPiece(last, least, most int) int { return min(max(2*last, least), most) }

// node gives the node of a name in lower case, made with the empty non-terminals above it if need
// be.
func (p *zoneParser) node(n name) *node {
	if found := p.zone.nodes[n]; found != nil {
		return found
	}
	return p.newNode(name(p.space.keep([]byte(n))))
}

func (p *zoneParser) newNode(n name) *node {
	made := &p.space.nodes.one()[0]
	made.name = n
	p.zone.nodes[n] = made
	if n != p.zone.origin {
		above := p.zone.nodes[n.parent()]
		if above == nil {
			above = p.newNode(n.parent())
		}
		if n.isWildcard() {
			above.wild = made
		}
	}
	return made
}

// newSet adds an RRset without records to a node.
func (p *zoneParser) newSet(at *node, rrtype uint16, ttl uint32, line int) *rrset {
	if at.sets == nil {
		at.sets = p.space.sets.one()
	} else {
		at.sets = append(at.sets, rrset{})
	}
	set := &at.sets[len(at.sets)-1]
	set.rrtype, set.ttl, set.line = rrtype, ttl, int32(line)
	return set
}

// put adds a record to a set.
func (p *zoneParser) put(set *rrset, data []byte) {
	kept := p.space.keep(data)
	if set.data == nil {
		set.data = p.space.data.one()
		set.data[0] = kept
		return
	}
	set.data = append(set.data, kept)
}
