package httpcache

import (
	"crypto/sha256"
	"net/http"
	"slices"
	"strings"
	"time"
)

// VaryField is a request field that selects a variant, with its normalized value.
type VaryField struct {
	Name    string // canonical
	Value   string
	Present bool
}

// Variant is one of the responses stored for a URI.
type Variant struct {
	Key    Key // key in the store
	Fields []VaryField
	Date   time.Time
	// Language is the Content-Language of the response.
	Language string
}

// maxVary is the maximum number of fields in Vary. Each look-up compares all of them.
const maxVary = 32

// VaryFields returns the fields of a request that Vary names (RFC 9111, section 4.1).
func VaryFields(vary []string, request http.Header) []VaryField {
	var out []VaryField
	for _, name := range varyNames(vary) {
		out = append(out, varyField(name, request))
	}
	return out
}

// varyNames returns the names in Vary, sorted and without duplicates.
func varyNames(vary []string) []string {
	names := splitList(vary)
	for i, m := range names {
		names[i] = http.CanonicalHeaderKey(m)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// VaryByCoding adds Accept-Encoding to Vary if the body has a content coding. Clients that don't
// accept the coding can't decode the body. Some servers compress without setting Vary, such as
// nginx without gzip_vary.
func (s *Stored) VaryByCoding() {
	if c := s.Header.Get("Content-Encoding"); c == "" || equalFold(c, "identity") {
		return
	}
	s.addVary("Accept-Encoding")
}

// notForwarded are fields that a fetch for the store never passes on from the client.
var notForwarded = map[string]bool{
	"If-Match": true, "If-Modified-Since": true, "If-None-Match": true, "If-Range": true, "If-Unmodified-Since": true,
	"Range": true,
}

// varyField returns one field of a request as the origin sees it.
func varyField(name string, request http.Header) VaryField {
	lines, ok := request[name]
	switch {
	case notForwarded[name]:
		return VaryField{Name: name}
	case name == "Accept-Encoding":
		if ok {
			return VaryField{Name: name, Value: Codings(lines), Present: true}
		}
		return VaryField{Name: name}
	case name == "Accept-Language":
		return VaryField{Name: name, Value: abbreviate(normaliseAccept(lines)), Present: ok}
	case listFields[name]:
		return VaryField{Name: name, Value: abbreviate(normalise(lines)), Present: ok}
	}
	// No value contains a line feed.
	return VaryField{Name: name, Value: abbreviate(strings.Join(lines, "\n")), Present: ok}
}

// hashedFrom is the length in bytes from which a hash replaces a value. The record of a URI
// contains the values of all its variants, and clients choose the values.
const hashedFrom = 64

// abbreviate returns a value, or a NUL and a hash if the value is long. No field value contains
// NUL, so a hash is never equal to another value.
func abbreviate(value string) string {
	if len(value) < hashedFrom {
		return value
	}
	h := sha256.Sum256([]byte(value))
	return "\x00" + string(h[:16])
}

// listFields are request fields that responses vary by and whose value is a list (RFC 9110, section
// 5.6.1). In a list, whitespace between members, empty members and the division into lines have no
// meaning.
var listFields = map[string]bool{
	"Accept": true, "Accept-Charset": true, "Access-Control-Request-Headers": true, "Prefer": true,
	"Sec-Ch-Ua": true, "Sec-Ch-Ua-Form-Factors": true, "Sec-Ch-Ua-Full-Version-List": true,
}

// normalise joins the members of a list without whitespace (RFC 9111, section 4.1).
func normalise(lines []string) string {
	return strings.Join(splitList(lines), ",")
}

// Matches reports whether a request selects this variant, which means that all its fields match.
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

// requestFields caches the normalized fields of a request.
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

// Select returns the newest variant that a request selects (RFC 9111, section 4.1), or nil. If
// several have the same Date, the one that was added last is the newest. If none matches exactly,
// Select chooses by Speaks.
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

// Speaks reports whether a variant has the language that the client prefers and matches in all
// other fields. The origin would probably select it too (RFC 9111, section 4.1).
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

// AddVariant returns variants with v added. v replaces a variant with the same fields. If there
// would be more than limit variants, the oldest one that is not used is dropped, or else the oldest
// of all.
func AddVariant(variants []Variant, v Variant, limit int, used func(Key) bool) []Variant {
	out := slices.DeleteFunc(slices.Clone(variants), func(o Variant) bool { return slices.Equal(o.Fields, v.Fields) })
	for len(out) >= limit {
		i := max(0, slices.IndexFunc(out, func(o Variant) bool { return !used(o.Key) }))
		out = slices.Delete(out, i, i+1)
	}
	return append(out, v)
}
