package geodns

import "unsafe"

// zoneArena allocates what a zone consists of, close together in memory, while the zone is read. A
// zone may have millions of records.
type zoneArena struct {
	text  []byte
	nodes chunks[node]
	sets  chunks[rrset]
	data  chunks[string]
}

// keep returns a permanent copy of b.
func (s *zoneArena) keep(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	if len(s.text)+len(b) > cap(s.text) {
		s.text = make([]byte, 0, max(len(b), nextChunk(cap(s.text), 256, 64<<10)))
	}
	from := len(s.text)
	s.text = append(s.text, b...)
	return unsafe.String(&s.text[from], len(b))
}

// chunks allocates slices of one element. It takes them from larger chunks of memory. The chunks of
// a small zone are small, and a large zone has few.
type chunks[T any] struct {
	free []T
	size int // number of elements of the last chunk
}

func (p *chunks[T]) one() []T {
	if len(p.free) == 0 {
		p.size = nextChunk(p.size, 4, 1024)
		p.free = make([]T, p.size)
	}
	made := p.free[:1:1]
	p.free = p.free[1:]
	return made
}

func nextChunk(last, least, most int) int { return min(max(2*last, least), most) }

// node returns the node of a name in lower case. It creates the node and any missing empty
// non-terminals above it.
func (p *zoneParser) node(n name) *node {
	if found := p.zone.nodes[n]; found != nil {
		return found
	}
	return p.newNode(name(p.arena.keep([]byte(n))))
}

func (p *zoneParser) newNode(n name) *node {
	made := &p.arena.nodes.one()[0]
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

// newSet adds an empty RRset to a node.
func (p *zoneParser) newSet(at *node, rrtype uint16, ttl uint32, line int) *rrset {
	if at.sets == nil {
		at.sets = p.arena.sets.one()
	} else {
		at.sets = append(at.sets, rrset{})
	}
	set := &at.sets[len(at.sets)-1]
	set.rrtype, set.ttl, set.line = rrtype, ttl, int32(line)
	return set
}

// put adds a record to an RRset.
func (p *zoneParser) put(set *rrset, data []byte) {
	kept := p.arena.keep(data)
	if set.data == nil {
		set.data = p.arena.data.one()
		set.data[0] = kept
		return
	}
	set.data = append(set.data, kept)
}
