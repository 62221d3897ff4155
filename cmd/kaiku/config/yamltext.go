package config

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// parse parses the file, which must have exactly one document. It adds an error if that fails.
func (d *yamlDoc) parse(text []byte) ast.Node {
	text, ok := d.readable(text)
	if !ok {
		return nil
	}
	f, err := parser.ParseBytes(text, 0, parser.AllowDuplicateMapKey()) // entries reports duplicate keys
	if err != nil {
		pos, msg := &token.Position{Line: 1, Column: 1}, err.Error()
		var y yaml.Error
		if errors.As(err, &y) && y.GetToken() != nil {
			pos, msg = y.GetToken().Position, y.GetMessage()
		}
		d.syntaxError(pos, msg)
		return nil
	}
	var body ast.Node
	for _, doc := range f.Docs {
		if doc.Body == nil || doc.Body.Type() == ast.CommentType {
			continue
		}
		if body != nil {
			pos := start(doc.Body).Position
			if doc.Start != nil {
				pos = doc.Start.Position
			}
			d.errorAt(pos, "a second document begins here, and a fleet file has one: remove the line ---, or what follows")
			return nil
		}
		body = doc.Body
	}
	if body == nil {
		d.errorAt(&token.Position{Line: 1, Column: 1}, "the file is empty: kaiku init writes a first one")
	}
	return body
}

// byteOrderMark is the mark with which some editors begin a text in UTF-8.
const byteOrderMark = "\ufeff"

const inUTF16 = "the file is in UTF-16, and UTF-8 is wanted: save it as UTF-8, or run iconv -f UTF-16 -t UTF-8"

// readable removes the byte order mark. It returns an error if the text is not UTF-8.
func (d *yamlDoc) readable(text []byte) ([]byte, bool) {
	text = bytes.TrimPrefix(text, []byte(byteOrderMark))
	if utf16(text) {
		d.errorAt(&token.Position{Line: 1, Column: 1}, inUTF16)
		return nil, false
	}
	for line := range bytes.Lines(text) {
		d.lines = append(d.lines, string(bytes.TrimRight(line, "\r\n")))
		for i := 0; i < len(line); {
			r, size := utf8.DecodeRune(line[i:])
			at := &token.Position{Line: len(d.lines), Column: 1 + utf8.RuneCount(line[:i])}
			switch {
			case r == utf8.RuneError && size == 1:
				d.lines[len(d.lines)-1] = strings.ToValidUTF8(d.lines[len(d.lines)-1], "�")
				d.errorAt(at, "the byte %#x is not UTF-8: save the file as UTF-8", line[i])
				return nil, false
			case unicode.IsControl(r) && r != '\t' && r != '\n' && r != '\r':
				d.errorAt(at, "the control character %U can't stand in a fleet file", r)
				return nil, false
			}
			i += size
		}
	}
	return text, true
}

// utf16 reports whether a text is in UTF-16. Such a text has that byte order mark, or a zero byte
// in one of its first two characters, which are ASCII in every fleet file.
func utf16(text []byte) bool {
	return bytes.HasPrefix(text, []byte("\xff\xfe")) || bytes.HasPrefix(text, []byte("\xfe\xff")) ||
		bytes.IndexByte(text[:min(4, len(text))], 0) >= 0
}

// unprintable returns a description of a character that no value may have, or "". It keeps line
// breaks, control characters and unusual spaces out of everything that is made from a fleet file:
// systemd units, commands on nodes, header fields, logs.
func unprintable(text string) string {
	i := strings.IndexFunc(text, func(r rune) bool { return !unicode.IsPrint(r) })
	if i < 0 {
		if strings.HasPrefix(text, "“") || strings.HasPrefix(text, "‘") {
			return "has typographic quotes: write \" or '"
		}
		return ""
	}
	switch r, _ := utf8.DecodeRuneInString(text[i:]); {
	case r == '\n' || r == '\r' || r == '\u0085' || r == '\u2028' || r == '\u2029':
		return "is more than one line: want a single one"
	case unicode.IsSpace(r):
		return fmt.Sprintf("has the space %U: use an ordinary one", r)
	default:
		return fmt.Sprintf("has the invisible character %U: remove it", r)
	}
}

// needsQuotes finds a text whose first character is allowed only in quotes.
var needsQuotes = regexp.MustCompile("(?:^|[\\s\\[{,])([*@`%][^\\s,\\]}:]*)")

// syntaxError returns the error for YAML that can't be parsed. The library's error names the
// parser's token. Most errors are one of a few mistakes, which syntaxError finds by the line.
func (d *yamlDoc) syntaxError(pos *token.Position, msg string) {
	for _, n := range []int{pos.Line, pos.Line + 1} {
		line := d.line(n)
		if indent := line[:len(line)-len(strings.TrimLeft(line, " \t"))]; strings.Contains(indent, "\t") {
			d.errorAt(&token.Position{Line: n, Column: 1 + strings.Index(indent, "\t")},
				"this line is indented with a tab: YAML wants spaces")
			return
		}
	}
	line := d.line(pos.Line)
	bare, _, _ := strings.Cut(line, " #")
	if m := needsQuotes.FindStringSubmatchIndex(bare); m != nil && !strings.ContainsAny(bare[:m[2]], `"'`) {
		text := bare[m[2]:m[3]]
		d.errorAt(&token.Position{Line: pos.Line, Column: 1 + utf8.RuneCountInString(bare[:m[2]])},
			"%q can't begin a text in YAML: write %q in quotes", text[0], text)
		return
	}
	for _, known := range []struct{ theirs, ours string }{
		{"end character of double-quoted", "this text begins with \" and has no \" at its end"},
		{"end character of single-quoted", "this text begins with ' and has no ' at its end"},
		{"flow mapping end token", "this { has no } that closes it"},
		{"sequence end token", "this [ has no ] that closes it"},
		{"',' or '}' must be specified", "a , or } is missing before this"},
		{"',' or ']' must be specified", "a , or ] is missing before this"},
		{"corresponding to ']'", "this ] closes no ["},
		{"corresponding to '}'", "this } closes no {"},
		{"unknown escape character", "in \"…\" a \\ begins an escape such as \\n: write \\\\, or use '…'"},
		{"block sequence entries are not allowed", "a list begins on a line of its own, below its key"},
		{"value is not allowed in this context",
			"this does not fit what stands above: is it indented as its neighbours are?"},
		{"non-map value is specified", "this has no key: want KEY: VALUE, with a space after the colon"},
		{"unexpected key name", "this has no key: want KEY: VALUE, with a space after the colon"},
		{"includes an implicit line break", "this has no key: want KEY: VALUE, with a space after the colon"},
		{"found an invalid key for this map",
			"this has no key: want KEY: VALUE, and quotes around a text that begins with a colon, as \"::1\""},
		{"could not find expected", "this has no key: want KEY: VALUE, with a space after the colon"},
	} {
		if strings.Contains(msg, known.theirs) {
			d.errorAt(pos, "%s", known.ours)
			return
		}
	}
	d.errorAt(pos, "this is not YAML: %s", msg)
}
