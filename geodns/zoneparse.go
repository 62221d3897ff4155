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
	maxGenerated = 1 << 16 // maximum number of records from all $GENERATE directives of a zone
	maxTTL       = 1<<31 - 1
)

// zoneParser parses a zone. It holds the state that entries pass on to the next. Its line numbers
// are those of Zone.At.
type zoneParser struct {
	read  func(file string) (string, error)
	files []zoneFile
	zone  *Zone // the zone that is built
	arena zoneArena
	errs  []zoneFault
	// Some entry didn't parse, and missing records may be in it.
	broken bool
	dnames bool // the zone has DNAME records

	origin     string // in presentation format
	originWire []byte
	// Owner of the last record, in wire format. It is empty if there is none or it didn't parse.
	owner []byte
	lower []byte // owner in lower case
	// The last owner didn't parse. Records that continue it are skipped without an error.
	badOwner         bool
	ttl              uint32 // $TTL, or else the last TTL given (RFC 1035 section 5.1)
	hasTTL           bool
	ttlFromDirective bool // ttl is from a $TTL directive (RFC 2308 section 4)

	generated int
	// Parameters of the current SVCB or HTTPS record that the library can't parse.
	params []svcParam
	depth  int    // depth of nested $INCLUDE directives
	data   []byte // buffer for the data of a record

	indexes map[setKey]map[string]bool // the records of large RRsets, by their data
}

// noTTL stands for the TTL of a record that gives none. It can't be a real TTL (RFC 2181 section
// 8).
const noTTL = 1<<32 - 1

// entry parses one entry. Each entry gets a dns.ZoneParser of its own, because that type stops at
// its first error and gives no positions of correct records. zoneParser itself keeps what carries
// over from one entry to the next.
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
		// Parse the name as an owner. In this directive the library takes a name like "a" for a
		// type.
		if f := e.fields(); len(f) != 2 {
			p.failAt(e, "$ORIGIN wants one name")
		} else if rr := p.parseOne(e, f[1]+" 0 IN A 0.0.0.0\n"); rr != nil {
			p.setOrigin(rr.Header().Name)
		}
	case "$TTL":
		if rr := p.parseOne(e, e.text+"@ IN A 0.0.0.0\n"); rr != nil {
			p.setTTL(e, rr.Header().Ttl)
			p.ttlFromDirective = true
		}
	case "$GENERATE":
		p.generate(e)
	case "$INCLUDE":
		p.include(e)
	default:
		p.failAt(e, fmt.Sprintf("unknown directive %s", owner))
	}
}

// generate has the library expand a $GENERATE directive. It inserts the TTL if the directive has
// none, because the library would use a default of its own.
func (p *zoneParser) generate(e *entry) {
	w := e.words()
	at, hasTTL := 3, false // index of the type
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
	// Quotes around a word don't belong to it, except around strings.
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

// records parses text, which is the entry's text or an equivalent of it. It has one record, or the
// records of a $GENERATE directive.
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

// record adds a record that the library has parsed. It returns false if the rest of the entry must
// be skipped.
func (p *zoneParser) record(e *entry, rr dns.RR) bool {
	h := rr.Header()
	switch {
	case h.Name != "":
		p.setName(h.Name)
	case p.badOwner:
		return false
	case len(p.owner) == 0:
		p.failAt(e, "record without an owner name: the first record of a file needs one")
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
	// The library accepts some records that have no wire format.
	data, err := wireData(rr)
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

// ttlOf returns the TTL of a record. given is the TTL in the record, or noTTL.
func (p *zoneParser) ttlOf(e *entry, given uint32) (ttl uint32, ok bool) {
	switch {
	case given == noTTL && !p.hasTTL:
		p.failAt(e, "record without a TTL; write $TTL above it")
		p.broken = true
		return 0, false
	case given == noTTL:
		return p.ttl, true
	case !p.ttlFromDirective:
		p.setTTL(e, given)
	case given > maxTTL:
		p.failAt(e, "TTL above 2147483647 (RFC 2181 section 8)")
	}
	return given, true
}

// setName sets the current owner to an absolute name that the library has parsed.
func (p *zoneParser) setName(presentation string) {
	var wire [maxName + 1]byte
	n, err := dns.PackDomainName(presentation, wire[:], 0, nil, false)
	if p.badOwner = err != nil || n > maxName; p.badOwner {
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

// wireData returns the record's rdata in wire format. It packs, unpacks and packs the record again,
// to find data that only looks valid.
func wireData(rr dns.RR) ([]byte, error) {
	const header = 11 // octets of a record header whose owner is the root
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
	// The empty line makes the library report a type without data at the end. It would take that
	// for a dynamic update otherwise.
	zp := dns.NewZoneParser(strings.NewReader(text+"\n"), p.origin, "")
	zp.SetDefaultTTL(noTTL)
	return zp
}

// parseOne parses a text with a single record. On an error it reports the error and returns nil.
func (p *zoneParser) parseOne(e *entry, text string) dns.RR {
	zp := p.parser(text)
	rr, _ := zp.Next()
	if err := zp.Err(); err != nil {
		p.syntax(e, err)
		return nil
	}
	return rr
}

// setOwner sets the current owner from an entry that didn't parse, because later records may
// continue it.
func (p *zoneParser) setOwner(e *entry) {
	owner := e.owner()
	if owner == "" || owner[0] == '$' {
		return
	}
	rr, _ := p.parser(owner + " 0 IN A 0.0.0.0\n").Next()
	if p.badOwner = rr == nil; !p.badOwner {
		p.setName(rr.Header().Name)
	}
}

// atLine parses the position in an error message of the library. The library gives the position
// nowhere else.
var atLine = regexp.MustCompile(`^dns: (.*) at line: (\d+):(\d+)$`)

// syntax reports an error of the library. The library counts lines from the start of the entry.
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
		// The library has read on into the empty line that parser added.
		line, col = last, len(fileAt(p.files, last).line(last))+1
	}
	msg, token, _ := strings.Cut(m[1], ": \"")
	if token = strings.TrimSuffix(token, `"`); token == "" || token == `\n` {
		p.fail(line, max(1, col), libraryMessage(rrtype, msg, ""))
		return
	}
	p.fail(line, p.column(line, col, token), libraryMessage(rrtype, msg, token))
}

// column returns the column where a token begins. The library gives col, where the token ends or
// one column later.
func (p *zoneParser) column(line, col int, token string) int {
	text := fileAt(p.files, line).line(line)
	if at := strings.LastIndex(text[:min(len(text), col)], token); at >= 0 {
		return at + 1
	}
	// The text that the library parsed may differ a little from the line.
	return 1 + max(0, strings.Index(text, token))
}
