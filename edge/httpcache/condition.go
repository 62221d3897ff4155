package httpcache

import (
	"net/http"
	"strings"
	"time"
)

func equalFold(a, b string) bool { return strings.EqualFold(a, b) }

// entityTag is an entity tag (RFC 9110, section 8.8.3). opaque includes the quotes, if there were
// any. A tag without quotes is compared as it is.
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

// splitTags splits the lines of a list of entity tags. A backslash does not escape anything in a
// tag (RFC 9110, section 8.8.3). A tag without quotes, or with no closing quote, ends at the next
// comma.
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

// matchStrong and matchWeak implement the comparisons of RFC 9110, section 8.8.3.2.
func (a entityTag) matchStrong(b entityTag) bool { return !a.weak && !b.weak && a.opaque == b.opaque }
func (a entityTag) matchWeak(b entityTag) bool   { return a.opaque == b.opaque }

// NotModified reports whether the response to a conditional GET or HEAD is a 304 (RFC 9111, section
// 4.3.2; RFC 9110, section 13.2.2). It returns false unless the response without conditions would
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

// IfRange reports whether the Range field of a request applies (RFC 9110, section 13.1.5): there is
// no If-Range, or it is the strong validator of this response.
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
	// Last-Modified is strong if it is at least a second before Date (RFC 9110, section 8.8.2.2).
	lm := s.LastModified()
	return ok && !lm.IsZero() && t.Equal(lm) && s.Date().Sub(lm) >= time.Second
}

// SetValidators replaces the client's conditions in request by conditions that validate this
// response (RFC 9111, section 4.3.1). It returns false if the response has no validator.
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

// RemoveConditions removes all fields that make a request conditional or partial.
func RemoveConditions(request http.Header) {
	for _, name := range []string{"If-None-Match", "If-Modified-Since", "If-Match", "If-Unmodified-Since", "If-Range",
		"Range"} {
		delete(request, name)
	}
}

// Confirms reports whether a 304 validates this response (RFC 9111, section 4.3.4). A validator in
// the 304 must equal the stored one. A 304 without validators confirms the response, because the
// request had the stored ones. Tags are compared weakly: some servers weaken the tag of a
// compressed 200 but not that of a 304.
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

// Update returns the response with the fields of a 304, or of another range of the same
// representation (RFC 9111, section 3.2). Each field of notModified replaces the stored one, except
// fields that describe the stored body.
func (s *Stored) Update(notModified http.Header, requestTime, responseTime time.Time) *Stored {
	h := s.Header.Clone()
	// The Age of the 304 counts. A previous Age would make the response old again.
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
