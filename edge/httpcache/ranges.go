package httpcache

import "strings"

// Range is a range of Length bytes of a body, beginning at Start.
type Range struct{ Start, Length int64 }

// maxRanges is the maximum number of ranges of a request. A request with more gets the whole body,
// as RFC 9110, section 14.2 allows.
const maxRanges = 16

// ParseRanges parses a Range field for a body of size bytes (RFC 9110, sections 14.1.2 and 14.2).
// ok is false if the field must be ignored: its unit is unknown, it is malformed or it has too many
// ranges. If ok is true and there are no ranges, none can be satisfied and the response is 416.
func ParseRanges(field string, size int64) (ranges []Range, ok bool) {
	unit, set, found := strings.Cut(field, "=")
	if !found || !equalFold(trimOWS(unit), "bytes") {
		return nil, false
	}
	specs := 0
	for spec := range strings.SplitSeq(set, ",") {
		if spec = trimOWS(spec); spec == "" {
			continue
		}
		if specs++; specs > maxRanges {
			return nil, false
		}
		first, last, found := strings.Cut(spec, "-")
		if !found {
			return nil, false
		}
		from, fromOK := parsePosition(first)
		to, toOK := parsePosition(last)
		switch {
		case first == "" && toOK: // a suffix range: the last bytes
			if n := min(to, size); n > 0 {
				ranges = append(ranges, Range{size - n, n})
			}
		case fromOK && last == "":
			if from < size {
				ranges = append(ranges, Range{from, size - from})
			}
		case fromOK && toOK && from <= to:
			if from < size {
				ranges = append(ranges, Range{from, min(to, size-1) - from + 1})
			}
		default:
			return nil, false
		}
	}
	return ranges, specs > 0
}

// parsePosition parses a decimal number. A number that is too large to represent becomes a position
// past the end of any body.
func parsePosition(s string) (int64, bool) {
	const limit = 1 << 62
	var n int64
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		if n = n*10 + int64(s[i]-'0'); n > limit/10 {
			n = limit / 10
		}
	}
	return n, s != ""
}
