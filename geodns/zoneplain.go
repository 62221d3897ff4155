package geodns

import (
	"encoding/binary"
	"net/netip"
	"strings"

	"github.com/miekg/dns"
)

// plain parses a record of a common type in its simplest form: on one line, without escapes,
// parentheses or units of time. Nearly all records of large zones have this form. plain only exists
// for speed. It returns false and changes nothing if it can't parse the entry. What it parses has
// the same meaning as with the library (FuzzPlain).
func (p *zoneParser) plain(e *entry) bool {
	w := words{rest: strings.TrimRight(e.text, " \t\r\n")}
	var space [2 * (maxName + 1)]byte
	owner, lower := p.owner, p.lower
	if w.rest[0] != ' ' && w.rest[0] != '\t' {
		owner = p.wireName(space[:0:maxName], w.next())
		lower = append(space[maxName+1:maxName+1], owner...)
		toLower(lower)
	} else if p.badOwner {
		return false
	}
	if len(owner) == 0 {
		return false
	}
	ttl, rrtype, ok := w.header()
	if !ok || ttl == noTTL && !p.hasTTL {
		return false
	}
	data, ok := p.plainData(&w, rrtype, p.data[:0])
	if !ok || !w.end() {
		return false
	}
	p.data = data
	p.owner, p.lower, p.badOwner = append(p.owner[:0], owner...), append(p.lower[:0], lower...), false
	ttl, _ = p.ttlOf(e, ttl)
	p.add(e, record{p.owner, p.lower, rrtype, ttl, data})
	return true
}

// plainType returns the type named by word if plain can parse that type, else TypeNone.
func plainType(word string) uint16 {
	switch word {
	case "A", "a":
		return dns.TypeA
	case "AAAA", "aaaa":
		return dns.TypeAAAA
	case "NS", "ns":
		return dns.TypeNS
	case "CNAME", "cname":
		return dns.TypeCNAME
	case "PTR", "ptr":
		return dns.TypePTR
	case "DNAME", "dname":
		return dns.TypeDNAME
	case "MX", "mx":
		return dns.TypeMX
	case "SRV", "srv":
		return dns.TypeSRV
	case "TXT", "txt":
		return dns.TypeTXT
	}
	return dns.TypeNone
}

// words splits a line into words.
type words struct{ rest string }

// next returns the next word. It returns "" at the end, at a comment, and at a word that is not in
// the simplest form.
func (w *words) next() string {
	w.rest = strings.TrimLeft(w.rest, " \t")
	n := 0
	for n < len(w.rest) && w.rest[n] != ' ' && w.rest[n] != '\t' {
		if c := w.rest[n]; c <= ' ' || c >= 0x7f || c == '"' || c == '\\' || c == ';' || c == '(' || c == ')' {
			return ""
		}
		n++
	}
	word := w.rest[:n]
	w.rest = w.rest[n:]
	return word
}

// end reports whether nothing but a comment is left.
func (w *words) end() bool {
	rest := strings.TrimLeft(w.rest, " \t")
	return rest == "" || rest[0] == ';' && len(rest) < len(w.rest)
}

// header parses the TTL and the class, in either order, and then the type.
func (w *words) header() (ttl uint32, rrtype uint16, ok bool) {
	ttl = noTTL
	hasClass := false
	for {
		word := w.next()
		switch {
		case word == "":
			return 0, 0, false
		case word == "IN" || word == "in":
			if hasClass {
				return 0, 0, false
			}
			hasClass = true
		case word[0] >= '0' && word[0] <= '9':
			n, ok := number32(word)
			if ttl != noTTL || !ok || n > maxTTL {
				return 0, 0, false
			}
			ttl = n
		default:
			rrtype = plainType(word)
			return ttl, rrtype, rrtype != dns.TypeNone
		}
	}
}

func number32(word string) (n uint32, ok bool) {
	if word == "" || len(word) > 10 {
		return 0, false
	}
	var sum uint64
	for i := range len(word) {
		if word[i] < '0' || word[i] > '9' {
			return 0, false
		}
		sum = 10*sum + uint64(word[i]-'0')
	}
	return uint32(sum), sum < 1<<32
}

// plainData appends the rdata of a record.
func (p *zoneParser) plainData(w *words, rrtype uint16, data []byte) ([]byte, bool) {
	numbers := 0
	switch rrtype {
	case dns.TypeA, dns.TypeAAAA:
		word := w.next()
		addr, err := netip.ParseAddr(word)
		if err != nil || addr.Zone() != "" || addr.Is4() != (rrtype == dns.TypeA) ||
			addr.Is6() && strings.Contains(word, ".") {
			return nil, false
		}
		return append(data, addr.AsSlice()...), true
	case dns.TypeTXT:
		return w.texts(data)
	case dns.TypeMX:
		numbers = 1
	case dns.TypeSRV:
		numbers = 3
	}
	for range numbers {
		n, ok := number32(w.next())
		if !ok || n > 1<<16-1 {
			return nil, false
		}
		data = binary.BigEndian.AppendUint16(data, uint16(n))
	}
	from := len(data)
	var space [maxName]byte
	data = append(data, p.wireName(space[:0], w.next())...)
	return data, len(data) > from
}

// texts appends the strings of a TXT record. They must have no escapes.
func (w *words) texts(data []byte) ([]byte, bool) {
	from := len(data)
	for !w.end() {
		var text string
		if w.rest = strings.TrimLeft(w.rest, " \t"); w.rest[0] != '"' {
			text = w.next()
		} else {
			var closed bool
			if text, w.rest, closed = strings.Cut(w.rest[1:], `"`); !closed ||
				w.rest != "" && w.rest[0] != ' ' && w.rest[0] != '\t' {
				return nil, false
			}
		}
		if text == "" || len(text) > 255 {
			return nil, false
		}
		for i := range len(text) {
			if c := text[i]; c < ' ' || c >= 0x7f || c == '\\' {
				return nil, false
			}
		}
		data = append(append(data, byte(len(text))), text...)
	}
	return data, len(data) > from
}

// wireName appends a name in wire format. It returns nil if the name is too long or not in the
// simplest form.
func (p *zoneParser) wireName(wire []byte, word string) []byte {
	switch word {
	case "":
		return nil
	case "@":
		return append(wire, p.originWire...)
	case ".":
		return append(wire, 0)
	}
	for {
		label, rest, more := strings.Cut(word, ".")
		if label == "" || len(label) > 63 || len(wire)+1+len(label) >= maxName {
			return nil
		}
		for i := range len(label) {
			switch c := label[i]; {
			case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_', c == '*',
				c == '/':
			default:
				return nil
			}
		}
		wire = append(append(wire, byte(len(label))), label...)
		switch {
		case !more && len(wire)+len(p.originWire) > maxName:
			return nil
		case !more:
			return append(wire, p.originWire...)
		case rest == "":
			return append(wire, 0)
		}
		word = rest
	}
}
