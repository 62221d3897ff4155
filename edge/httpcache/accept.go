package httpcache

import (
	"slices"
	"strings"
)

// Codings normalizes the lines of Accept-Encoding. It returns the accepted content codings that
// servers use, in a fixed order, such as "br, gzip, zstd", or "identity" if there are none. Weights
// are dropped, except that a coding with weight 0 is not accepted. deflate is kept only if no
// better coding is accepted.
//
// So there are at most 36 values, whatever clients send. A variant is selected by the same value
// that the origin receives. Varnish and Fastly normalize the field in a similar way.
func Codings(lines []string) string {
	const br, gzip, zstd, deflate, wildcard = 0, 3, 4, 5, 6 // indices into known:
	known := [...]string{"br", "dcb", "dcz", "gzip", "zstd", "deflate", "*"}
	var listed, accepted [len(known)]bool
	for _, m := range splitList(lines) {
		name, params, has := cut(m, ';')
		if len(name) > 2 && equalFold(name[:2], "x-") { // x-gzip means gzip (RFC 9110, section 8.4.1.3)
			name = name[2:]
		}
		for i, c := range known {
			if equalFold(name, c) {
				key, value, _ := cut(params, '=')
				weight, ok := parseWeight(value)
				listed[i], accepted[i] = true, !has || !equalFold(key, "q") || !ok || weight > 0
			}
		}
	}
	if accepted[wildcard] && !listed[gzip] {
		accepted[gzip] = true
	}
	accepted[wildcard] = false
	accepted[deflate] = accepted[deflate] && !accepted[br] && !accepted[gzip] && !accepted[zstd]
	out := make([]byte, 0, 32)
	for i, c := range known {
		if !accepted[i] {
			continue
		}
		if len(out) > 0 {
			out = append(out, ", "...)
		}
		out = append(out, c...)
	}
	if len(out) == 0 {
		return "identity"
	}
	return string(out)
}

// bestLanguage returns the language that Accept-Language gives the highest weight, or "" if several
// languages share that weight, there is none, or the value is malformed.
func bestLanguage(lines []string) string {
	best, most := "", 0
	for _, m := range splitList(lines) {
		name, params, has := cut(m, ';')
		weight := 1000
		if has {
			key, value, _ := cut(params, '=')
			var ok bool
			if weight, ok = parseWeight(value); !ok || !equalFold(key, "q") {
				return ""
			}
		}
		switch {
		case weight > most:
			best, most = name, weight
		case weight == most && !equalFold(name, best):
			best = ""
		}
	}
	return best
}

// normaliseAccept returns one form for all values of Accept-Language with the same meaning: members
// in lower case, sorted by weight and name, with weights in one format (RFC 9110, section 12.4.2).
// It returns normalise(lines) if the value does not parse.
func normaliseAccept(lines []string) string {
	type member struct {
		name   string
		weight int // in thousandths
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

// PreferredType returns the media type among offered that Accept names with the highest weight: the
// first one of several with the same weight. It returns "" if Accept names none of them. Ranges
// such as text/* don't count: clients that send them take any text (RFC 9110, section 12.5.1).
func PreferredType(accept []string, offered ...string) string {
	preferred, most := "", 0
	for _, m := range splitList(accept) {
		name, params, _ := cut(m, ';')
		weight := 1000
		for params != "" {
			var p string
			p, params, _ = cut(params, ';')
			if key, value, _ := cut(p, '='); equalFold(key, "q") {
				weight, _ = parseWeight(value)
			}
		}
		i := slices.IndexFunc(offered, func(o string) bool { return equalFold(o, name) })
		if i >= 0 && (weight > most || weight == most && weight > 0 && i < slices.Index(offered, preferred)) {
			preferred, most = offered[i], weight
		}
	}
	return preferred
}

// parseWeight parses a qvalue (RFC 9110, section 12.4.2). The result is in thousandths.
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
