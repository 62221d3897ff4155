package geodns

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

const maxErrors = 20

// ZoneError is something wrong in a master file.
type ZoneError struct {
	File      string
	Line, Col int    // from 1; Col counts bytes
	Text      string // the source line
	Msg       string
}

func (e ZoneError) Error() string { return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Col, e.Msg) }

// ParseZone is ReadZone for a zone that has one file, and may not include others.
func ParseZone(r io.Reader, origin, file string) (*Zone, []ZoneError) {
	included := false
	return ReadZone(origin, file, func(string) (string, error) {
		if included {
			return "", errors.New("there is no folder to include files from")
		}
		included = true
		text, err := io.ReadAll(r)
		return string(text), err
	})
}

// ReadZone reads a zone from a master file (RFC 1035 section 5, with $TTL, $INCLUDE and $GENERATE).
// The origin is the zone's name, and what the file's relative names are below until it says
// otherwise. read gives the text of the file, and of those that it includes, by their names as they
// stand in $INCLUDE; errors carry these names.
//
// It returns a zone, or all that is wrong with it, in the order of the files, up to 20 errors: what
// does not parse, and what no zone may have: no SOA or NS at the apex, or two SOAs; records outside
// of the zone; a CNAME beside other data, or two; names below a DNAME. Below a delegation any
// record is taken, and of no consequence unless it is glue.
func ReadZone(origin, file string, read func(file string) (string, error)) (*Zone, []ZoneError) {
	p := &zoneParser{read: read}
	main, err := p.open(file)
	if err != nil {
		p.fail(1, 1, fmt.Sprintf("read: %v", err))
		return nil, p.sorted()
	}
	zone, err := nameOf(origin)
	if err != nil {
		p.fail(1, 1, fmt.Sprintf("zone %v", err))
		return nil, p.sorted()
	}
	p.begin(zone)
	p.entries(main)
	p.check()
	if len(p.errs) > 0 {
		return nil, p.sorted()
	}
	p.zone.finish()
	for _, f := range p.files {
		p.zone.files = append(p.zone.files, zoneFile{name: f.name, first: f.first})
	}
	return p.zone, nil
}

// begin makes the zone, which is empty.
func (p *zoneParser) begin(origin name) {
	p.zone = &Zone{origin: origin, nodes: make(map[name]*node)}
	p.zone.apex = p.node(origin)
	p.setOrigin(origin.String())
}

// zoneFile is a file of a zone. The lines of all of them are counted on, so that one number tells
// of a line.
type zoneFile struct {
	name  string
	first int    // number of its first line, from 1
	text  string // while it is read
}

// At tells the file of a line that the zone tells of, and the line in it.
func (z *Zone) At(line int) (file string, at int) {
	f := fileAt(z.files, line)
	return f.name, line - f.first + 1
}

func fileAt(files []zoneFile, line int) *zoneFile {
	i, found := slices.BinarySearchFunc(files, line, func(f zoneFile, line int) int { return cmp.Compare(f.first, line) })
	if !found {
		i--
	}
	return &files[max(0, i)]
}

// line is the text of a line, without its end.
func (f *zoneFile) line(n int) string {
	rest := f.text
	for ; n > f.first; n-- {
		_, rest, _ = strings.Cut(rest, "\n")
	}
	text, _, _ := strings.Cut(rest, "\n")
	return strings.TrimRight(text, "\r")
}

// open reads a file, which is counted even if it can't be read.
func (p *zoneParser) open(file string) (*zoneFile, error) {
	f := zoneFile{name: file, first: 1}
	if n := len(p.files); n > 0 {
		last := &p.files[n-1]
		f.first = last.first + strings.Count(last.text, "\n") + 1
	}
	text, err := p.read(file)
	f.text = text
	p.files = append(p.files, f)
	return &p.files[len(p.files)-1], err
}

// entries reads the entries of a file.
func (p *zoneParser) entries(f *zoneFile) {
	s := scanner{rest: f.text, line: f.first}
	for s.rest != "" {
		if len(p.errs) >= maxErrors {
			p.broken = true
			return
		}
		if e, found := s.next(); found {
			p.entry(&e)
		}
	}
}

// Bounds of what a zone may include.
const (
	maxDepth = 10
	maxFiles = 1000
)

// include reads another file in the place of a directive. What it says of the origin and the owner
// ends with it (RFC 1035 section 5.1).
func (p *zoneParser) include(e *entry) {
	f := e.fields()
	if len(f) != 2 && len(f) != 3 {
		p.failAt(e, "$INCLUDE wants a file of the zone's folder, and may have an origin after it")
		return
	}
	if p.depth == maxDepth || len(p.files) == maxFiles {
		p.failAt(e, fmt.Sprintf("$INCLUDE goes deeper than %d files, or a zone has more than %d: does a file include itself?", maxDepth, maxFiles))
		p.broken = true
		return
	}
	origin := p.origin
	if len(f) == 3 {
		rr := p.one(e, f[2]+" 0 IN A 0.0.0.0\n")
		if rr == nil {
			return
		}
		origin = rr.Header().Name
	}
	name := strings.Trim(f[1], `"`)
	included, err := p.open(name)
	if err != nil {
		p.failAt(e, fmt.Sprintf("include %s: %v", name, err))
		p.broken = true
		return
	}
	before, owner, lower, unowned := p.origin, slices.Clone(p.owner), slices.Clone(p.lower), p.unowned
	p.depth++
	p.setOrigin(origin)
	p.entries(included)
	p.setOrigin(before)
	p.depth--
	p.owner, p.lower, p.unowned = owner, lower, unowned
}

// zoneFault is an error while the rest is read.
type zoneFault struct {
	line, col int // col 0 is where the line's text begins
	msg       string
}

func (p *zoneParser) failAt(e *entry, msg string) { p.fail(e.line, 0, msg) }

func (p *zoneParser) fail(line, col int, msg string) {
	p.errs = append(p.errs, zoneFault{line, col, msg})
}

// sorted gives the errors that come first.
func (p *zoneParser) sorted() []ZoneError {
	slices.SortStableFunc(p.errs, func(a, b zoneFault) int {
		return cmp.Or(cmp.Compare(a.line, b.line), cmp.Compare(a.col, b.col), cmp.Compare(a.msg, b.msg))
	})
	var out []ZoneError
	for _, e := range p.errs[:min(len(p.errs), maxErrors)] {
		f := fileAt(p.files, e.line)
		text := f.line(e.line)
		if e.col == 0 {
			e.col = 1 + len(text) - len(strings.TrimLeft(text, " \t"))
		}
		out = append(out, ZoneError{f.name, e.line - f.first + 1, e.col, text, e.msg})
	}
	return out
}
