package httpcache

import "strings"

// Structured fields (RFC 9651), as far as a cache reads them: Dictionaries and Lists whose members may be of any type, strictly
// parsed, because RFC 9213 and RFC 9875 have a field that does not parse be ignored whole.

// sfKind is the type of an Item.
type sfKind int

const (
	sfInteger sfKind = iota
	sfDecimal
	sfString
	sfToken
	sfBytes
	sfBoolean
	sfDate
	sfDisplay
	sfInner // an inner list
)

// sfItem is the bare item of a member. Parameters are parsed, and dropped: no field that is read here uses them.
type sfItem struct {
	kind sfKind
	n    int64 // of an Integer or a Date
	b    bool
	s    string // of a String or a Token
}

// sfParser goes through the joined lines of a field.
type sfParser struct {
	s string
	i int
}

// parseSFDictionary parses a Dictionary (RFC 9651, 4.2.2). A key that comes again replaces the one before.
func parseSFDictionary(lines []string) (map[string]sfItem, bool) {
	p := &sfParser{s: strings.Join(lines, ",")}
	out := map[string]sfItem{}
	ok := p.list(func() bool {
		key, ok := p.key()
		if !ok {
			return false
		}
		item := sfItem{kind: sfBoolean, b: true}
		if p.eat('=') {
			if item, ok = p.member(); !ok {
				return false
			}
		}
		out[key] = item
		return p.parameters()
	})
	return out, ok
}

// parseSFList parses a List (RFC 9651, 4.2.1).
func parseSFList(lines []string) ([]sfItem, bool) {
	p := &sfParser{s: strings.Join(lines, ",")}
	var out []sfItem
	ok := p.list(func() bool {
		item, ok := p.member()
		out = append(out, item)
		return ok && p.parameters()
	})
	return out, ok
}

// list calls member for each member of a Dictionary or List; it has to be followed by a comma or the end.
func (p *sfParser) list(member func() bool) bool {
	p.skip(" ")
	for p.i < len(p.s) {
		if !member() {
			return false
		}
		p.skip(" \t")
		if p.i == len(p.s) {
			return true
		}
		if !p.eat(',') {
			return false
		}
		p.skip(" \t")
		if p.i == len(p.s) {
			return false // a comma at the end
		}
	}
	return true
}

func (p *sfParser) skip(set string) {
	for p.i < len(p.s) && strings.IndexByte(set, p.s[p.i]) >= 0 {
		p.i++
	}
}

func (p *sfParser) eat(c byte) bool {
	if p.i < len(p.s) && p.s[p.i] == c {
		p.i++
		return true
	}
	return false
}

// while returns the longest run of bytes that ok takes.
func (p *sfParser) while(ok func(c byte) bool) string {
	begin := p.i
	for p.i < len(p.s) && ok(p.s[p.i]) {
		p.i++
	}
	return p.s[begin:p.i]
}

func isLower(c byte) bool { return 'a' <= c && c <= 'z' }
func isAlpha(c byte) bool { return isLower(c | 0x20) }
func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func (p *sfParser) key() (string, bool) {
	k := p.while(func(c byte) bool { return isLower(c) || isDigit(c) || strings.IndexByte("_-.*", c) >= 0 })
	return k, k != "" && (isLower(k[0]) || k[0] == '*')
}

func (p *sfParser) parameters() bool {
	for p.eat(';') {
		p.skip(" ")
		if _, ok := p.key(); !ok {
			return false
		}
		if p.eat('=') {
			if _, ok := p.item(); !ok {
				return false
			}
		}
	}
	return true
}

// member parses an Item or an Inner List, without its own parameters.
func (p *sfParser) member() (sfItem, bool) {
	if !p.eat('(') {
		return p.item()
	}
	for {
		p.skip(" ")
		if p.eat(')') {
			return sfItem{kind: sfInner}, true
		}
		if _, ok := p.item(); !ok || !p.parameters() {
			return sfItem{}, false
		}
		if p.i == len(p.s) || p.s[p.i] != ' ' && p.s[p.i] != ')' {
			return sfItem{}, false
		}
	}
}

func (p *sfParser) item() (sfItem, bool) {
	if p.i == len(p.s) {
		return sfItem{}, false
	}
	switch c := p.s[p.i]; {
	case c == '-' || isDigit(c):
		return p.number()
	case c == '"':
		s, ok := p.quoted()
		return sfItem{kind: sfString, s: s}, ok
	case c == '*' || isAlpha(c):
		s := p.while(func(c byte) bool { return isTokenByte(c) || c == ':' || c == '/' })
		return sfItem{kind: sfToken, s: s}, true
	case c == ':':
		p.i++
		p.while(func(c byte) bool { return isAlpha(c) || isDigit(c) || strings.IndexByte("+/=", c) >= 0 })
		return sfItem{kind: sfBytes}, p.eat(':')
	case c == '?':
		p.i++
		b := p.eat('1')
		return sfItem{kind: sfBoolean, b: b}, b || p.eat('0')
	case c == '@':
		p.i++
		n, ok := p.number()
		return sfItem{kind: sfDate, n: n.n}, ok && n.kind == sfInteger
	case c == '%':
		p.i++
		_, ok := p.quoted()
		return sfItem{kind: sfDisplay}, ok
	}
	return sfItem{}, false
}

// number parses an Integer of up to 15 digits or a Decimal of up to 12 and 3 (RFC 9651, 4.2.4).
func (p *sfParser) number() (sfItem, bool) {
	negative := p.eat('-')
	digits := p.while(isDigit)
	if digits == "" || len(digits) > 15 {
		return sfItem{}, false
	}
	if p.eat('.') {
		fraction := p.while(isDigit)
		return sfItem{kind: sfDecimal}, len(digits) <= 12 && len(fraction) >= 1 && len(fraction) <= 3
	}
	var n int64
	for i := range len(digits) {
		n = n*10 + int64(digits[i]-'0')
	}
	if negative {
		n = -n
	}
	return sfItem{kind: sfInteger, n: n}, true
}

func (p *sfParser) quoted() (string, bool) {
	if !p.eat('"') {
		return "", false
	}
	var b []byte
	for p.i < len(p.s) {
		c := p.s[p.i]
		p.i++
		switch {
		case c == '"':
			return string(b), true
		case c == '\\':
			if p.i == len(p.s) || p.s[p.i] != '"' && p.s[p.i] != '\\' {
				return "", false
			}
			c = p.s[p.i]
			p.i++
		case c < 0x20 || c > 0x7e:
			return "", false
		}
		b = append(b, c)
	}
	return "", false
}
