package httpcache

import (
	"net/http"
	"strings"
	"time"
)

func equalFold(a, b string) bool { return strings.EqualFold(a, b) }

// entityTag is an entity tag (RFC 9110, 8.8.3). opaque holds the quotes if there were any; tags
// without them are compared as they are.
type entityTag struct {
	weak   bool
	opaque string
}

func parseETag(s string) entityTag {
	s = trimOWS(s)
	if rest, ok := strings.CutPrefix(s, "W/"); ok {
		return entityTag{true, rest}
	}
	return entityTag{false, s}
}

// splitTags splits the lines of a list of entity tags. A backslash escapes nothing in them (RFC
// 9110, 8.8.3); what has no quotes, or no end, goes up to the next comma.
func splitTags(lines []string) []string {
	var out []string
	for _, line := range lines {
		for {
			line = strings.TrimLeft(line, " \t,")
			if line == "" {
				break
			}
			end := -1
			if open := strings.TrimPrefix(line, "W/"); strings.HasPrefix(open, `"`) {
				if i := strings.IndexByte(open[1:], '"'); i >= 0 {
					end = len(line) - len(open) + i + 2
				}
			}
			if end < 0 {
				if end = strings.IndexByte(line, ','); end < 0 {
					end = len(line)
				}
			}
			out = append(out, trimOWS(line[:end]))
			line = line[end:]
		}
	}
	return out
}

// matchStrong and matchWeak are the two comparisons of RFC 9110, 8.8.3.2.
func (a entityTag) matchStrong(b entityTag) bool { return !a.weak && !b.weak && a.opaque == b.opaque }
func (a entityTag) matchWeak(b entityTag) bool   { return a.opaque == b.opaque }

// NotModified reports whether a conditional GET or HEAD is answered with 304 from this response
// (RFC 9111, 4.3.2; RFC 9110, 13.2.2). Preconditions count only where the answer without them would
// be a 200.
func (s *Stored) NotModified(request http.Header) bool {
	if s.Status != http.StatusOK {
		return false
	}
	if lines := request["If-None-Match"]; len(lines) > 0 {
		have := s.Header.Get("Etag")
		for _, m := range splitTags(lines) {
			if m == "*" || have != "" && parseETag(m).matchWeak(parseETag(have)) {
				return true
			}
		}
		return false
	}
	lines := request["If-Modified-Since"]
	if len(lines) != 1 {
		return false
	}
	since, ok := ParseDate(lines[0], s.ResponseTime)
	if !ok {
		return false
	}
	modified := s.LastModified()
	if modified.IsZero() {
		modified = s.Date()
	}
	return !modified.After(since)
}

// IfRange reports whether a Range field is to be heeded (RFC 9110, 13.1.5): there is no If-Range,
// or it is the strong validator of this response.
func (s *Stored) IfRange(request http.Header) bool {
	lines := request["If-Range"]
	if len(lines) == 0 {
		return true
	}
	v := trimOWS(lines[0])
	if len(lines) > 1 || v == "" {
		return false
	}
	if strings.HasPrefix(v, `"`) || strings.HasPrefix(v, "W/") {
		have := s.Header.Get("Etag")
		return have != "" && parseETag(v).matchStrong(parseETag(have))
	}
	t, ok := ParseDate(v, s.ResponseTime)
	// A Last-Modified is strong if it is a second or more before Date (RFC 9110, 8.8.2.2).
	lm := s.LastModified()
	return ok && !lm.IsZero() && t.Equal(lm) && s.Date().Sub(lm) >= time.Second
}

// SetValidators makes a request one that validates this response (RFC 9111, 4.3.1), in place of the
// client's own conditions. It reports whether there is anything to validate with.
func (s *Stored) SetValidators(request http.Header) bool {
	RemoveConditions(request)
	if etag := s.Header.Get("Etag"); etag != "" {
		request.Set("If-None-Match", etag)
	}
	if v := s.Header["Last-Modified"]; len(v) > 0 && !s.LastModified().IsZero() {
		request.Set("If-Modified-Since", v[0])
	}
	return len(request["If-None-Match"])+len(request["If-Modified-Since"]) > 0
}

// RemoveConditions removes everything that makes a request conditional or partial.
func RemoveConditions(request http.Header) {
	for _, name := range []string{"If-None-Match", "If-Modified-Since", "If-Match", "If-Unmodified-Since", "If-Range", "Range"} {
		delete(request, name)
	}
}

// Confirms reports whether a 304 validates this response (RFC 9111, 4.3.4): a validator in it must
// be the stored one; without any, the request had the stored ones, so it does. Tags are compared
// weakly, as servers that weaken the tag of a compressed 200 don't weaken that of a 304.
func (s *Stored) Confirms(notModified http.Header) bool {
	etag, have := notModified.Get("Etag"), s.Header.Get("Etag")
	if etag != "" && have != "" {
		return parseETag(etag).matchWeak(parseETag(have))
	}
	if v := notModified["Last-Modified"]; len(v) > 0 && have == "" {
		t, ok := ParseDate(v[0], s.ResponseTime)
		return ok && t.Equal(s.LastModified())
	}
	return etag == ""
}

// Update returns the response as a 304, or the header of another part of it, changes it (RFC 9111,
// 3.2): every field of the newer one replaces the stored one, but for those that say what the
// stored bytes are, which a message without them can't change.
func (s *Stored) Update(notModified http.Header, requestTime, responseTime time.Time) *Stored {
	h := s.Header.Clone()
	// What came with the 304 itself decides; an Age of before would make it old again.
	delete(h, "Age")
	for name, lines := range notModified {
		switch name {
		case "Content-Length", "Content-Encoding", "Content-Range":
		default:
			h[name] = append([]string(nil), lines...)
		}
	}
	updated := &Stored{Status: s.Status, Header: h, RequestTime: requestTime, ResponseTime: responseTime}
	updated.VaryByCoding()
	return updated
}
