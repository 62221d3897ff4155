package httpcache

import (
	"slices"
	"strings"
)

// Codings reduces the lines of Accept-Encoding to the content codings that servers use, of those
// that a client accepts, in one order: "br, gzip, zstd". Weights are left out but for 0, and
// deflate counts only where nothing better is accepted. "identity" stands for none. So there are 36
// values, however many clients make up, and what a response is selected by is what the origin is
// sent. Varnish, Fastly and others reduce it too.
func Codings(lines []string) string {
	const br, gzip, zstd, deflate, any = 0, 3, 4, 5, 6 // places in:
	known := [...]string{"br", "dcb", "dcz", "gzip", "zstd", "deflate", "*"}
	var told, accepted [len(known)]bool
	for _, m := range splitList(lines) {
		name, params, has := cut(m, ';')
		if len(name) > 2 && equalFold(name[:2], "x-") { // x-gzip (RFC 9110, 8.4.1.3)
			name = name[2:]
		}
		for i, c := range known {
			if equalFold(name, c) {
				key, value, _ := cut(params, '=')
				weight, ok := parseWeight(value)
				told[i], accepted[i] = true, !has || !equalFold(key, "q") || !ok || weight > 0
			}
		}
	}
	if accepted[any] && !told[gzip] {
		accepted[gzip] = true
	}
	accepted[any] = false
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

// bestLanguage is the language that the lines of Accept-Language give the highest weight; "" if
// there is not a single one.
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

// normaliseAccept brings the lines of Accept-Language to one form for all that mean the same:
// members in lower case, sorted by weight and name, weights written in one way (RFC 9110, 12.4.2).
// A value that does not parse comes back as normalise has it.
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
