package main

import (
	"io"
	"strings"
	"unicode"
)

// plain is where commands print: it has no control characters but newlines and tabs. What nodes and
// origins say of themselves is printed, and a hostile one would else speak to the operator's
// terminal.
type plain struct{ to io.Writer }

// Write writes text. An error says nothing about how much of it was written.
func (p plain) Write(b []byte) (int, error) {
	text := strings.ReplaceAll(string(b), "\r\n", "\n")
	hidden := func(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\t' }
	if strings.ContainsFunc(text, hidden) || strings.ContainsRune(text, unicode.ReplacementChar) {
		text = strings.Map(func(r rune) rune { // and so what is not UTF-8 is replaced too
			if hidden(r) {
				return unicode.ReplacementChar
			}
			return r
		}, text)
	}
	if _, err := io.WriteString(p.to, text); err != nil {
		return 0, err
	}
	return len(b), nil
}
