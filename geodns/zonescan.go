package geodns

import (
	"fmt"
	"strings"
)

// entry is an entry of a master file: a directive, or a record with all lines of its parentheses.
type entry struct {
	text string // with a final newline
	line int    // line number of its first character, from 1
	err  *entryError
}

// entryError is an error that makes it unclear where an entry ends.
type entryError struct {
	line, col int
	msg       string
}

// scanner splits a master file into entries (RFC 1035 section 5.1). An error in one entry then
// doesn't hide errors in later entries.
type scanner struct {
	rest string
	line int
}

// next returns the next entry. An entry ends at a newline outside of parentheses. A newline within
// quotes is an error and ends the entry too, because otherwise one forgotten quote would swallow
// the rest of the file. found is false if there were only blanks and comments.
func (s *scanner) next() (e entry, found bool) {
	e.line = s.line
	var (
		quoted, comment  bool
		open             []entryError // open parentheses
		quoteCol         int
		col, i, lineFrom int
		octet            *entryError // an escape above 255; reported only if nothing else is wrong
	)
	defer func() {
		if e.err == nil {
			e.err = octet
		}
	}()
	fail := func(line, col int, msg string) {
		if e.err == nil {
			e.err = &entryError{line, col, msg}
		}
	}
	for ; i < len(s.rest); i++ {
		col = i - lineFrom + 1
		switch c := s.rest[i]; {
		case c == '\n':
			if quoted {
				fail(s.line, quoteCol, "quote without an end")
			}
			s.line++
			lineFrom, quoted, comment = i+1, false, false
			if len(open) == 0 || e.err != nil {
				e.text, s.rest = s.rest[:i+1], s.rest[i+1:]
				return e, found
			}
		case comment, c == ' ', c == '\t', c == '\r':
		case c == '\\':
			found = true
			if n, ok := decimal(s.rest[i+1:]); ok && n > 255 && octet == nil {
				octet = &entryError{s.line, col,
					fmt.Sprintf("%s is not an octet: want \\000 to \\255 (RFC 1035 section 5.1)", s.rest[i:i+4])}
			}
			if i+1 < len(s.rest) && s.rest[i+1] != '\n' {
				i++
			}
		case c == '"':
			found = true
			quoted, quoteCol = !quoted, col
		case quoted:
		case c == ';':
			comment = true
		case c == '(':
			found = true
			open = append(open, entryError{s.line, col, "parenthesis without an end"})
		case c == ')':
			found = true
			if len(open) == 0 {
				fail(s.line, col, "parenthesis without a beginning")
				continue
			}
			open = open[:len(open)-1]
		default:
			found = true
		}
	}
	if quoted {
		fail(s.line, quoteCol, "quote without an end")
	}
	if len(open) > 0 {
		fail(open[0].line, open[0].col, open[0].msg)
	}
	e.text, s.rest = s.rest+"\n", ""
	return e, found
}

// fields returns the words of the entry's first line without its comment. That is enough for a
// directive or an owner.
func (e *entry) fields() []string {
	line, _, _ := strings.Cut(e.text, "\n")
	line, _, _ = strings.Cut(line, ";")
	return strings.Fields(line)
}

// owner returns the name at the start of the entry. It returns "" if the entry begins with a blank
// and so continues the last owner.
func (e *entry) owner() string {
	if e.text[0] == ' ' || e.text[0] == '\t' || e.text[0] == '(' {
		return ""
	}
	if fields := e.fields(); len(fields) > 0 {
		return fields[0]
	}
	return ""
}
