package main

import (
	"io"
	"strings"
	"unicode"
)

// plain is the output of all commands. It replaces control characters other than newlines and tabs,
// because commands print texts from nodes and origins, and a hostile one could send escape
// sequences to the operator's terminal.
type plain struct{ to io.Writer }

// Write writes text. After an error, the returned count does not say how much was written.
func (p plain) Write(b []byte) (int, error) {
	text := strings.ReplaceAll(string(b), "\r\n", "\n")
	hidden := func(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\t' }
	if strings.ContainsFunc(text, hidden) || strings.ContainsRune(text, unicode.ReplacementChar) {
		text = strings.Map(func(r rune) rune { // this also replaces invalid UTF-8
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
