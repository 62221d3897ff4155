package httpcache

import (
	"maps"
	"net/http"
	"slices"
	"strings"
)

// PreferredCodings returns the content codings among offered that Accept-Encoding accepts (RFC
// 9110, section 12.5.3), by falling weight. Of several with the same weight, the one that is
// offered first comes first. Codings with a smaller weight than the client gives to identity are
// left out, as are those whose weight is malformed. Without the field, the result is empty.
func PreferredCodings(lines []string, offered []string) []string {
	const unlisted = -1
	var room [8]int
	weights := room[:0]
	for range offered {
		weights = append(weights, unlisted)
	}
	identity, wildcard := unlisted, unlisted
	for _, m := range splitList(lines) {
		name, weight := weighted(m)
		if len(name) > 2 && equalFold(name[:2], "x-") { // x-gzip means gzip (RFC 9110, section 8.4.1.3)
			name = name[2:]
		}
		switch {
		case name == "*":
			wildcard = weight
		case equalFold(name, "identity"):
			identity = weight
		}
		for i, c := range offered {
			if equalFold(name, c) {
				weights[i] = weight
			}
		}
	}
	var accepted []string
	for i, c := range offered {
		if weights[i] == unlisted {
			weights[i] = wildcard
		}
		if weights[i] > 0 && weights[i] >= identity {
			accepted = append(accepted, c)
		}
	}
	slices.SortStableFunc(accepted, func(a, b string) int {
		return weights[slices.Index(offered, b)] - weights[slices.Index(offered, a)]
	})
	return accepted
}

// weighted returns the name of a list member and its weight in thousandths: 1000 without one, and 0
// if it is malformed.
func weighted(member string) (name string, weight int) {
	name, params, _ := cut(member, ';')
	weight = 1000
	for params != "" {
		var p string
		p, params, _ = cut(params, ';')
		if key, value, _ := cut(p, '='); equalFold(key, "q") {
			var ok bool
			if weight, ok = parseWeight(value); !ok {
				weight = 0
			}
		}
	}
	return name, weight
}

// codedMark stands before the name of a coding in the entity tags of representations that the edge
// has coded.
const codedMark = "-kaiku-"

// Coded returns the header of the representation that the edge makes of the body with a content
// coding. The bytes differ from those of the response, so a strong entity tag gets a suffix: "a"
// becomes "a-kaiku-br" (RFC 9110, section 8.8.3.3). A weak one stays, because both have the same
// meaning. Ranges of this representation are not served.
func (s *Stored) Coded(coding string) *Stored {
	c := s.VariedByCoding()
	c.Header["Content-Encoding"] = []string{coding}
	delete(c.Header, "Accept-Ranges")
	delete(c.Header, "Content-Length")
	if etag := s.Header.Get("Etag"); etag != "" {
		if tag := parseETag(etag); !tag.weak {
			bare, quoted := strings.CutSuffix(tag.opaque, `"`)
			bare += codedMark + coding
			if quoted {
				bare += `"`
			}
			c.Header["Etag"] = []string{bare}
		}
	}
	return c
}

// VariedByCoding returns the response with Accept-Encoding in Vary. s itself stays as it is.
func (s *Stored) VariedByCoding() *Stored {
	c := *s
	c.Header = maps.Clone(s.Header)
	c.addVary("Accept-Encoding")
	return &c
}

// addVary adds a field to Vary, unless Vary covers it.
func (s *Stored) addVary(field string) {
	for _, m := range splitList(s.Header["Vary"]) {
		if m == "*" || equalFold(m, field) {
			return
		}
	}
	s.Header["Vary"] = append(slices.Clip(s.Header["Vary"]), field)
}

// RemoveCodedTags gives the entity tags of If-Match the form that the origin knows: it removes the
// suffixes of Coded.
func RemoveCodedTags(request http.Header) {
	tags := splitTags(request["If-Match"])
	changed := false
	for i, tag := range tags {
		bare, quoted := strings.CutSuffix(tag, `"`)
		at := strings.LastIndex(bare, codedMark)
		if at < 0 || strings.Trim(bare[at+len(codedMark):], "abcdefghijklmnopqrstuvwxyz") != "" {
			continue
		}
		if tags[i], changed = bare[:at], true; quoted {
			tags[i] += `"`
		}
	}
	if changed {
		request["If-Match"] = []string{strings.Join(tags, ", ")}
	}
}

// HasDatedRange reports whether the client's Range is to apply only if a date in If-Range is that
// of the response. A date doesn't tell a representation from its coded form, of which the client
// may have a part.
func HasDatedRange(request http.Header) bool {
	lines := request["If-Range"]
	return len(request["Range"]) > 0 && len(lines) > 0 && !strings.Contains(lines[0], `"`)
}
