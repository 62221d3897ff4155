package geodns

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/miekg/dns"
)

const (
	maxGenerated = 1 << 16 // records that the $GENERATE directives of a zone may make together
	maxTTL       = 1<<31 - 1
)

// zoneParser is the state between entries. Of lines it has the numbers that Zone.At takes.
type zoneParser struct {
	read   func(file string) (string, error)
	files  []zoneFile
	zone   *Zone // that is made
	space  zoneSpace
	errs   []zoneFault
	broken bool // an entry did not parse, and so what is missing may be in it
	dnames bool // there are some

	origin     string // as text
	originWire []byte
	owner      []byte // of the last record, in wire form; empty where there is none, or it did not parse
	lower      []byte // the same in lower case
	unowned    bool   // owner did not parse: records that go on with it are not to blame
	ttl        uint32 // $TTL, or else the last one given (RFC 1035 section 5.1)
	hasTTL     bool
	fixed      bool // ttl is of a $TTL (RFC 2308 section 4)

	generated int
	params    []svcParam // of the record that is read, beside those that the library reads
	depth     int        // of the file in those that include it
	data      []byte     // space for that of a record

	many map[manyOf]map[string]bool // the records of large sets
}

// noTTL stands for a TTL that a record leaves out. RFC 2181 section 8 makes it no TTL.
const noTTL = 1<<32 - 1

// entry reads one entry. Each goes to a parser of its own, for dns.ZoneParser ends with its first
// error and tells no positions of what is right; what carries over from one entry to the next is
// kept here.
func (p *zoneParser) entry(e *entry) {
	if e.err != nil {
		p.broken = true
		p.fail(e.err.line, e.err.col, e.err.msg)
		p.setOwner(e)
		return
	}
	owner := ""
	if c := e.text[0]; c <= ' ' || c >= 0x7f || c == '$' {
		owner = e.owner()
	}
	if !strings.HasPrefix(owner, "$") {
		if !p.plain(e) {
			p.records(e, e.text)
		}
		return
	}
	switch strings.ToUpper(owner) {
	case "$ORIGIN":
		// Read as an owner: the library takes a name like "a" for a type here.
		if f := e.fields(); len(f) != 2 {
			p.failAt(e, "$ORIGIN wants one name")
		} else if rr := p.one(e, f[1]+" 0 IN A 0.0.0.0\n"); rr != nil {
			p.setOrigin(rr.Header().Name)
		}
	case "$TTL":
		if rr := p.one(e, e.text+"@ IN A 0.0.0.0\n"); rr != nil {
			p.setTTL(e, rr.Header().Ttl)
			p.fixed = true
		}
	case "$GENERATE":
		p.generate(e)
	case "$INCLUDE":
		p.include(e)
	default:
		p.failAt(e, fmt.Sprintf("unknown directive %s", owner))
	}
}

// generate lets the library count; but it would give the records a TTL of its own where the
// directive has none.
func (p *zoneParser) generate(e *entry) {
	w := e.words()
	at, hasTTL := 3, false // of the type
	for ; at < len(w) && (w[at].text[0] >= '0' && w[at].text[0] <= '9' || isClass(w[at].text)); at++ {
		hasTTL = hasTTL || !isClass(w[at].text)
	}
	if at+1 >= len(w) {
		p.failAt(e, "$GENERATE wants a range, an owner, a type and data")
		return
	}
	if !hasTTL && !p.hasTTL {
		p.failAt(e, "record without a TTL; write $TTL above it")
		return
	}
	// A quoted word is what is in it, but for strings.
	plain := func(w word) string { return strings.Trim(w.text, `"`) }
	text := "$GENERATE " + plain(w[1]) + " " + plain(w[2])
	if !hasTTL {
		text += " " + strconv.Itoa(int(p.ttl))
	}
	for _, w := range w[3 : at+1] {
		text += " " + w.text
	}
	switch rrtype := strings.ToUpper(w[at].text); forms[rrtype] {
	case "one name", forms["A"], forms["AAAA"], forms["MX"], forms["SRV"]:
		for _, w := range w[at+1:] {
			text += " " + plain(w)
		}
		text += "\n"
	default:
		end := w[at].at + len(w[at].text)
		text += e.text[end:]
	}
	p.records(e, text)
}

func isClass(s string) bool {
	_, ok := dns.StringToClass[strings.ToUpper(s)]
	return ok
}

// records reads what text, that of the entry, says: one record, or what a $GENERATE makes.
func (p *zoneParser) records(e *entry, text string) {
	p.params = nil
	if _, _, rrtype := e.explain(); rrtype == "HTTPS" || rrtype == "SVCB" {
		text, p.params = numbered(e)
	}
	zp := p.parser(text)
	for rr, ok := zp.Next(); ok; rr, ok = zp.Next() {
		if strings.HasPrefix(text, "$") {
			if p.generated++; p.generated > maxGenerated {
				p.failAt(e, fmt.Sprintf("$GENERATE makes more than %d records", maxGenerated))
				return
			}
		}
		if !p.record(e, rr) {
			return
		}
	}
	if err := zp.Err(); err != nil {
		p.syntax(e, err)
		p.setOwner(e)
	}
}

// record takes what the library read; false ends the entry.
func (p *zoneParser) record(e *entry, rr dns.RR) bool {
	h := rr.Header()
	switch {
	case h.Name != "":
		p.setName(h.Name)
	case p.unowned:
		return false
	case len(p.owner) == 0:
		p.failAt(e, "record without an owner: the first of a file must name one")
		p.broken = true
		return false
	}
	if h.Class != dns.ClassINET {
		p.failAt(e, fmt.Sprintf("class %s: only IN is served", dns.Class(h.Class)))
		return false
	}
	ttl, ok := p.ttlOf(e, h.Ttl)
	if !ok {
		return false
	}
	// Some of what the library takes has no wire form.
	data, err := rewire(rr)
	if form := forms[dns.Type(h.Rrtype).String()]; err != nil && form != "" {
		err = fmt.Errorf("want %s: %w", form, err)
	}
	if err == nil && (h.Rrtype == dns.TypeSVCB || h.Rrtype == dns.TypeHTTPS) {
		data, err = svcbData(data, p.params)
	}
	if err != nil {
		p.failAt(e, fmt.Sprintf("%s: %v", dns.Type(h.Rrtype), err))
		p.broken = true
		return false
	}
	return p.add(e, record{p.owner, p.lower, h.Rrtype, ttl, data})
}

// ttlOf is the TTL of a record that has given one, or noTTL.
func (p *zoneParser) ttlOf(e *entry, given uint32) (ttl uint32, ok bool) {
	switch {
	case given == noTTL && !p.hasTTL:
		p.failAt(e, "record without a TTL; write $TTL above it")
		p.broken = true
		return 0, false
	case given == noTTL:
		return p.ttl, true
	case !p.fixed:
		p.setTTL(e, given)
	case given > maxTTL:
		p.failAt(e, "TTL above 2147483647 (RFC 2181 section 8)")
	}
	return given, true
}

// setName makes a name, absolute and read by the library, the owner.
func (p *zoneParser) setName(presentation string) {
	var wire [maxName + 1]byte
	n, err := dns.PackDomainName(presentation, wire[:], 0, nil, false)
	if p.unowned = err != nil || n > maxName; p.unowned {
		p.owner = p.owner[:0]
		return
	}
	p.owner = append(p.owner[:0], wire[:n]...)
	p.lower = append(p.lower[:0], p.owner...)
	toLower(p.lower)
}

func (p *zoneParser) setOrigin(presentation string) {
	var wire [maxName + 1]byte
	if n, err := dns.PackDomainName(presentation, wire[:], 0, nil, false); err == nil {
		p.origin, p.originWire = presentation, append(p.originWire[:0], wire[:n]...)
	}
}

func (p *zoneParser) setTTL(e *entry, ttl uint32) {
	if ttl > maxTTL {
		p.failAt(e, "TTL above 2147483647 (RFC 2181 section 8)")
	}
	p.ttl, p.hasTTL = ttl, true
}

// rewire gives the data of a record in wire form: packed, unpacked, and packed.
func rewire(rr dns.RR) ([]byte, error) {
	const header = 11 // with the root as owner
	rr.Header().Name = "."
	buf := make([]byte, 512)
	for {
		end, err := dns.PackRR(rr, buf, 0, nil, false)
		if err == nil {
			clean, _, err := dns.UnpackRR(buf[:end], 0)
			if err != nil {
				return nil, err
			}
			if end, err = dns.PackRR(clean, buf, 0, nil, false); err != nil {
				return nil, err
			}
			return buf[header:end], nil
		}
		if len(buf) > dns.MaxMsgSize {
			return nil, errors.New(strings.TrimPrefix(err.Error(), "dns: "))
		}
		buf = make([]byte, 16*len(buf))
	}
}

func (p *zoneParser) parser(text string) *dns.ZoneParser {
	// The empty line keeps the library from taking a type without data at the end for a dynamic
	// update.
	zp := dns.NewZoneParser(strings.NewReader(text+"\n"), p.origin, "")
	zp.SetDefaultTTL(noTTL)
	return zp
}

// one reads a text that holds one record, or reports what is wrong with the entry.
func (p *zoneParser) one(e *entry, text string) dns.RR {
	zp := p.parser(text)
	rr, _ := zp.Next()
	if err := zp.Err(); err != nil {
		p.syntax(e, err)
		return nil
	}
	return rr
}

// setOwner notes the owner of an entry that did not parse: records after it may go on with it.
func (p *zoneParser) setOwner(e *entry) {
	owner := e.owner()
	if owner == "" || owner[0] == '$' {
		return
	}
	rr, _ := p.parser(owner + " 0 IN A 0.0.0.0\n").Next()
	if p.unowned = rr == nil; !p.unowned {
		p.setName(rr.Header().Name)
	}
}

// atLine finds the position in a message of the library, which has no other way to tell it.
var atLine = regexp.MustCompile(`^dns: (.*) at line: (\d+):(\d+)$`)

// syntax reports an error of the library, whose lines count from the first of the entry.
func (p *zoneParser) syntax(e *entry, err error) {
	p.broken = true
	rrtype := ""
	if !strings.HasPrefix(e.text, "$") {
		wrong, msg, found := e.explain()
		if rrtype = found; wrong != nil {
			p.failWord(e, wrong, msg)
			return
		}
		if msg != "" {
			p.fail(e.line, 0, msg)
			return
		}
	}
	m := atLine.FindStringSubmatch(strings.ReplaceAll(err.Error(), "\n", " "))
	if m == nil {
		p.failAt(e, err.Error())
		return
	}
	line, _ := strconv.Atoi(m[2])
	col, _ := strconv.Atoi(m[3])
	line += e.line - 1
	if last := e.line + strings.Count(e.text, "\n") - 1; line > last {
		line, col = last, len(fileAt(p.files, last).line(last))+1 // the library has read into the line that it was given more
	}
	msg, token, _ := strings.Cut(m[1], ": \"")
	if token = strings.TrimSuffix(token, `"`); token == "" || token == `\n` {
		p.fail(line, max(1, col), say(rrtype, msg, ""))
		return
	}
	p.fail(line, p.column(line, col, token), say(rrtype, msg, token))
}

// column finds where a token begins, which the library saw end at col or just before.
func (p *zoneParser) column(line, col int, token string) int {
	text := fileAt(p.files, line).line(line)
	if at := strings.LastIndex(text[:min(len(text), col)], token); at >= 0 {
		return at + 1
	}
	return 1 + max(0, strings.Index(text, token)) // what the library was given is not quite the line
}
