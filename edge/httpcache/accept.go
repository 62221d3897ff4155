package httpcache

import (
	"slices"
	"strings"
)

// normaliseAccept brings the lines of Accept-Encoding or Accept-Language to one form for all that mean the same: members in lower case,
// sorted by weight and name, weights written in one way (RFC 9110, 12.4.2). A value that does not parse comes back as normalise has it.
func normaliseAccept(lines []string) string {
	type member struct {
		name   string
		weight int // thousandths
	}
	var list []member
	for _, m := range splitList(lines) {
		name, params, has := cut(m, ';')
		weight, ok := 1000, true
		if has {
			key, value, _ := cut(params, '=')
			weight, ok = parseWeight(value)
			ok = ok && equalFold(key, "q")
		}
		if !ok || strings.ContainsAny(name, "; \t") {
			return normalise(lines)
		}
		list = append(list, member{strings.ToLower(name), weight})
	}
	slices.SortFunc(list, func(a, b member) int {
		if a.weight != b.weight {
			return b.weight - a.weight
		}
		return strings.Compare(a.name, b.name)
	})
	list = slices.Compact(list)
	var b []byte
	for i, m := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, m.name...)
		if m.weight != 1000 {
			b = append(b, ";q=0."...)
			b = append(b, byte('0'+m.weight/100), byte('0'+m.weight/10%10), byte('0'+m.weight%10))
		}
	}
	return string(b)
}

// parseWeight parses a qvalue, in thousandths (RFC 9110, 12.4.2).
func parseWeight(s string) (int, bool) {
	whole, fraction, _ := strings.Cut(s, ".")
	if whole != "0" && whole != "1" || len(fraction) > 3 {
		return 0, false
	}
	n := int(whole[0] - '0')
	for i := range 3 {
		n *= 10
		if i < len(fraction) {
			if !isDigit(fraction[i]) {
				return 0, false
			}
			n += int(fraction[i] - '0')
		}
	}
	return n, n <= 1000
}

// cut cuts s at the first sep and trims the whitespace around both parts.
func cut(s string, sep byte) (before, after string, found bool) {
	before, after, found = strings.Cut(s, string(sep))
	return trimOWS(before), trimOWS(after), found
}
