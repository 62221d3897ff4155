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

// ZoneError is an error in a master file.
type ZoneError struct {
	File      string
	Line, Col int    // from 1; Col counts bytes
	Text      string // the line
	Msg       string
}

func (e ZoneError) Error() string { return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Col, e.Msg) }

// ParseZone is like ReadZone, for a zone in a single file without $INCLUDE. file is the name for
// errors.
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
// origin is the name of the zone, and the initial $ORIGIN of the file. read returns the text of a
// file. ReadZone calls it with the name file, and with names as they are in $INCLUDE directives.
// Errors have the same names.
//
// ReadZone returns either a zone or its errors, at most 20, in the order of the files. Apart from
// syntax errors, these are faults that no zone may have: no SOA or NS record at the apex, two SOA
// records, records outside of the zone, a CNAME beside other data or a second CNAME, and names
// below a DNAME. Below a delegation any record is accepted, and has no effect unless it is glue.
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

// begin creates an empty zone.
func (p *zoneParser) begin(origin name) {
	p.zone = &Zone{origin: origin, nodes: make(map[name]*node)}
	p.zone.apex = p.node(origin)
	p.setOrigin(origin.String())
}

// zoneFile is a file of a zone. Line numbers run on from one file to the next, so that a single
// number identifies a line.
type zoneFile struct {
	name  string
	first int    // number of its first line, from 1
	text  string // the text, while the zone is read
}

// At returns the file of a line number of this zone, and the line number in that file, from 1.
func (z *Zone) At(line int) (file string, at int) {
	f := fileAt(z.files, line)
	return f.name, line - f.first + 1
}

func fileAt(files []zoneFile, line int) *zoneFile {
	i, found := slices.BinarySearchFunc(files, line,
		func(f zoneFile, line int) int { return cmp.Compare(f.first, line) })
	if !found {
		i--
	}
	return &files[max(0, i)]
}

// line returns the text of a line without its line ending.
func (f *zoneFile) line(n int) string {
	rest := f.text
	for ; n > f.first; n-- {
		_, rest, _ = strings.Cut(rest, "\n")
	}
	text, _, _ := strings.Cut(rest, "\n")
	return strings.TrimRight(text, "\r")
}

// open reads a file. A file that can't be read takes up a line number too.
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

// Limits of $INCLUDE.
const (
	maxDepth = 10
	maxFiles = 1000
)

// include reads the file of an $INCLUDE directive. When the file ends, the origin and the last
// owner are restored (RFC 1035 section 5.1).
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
		rr := p.parseOne(e, f[2]+" 0 IN A 0.0.0.0\n")
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
	before, owner, lower, badOwner := p.origin, slices.Clone(p.owner), slices.Clone(p.lower), p.badOwner
	p.depth++
	p.setOrigin(origin)
	p.entries(included)
	p.setOrigin(before)
	p.depth--
	p.owner, p.lower, p.badOwner = owner, lower, badOwner
}

// zoneFault is an error while the zone is read.
type zoneFault struct {
	// col 0 means the first column of the line that is not blank.
	line, col int
	msg       string
}

func (p *zoneParser) failAt(e *entry, msg string) { p.fail(e.line, 0, msg) }

func (p *zoneParser) fail(line, col int, msg string) {
	p.errs = append(p.errs, zoneFault{line, col, msg})
}

// sorted returns the first maxErrors errors, in the order of the files.
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
