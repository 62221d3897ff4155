package httpcache

import (
	"net/http"
	"slices"
	"strings"
	"time"
)

// VaryField is a request field that a response was chosen by, with its normalised value.
type VaryField struct {
	Name    string // canonical
	Value   string
	Present bool
}

// Variant is one of the responses stored for a URI.
type Variant struct {
	Key    Key // what the store knows it by
	Fields []VaryField
	Date   time.Time
}

// VaryFields takes from a request the fields that a response's Vary names (RFC 9111, 4.1).
func VaryFields(vary []string, request http.Header) []VaryField {
	var out []VaryField
	for _, m := range splitList(vary) {
		name := http.CanonicalHeaderKey(m)
		if slices.ContainsFunc(out, func(f VaryField) bool { return f.Name == name }) {
			continue
		}
		out = append(out, varyField(name, request))
	}
	slices.SortFunc(out, func(a, b VaryField) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// unsent are fields that a fetch for the store is sent without, or with values of the cache's own.
var unsent = map[string]bool{
	"If-Match": true, "If-Modified-Since": true, "If-None-Match": true, "If-Range": true, "If-Unmodified-Since": true, "Range": true,
}

// varyField takes one field from a request as the origin sees it.
func varyField(name string, request http.Header) VaryField {
	lines, ok := request[name]
	switch {
	case unsent[name]:
		return VaryField{Name: name}
	case name == "Accept-Encoding", name == "Accept-Language":
		return VaryField{Name: name, Value: normaliseAccept(lines), Present: ok}
	case isList[name]:
		return VaryField{Name: name, Value: normalise(lines), Present: ok}
	}
	return VaryField{Name: name, Value: strings.Join(lines, "\n"), Present: ok} // no value has that in it
}

// isList has the request fields that are lists (RFC 9110, 5.6.1), and that responses vary by. Whitespace between the members, empty
// members and the division into lines mean nothing in them; in other fields they may.
var isList = map[string]bool{
	"Accept": true, "Accept-Charset": true, "Access-Control-Request-Headers": true, "Prefer": true,
	"Sec-Ch-Ua": true, "Sec-Ch-Ua-Form-Factors": true, "Sec-Ch-Ua-Full-Version-List": true,
}

// normalise joins the members of the lines of a list, without the whitespace between them (RFC 9111, 4.1).
func normalise(lines []string) string {
	return strings.Join(splitList(lines), ",")
}

// Matches says whether a request selects this variant: all its fields match.
func (v *Variant) Matches(request http.Header) bool {
	for _, f := range v.Fields {
		if varyField(f.Name, request) != f {
			return false
		}
	}
	return true
}

// Select returns the newest variant that a request selects (RFC 9111, 4.1), or nil. Of one Date, the one that was added last is newer.
func Select(variants []Variant, request http.Header) *Variant {
	var best *Variant
	for i := range variants {
		v := &variants[i]
		if v.Matches(request) && (best == nil || !v.Date.Before(best.Date)) {
			best = v
		}
	}
	return best
}

// AddVariant returns the variants with v in place of the one with its fields, and at most limit of them, the newest.
func AddVariant(variants []Variant, v Variant, limit int) []Variant {
	out := slices.DeleteFunc(slices.Clone(variants), func(o Variant) bool { return slices.Equal(o.Fields, v.Fields) })
	if n := len(out) + 1 - limit; n > 0 {
		out = out[n:]
	}
	return append(out, v)
}
