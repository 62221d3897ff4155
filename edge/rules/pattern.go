package rules

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

const (
	maxPattern = 1000  // bytes of a pattern
	maxExpand  = 16384 // bytes of an expanded template
)

// Pattern is a glob or a regular expression over the whole of a value. The zero Pattern matches
// nothing.
type Pattern struct {
	text    string
	literal bool   // text is the only value that matches
	prefix  string // common prefix of all values that match
	expr    *regexp.Regexp
}

// ParseGlob returns the Pattern of a glob. * matches any bytes except "/", ** matches any bytes, ?
// matches one byte except "/", and \ escapes the next byte. Each * and ** is a capture.
func ParseGlob(glob string) (Pattern, error) {
	if len(glob) > maxPattern {
		return Pattern{}, fmt.Errorf("the pattern has %d bytes: want at most %d", len(glob), maxPattern)
	}
	var expr, literal strings.Builder
	wild := false
	for i := 0; i < len(glob); i++ {
		switch c := glob[i]; c {
		case '*':
			wild = true
			if strings.HasPrefix(glob[i:], "**") {
				i++
				expr.WriteString("(.*)")
			} else {
				expr.WriteString("([^/]*)")
			}
			continue
		case '?':
			wild = true
			expr.WriteString("[^/]")
			continue
		case '\\':
			if i++; i == len(glob) {
				return Pattern{}, errors.New("the pattern ends with \\, which must be followed by another byte")
			}
		}
		expr.WriteString(regexp.QuoteMeta(glob[i : i+1]))
		if !wild {
			literal.WriteByte(glob[i])
		}
	}
	p := Pattern{text: literal.String(), literal: !wild, prefix: literal.String()}
	if wild {
		var err error
		if p.expr, err = regexp.Compile("^(?s:" + expr.String() + ")$"); err != nil {
			return Pattern{}, fmt.Errorf("compile the pattern: %w", err)
		}
	}
	return p, nil
}

// ParseRegexp returns the Pattern of a regular expression in RE2's syntax. It has to match the
// whole value.
func ParseRegexp(expr string) (Pattern, error) {
	if len(expr) > maxPattern {
		return Pattern{}, fmt.Errorf("the expression has %d bytes: want at most %d", len(expr), maxPattern)
	}
	if _, err := regexp.Compile(expr); err != nil { // unchanged, so that the error quotes the user's text
		return Pattern{}, err
	}
	whole, err := regexp.Compile("^(?:" + expr + ")$")
	if err != nil {
		return Pattern{}, err
	}
	return Pattern{expr: whole}, nil
}

// Match reports whether the pattern matches a whole value.
func (p *Pattern) Match(value string) bool {
	switch {
	case p.literal:
		return value == p.text
	case p.expr == nil || !strings.HasPrefix(value, p.prefix):
		return false
	}
	return p.expr.MatchString(value)
}

// Captures returns the number of captures.
func (p *Pattern) Captures() int {
	if p.expr == nil {
		return 0
	}
	return p.expr.NumSubexp()
}

// captures returns the captures of a matching value.
func (p *Pattern) captures(value string) []string {
	if p.expr == nil {
		return nil
	}
	if found := p.expr.FindStringSubmatch(value); found != nil {
		return found[1:]
	}
	return nil
}

// Template is a text with the captures $1 to $9 of a path, and the variables $host, $path, $query
// and $uri. $$ is a dollar sign.
type Template struct{ pieces []piece }

type piece struct {
	text    string
	capture int // 1 to 9; 0 means none
	name    string
}

var variables = []string{"host", "path", "query", "uri"}

// ParseTemplate returns the Template of a text. captures is the number of captures of the path
// pattern.
func ParseTemplate(text string, captures int) (t Template, err error) {
	for text != "" {
		before, after, found := strings.Cut(text, "$")
		if before != "" {
			t.pieces = append(t.pieces, piece{text: before})
		}
		if !found {
			return t, nil
		}
		switch {
		case strings.HasPrefix(after, "$"):
			t.pieces, text = append(t.pieces, piece{text: "$"}), after[1:]
			continue
		case after != "" && after[0] >= '1' && after[0] <= '9':
			n, _ := strconv.Atoi(after[:1])
			if n > captures {
				return t, fmt.Errorf("$%d has no capture: the path pattern has %d", n, captures)
			}
			t.pieces, text = append(t.pieces, piece{capture: n}), after[1:]
			continue
		}
		name := variableAt(after)
		if name == "" {
			return t, errors.New("unknown variable after $: want $1 to $9, $host, $path, $query, $uri " +
				"or $$ for a dollar sign")
		}
		t.pieces, text = append(t.pieces, piece{name: name}), after[len(name):]
	}
	return t, nil
}

func variableAt(text string) string {
	for _, v := range variables {
		if strings.HasPrefix(text, v) {
			return v
		}
	}
	return ""
}

// expand returns the text for a request, and false if it would be longer than 16 KiB.
func (t *Template) expand(r *Request, captures []string) (string, bool) {
	var b strings.Builder
	for _, p := range t.pieces {
		switch {
		case p.capture > 0 && p.capture <= len(captures):
			escape(&b, captures[p.capture-1])
		case p.name == "host":
			b.WriteString(r.Host)
		case p.name == "path":
			b.WriteString(r.Path)
		case p.name == "query":
			b.WriteString(strings.TrimPrefix(r.Query, "?"))
		case p.name == "uri":
			b.WriteString(r.Path + r.Query)
		default:
			b.WriteString(p.text)
		}
		if b.Len() > maxExpand {
			return "", false
		}
	}
	return b.String(), true
}

// escape encodes a piece of a decoded path for a URL (RFC 3986, 3.3).
func escape(b *strings.Builder, text string) {
	const hex = "0123456789ABCDEF"
	for i := range len(text) {
		switch c := text[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9',
			strings.IndexByte("-._~!$&'()*+,;=:@/", c) >= 0:
			b.WriteByte(c)
		default:
			b.Write([]byte{'%', hex[c>>4], hex[c&15]})
		}
	}
}
