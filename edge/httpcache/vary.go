package httpcache

import (
	"crypto/sha256"
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
	// Language is the response's Content-Language.
	Language string
}

// maxVary bounds the fields that a stored response may vary by. Each look-up compares all of them.
const maxVary = 32

// VaryFields takes from a request the fields that a response's Vary names (RFC 9111, 4.1).
func VaryFields(vary []string, request http.Header) []VaryField {
	var out []VaryField
	for _, name := range varyNames(vary) {
		out = append(out, varyField(name, request))
	}
	return out
}

// varyNames are the names in Vary, each once and in order.
func varyNames(vary []string) []string {
	names := splitList(vary)
	for i, m := range names {
		names[i] = http.CanonicalHeaderKey(m)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// VaryByCoding has a response whose content is coded vary by Accept-Encoding, if it does not say
// so: it can't be read by a client that takes no such coding. Servers that compress, and leave Vary
// out, are common (nginx without gzip_vary).
func (s *Stored) VaryByCoding() {
	if c := s.Header.Get("Content-Encoding"); c == "" || equalFold(c, "identity") {
		return
	}
	for _, m := range splitList(s.Header["Vary"]) {
		if m == "*" || equalFold(m, "Accept-Encoding") {
			return
		}
	}
	s.Header["Vary"] = append(slices.Clip(s.Header["Vary"]), "Accept-Encoding")
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
	case name == "Accept-Encoding":
		if ok {
			return VaryField{Name: name, Value: Codings(lines), Present: true}
		}
		return VaryField{Name: name}
	case name == "Accept-Language":
		return VaryField{Name: name, Value: short(normaliseAccept(lines)), Present: ok}
	case isList[name]:
		return VaryField{Name: name, Value: short(normalise(lines)), Present: ok}
	}
	return VaryField{Name: name, Value: short(strings.Join(lines, "\n")), Present: ok} // no value has that in it
}

// longValue is the length from which a hash stands for a value, in bytes. The record of a URI has
// the values of all its variants, and clients choose them.
const longValue = 64

// short returns a value, or what stands for a long one. It begins with NUL, which no value has in
// it, so that no other value is taken for it.
func short(value string) string {
	if len(value) < longValue {
		return value
	}
	h := sha256.Sum256([]byte(value))
	return "\x00" + string(h[:16])
}

// isList has the request fields that are lists (RFC 9110, 5.6.1), and that responses vary by.
// Whitespace between the members, empty members and the division into lines mean nothing in them;
// in other fields they may.
var isList = map[string]bool{
	"Accept": true, "Accept-Charset": true, "Access-Control-Request-Headers": true, "Prefer": true,
	"Sec-Ch-Ua": true, "Sec-Ch-Ua-Form-Factors": true, "Sec-Ch-Ua-Full-Version-List": true,
}

// normalise joins the members of the lines of a list, without the whitespace between them (RFC
// 9111, 4.1).
func normalise(lines []string) string {
	return strings.Join(splitList(lines), ",")
}

// Matches reports whether a request selects this variant: all its fields match.
func (v *Variant) Matches(request http.Header) bool {
	return v.matches(&requestFields{header: request})
}

func (v *Variant) matches(request *requestFields) bool {
	for _, f := range v.Fields {
		if request.get(f.Name) != f {
			return false
		}
	}
	return true
}

// requestFields are the fields of a request, each read once.
type requestFields struct {
	header http.Header
	read   []VaryField
}

func (r *requestFields) get(name string) VaryField {
	for _, f := range r.read {
		if f.Name == name {
			return f
		}
	}
	f := varyField(name, r.header)
	r.read = append(r.read, f)
	return f
}

// Select returns the newest variant that a request selects (RFC 9111, 4.1), or nil. Of one Date,
// the one that was added last is newer.
func Select(variants []Variant, request http.Header) *Variant {
	var best *Variant
	fields := requestFields{header: request}
	for i := range variants {
		v := &variants[i]
		if v.matches(&fields) && (best == nil || !v.Date.Before(best.Date)) {
			best = v
		}
	}
	if best != nil {
		return best
	}
	for i := range variants {
		v := &variants[i]
		if v.speaks(&fields) && (best == nil || !v.Date.Before(best.Date)) {
			best = v
		}
	}
	return best
}

// Speaks reports whether a variant that a request does not select by the letter is in the language
// that its client wants before all others, and matches in all other fields: of what the origin has,
// it would be chosen (RFC 9111, 4.1).
func (v *Variant) Speaks(request http.Header) bool {
	return v.speaks(&requestFields{header: request})
}

func (v *Variant) speaks(request *requestFields) bool {
	if v.Language == "" {
		return false
	}
	chosen := false
	for _, f := range v.Fields {
		if f.Name == "Accept-Language" {
			chosen = equalFold(v.Language, bestLanguage(request.header["Accept-Language"]))
		} else if request.get(f.Name) != f {
			return false
		}
	}
	return chosen
}

// AddVariant returns the variants with v in place of the one with its fields, and at most limit of
// them. The oldest goes of those that nobody uses, and else the oldest of all.
func AddVariant(variants []Variant, v Variant, limit int, used func(Key) bool) []Variant {
	out := slices.DeleteFunc(slices.Clone(variants), func(o Variant) bool { return slices.Equal(o.Fields, v.Fields) })
	for len(out) >= limit {
		i := max(0, slices.IndexFunc(out, func(o Variant) bool { return !used(o.Key) }))
		out = slices.Delete(out, i, i+1)
	}
	return append(out, v)
}
