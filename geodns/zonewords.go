package geodns

import "strings"

// word is a word of an entry. Words are separated by blanks. A quoted string includes its quotes.
type word struct {
	text string
	at   int // offset in the entry's text
}

// words returns the words of an entry, without parentheses and comments.
func (e *entry) words() (all []word) {
	begin, quoted := -1, false
	end := func(i int) {
		if begin >= 0 {
			all = append(all, word{e.text[begin:i], begin})
		}
		begin = -1
	}
	for i := 0; i < len(e.text); i++ {
		c := e.text[i]
		if c == '"' {
			quoted = !quoted
		} else if !quoted && strings.IndexByte(" \t\r\n();", c) >= 0 {
			end(i)
			if c == ';' {
				i += strings.IndexByte(e.text[i:], '\n') // every entry ends with a newline
			}
			continue
		}
		if begin < 0 {
			begin = i
		}
		if c == '\\' && i+1 < len(e.text) {
			i++
		}
	}
	end(len(e.text))
	return all
}

// unescaped returns the octets that a word stands for. It removes quotes and decodes escapes (RFC
// 1035 section 5.1).
func unescaped(text string) []byte {
	out := make([]byte, 0, len(text))
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"':
		case c != '\\' || i+1 == len(text):
			out = append(out, c)
		default:
			if n, ok := decimal(text[i+1:]); ok {
				out = append(out, byte(n))
				i += 3
				continue
			}
			i++
			out = append(out, text[i])
		}
	}
	return out
}

// decimal parses the three digits of an escape. The result may be more than 255.
func decimal(text string) (n int, ok bool) {
	if len(text) < 3 {
		return 0, false
	}
	for i := range 3 {
		if text[i] < '0' || text[i] > '9' {
			return 0, false
		}
		n = 10*n + int(text[i]-'0')
	}
	return n, true
}
