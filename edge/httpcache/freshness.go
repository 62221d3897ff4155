package httpcache

import (
	"net/http"
	"slices"
	"time"
)

// heuristicFraction is the divisor for heuristic freshness: a response is fresh for a tenth of the
// time since Last-Modified. RFC 9111, section 4.2.2 calls 10 % typical.
const heuristicFraction = 10

// heuristicLimit is the maximum heuristic freshness lifetime.
const heuristicLimit = 24 * time.Hour

// Policy has a site's defaults for responses that don't decide themselves.
type Policy struct {
	// DefaultTTL is the freshness lifetime of a response that has none. 0 means the heuristic of
	// RFC 9111, section 4.2.2.
	DefaultTTL time.Duration
	// TTL is the freshness lifetime of a successful response or a permanent redirect, whatever its
	// Cache-Control and Expires say. 0 means that these decide.
	TTL                  time.Duration
	StaleWhileRevalidate time.Duration // if the response has no such directive
	StaleIfError         time.Duration // if the response has no such directive
	SetCookie            SetCookie     // treatment of responses that set cookies
}

// SetCookie is how responses with Set-Cookie are treated that could otherwise be stored. RFC 9111,
// section 7.3 leaves that to the cache. A cookie usually belongs to one client. If it were served
// to others, they would share a session.
type SetCookie string

const (
	PassSetCookie  SetCookie = ""      // not stored, as in nginx, Varnish and Fastly
	StripSetCookie SetCookie = "strip" // stored and served without cookies
	StoreSetCookie SetCookie = "store" // stored and served with cookies
)

// StripCookies removes the cookies from a response that updates a stored one, unless the site
// stores cookies. The stored response is served to other clients too.
func (p Policy) StripCookies(h http.Header) {
	if p.SetCookie != StoreSetCookie {
		delete(h, "Set-Cookie")
	}
}

// setsCookie reports whether a response sets a cookie for every client that gets it. It does not if
// private="Set-Cookie" or no-cache="Set-Cookie" says otherwise.
func setsCookie(s *Stored, cc Directives) bool {
	return len(s.Header["Set-Cookie"]) > 0 && !slices.Contains(cc.PrivateFields, "Set-Cookie") &&
		!slices.Contains(cc.NoCacheFields, "Set-Cookie")
}

// Stored is a stored response with the times that its age is computed from.
type Stored struct {
	Status int
	Header http.Header // without hop-by-hop fields
	// RequestTime is when the request was sent and ResponseTime when the response header was
	// received (RFC 9111, section 4.2.3).
	RequestTime, ResponseTime time.Time
}

// heuristicStatus reports whether a status is heuristically cacheable (RFC 9110, section 15.1).
func heuristicStatus(status int) bool {
	switch status {
	case 200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 501:
		return true
	}
	return false
}

// Date returns the value of the Date field, or ResponseTime if the field is missing or invalid (RFC
// 9110, section 6.6.1).
func (s *Stored) Date() time.Time {
	if v := s.Header["Date"]; len(v) > 0 {
		if t, ok := ParseDate(v[0], s.ResponseTime); ok {
			return t
		}
	}
	return s.ResponseTime
}

// LastModified returns the value of the Last-Modified field, or the zero time if it is missing or
// invalid.
func (s *Stored) LastModified() time.Time {
	if v := s.Header["Last-Modified"]; len(v) > 0 {
		if t, ok := ParseDate(v[0], s.ResponseTime); ok {
			return t
		}
	}
	return time.Time{}
}

// directives returns the directives that count for a stored response.
func (p Policy) directives(s *Stored) (d Directives, targeted bool) {
	d, targeted = ResponseDirectives(s.Header)
	if !p.overrides(s.Status) {
		return d, targeted
	}
	return Directives{Present: true, NoTransform: d.NoTransform, StaleWhileRevalidate: d.StaleWhileRevalidate,
		StaleIfError: d.StaleIfError, PrivateFields: d.PrivateFields, NoCacheFields: d.NoCacheFields}, true
}

// overrides reports whether the policy's TTL is the freshness lifetime of responses with a status.
func (p Policy) overrides(status int) bool {
	switch status {
	case 200, 203, 204, 206, 300, 301, 308:
		return p.TTL > 0
	}
	return false
}

// Lifetime is a freshness lifetime and its source.
type Lifetime struct {
	D time.Duration
	// Source is "s-maxage", "max-age", "Expires", "rule", "default_ttl", "heuristic" or "". The
	// directive may come from a targeted field.
	Source string
	// Explicit means that the response itself specifies the lifetime.
	Explicit bool
}

// Lifetime returns the freshness lifetime for a shared cache (RFC 9111, sections 4.2.1 and 4.2.2).
// Invalid freshness information means a lifetime of 0, as section 4.2.1 encourages.
func (s *Stored) Lifetime(p Policy) Lifetime {
	cc, targeted := p.directives(s)
	return s.lifetime(p, cc, targeted)
}

// lifetime is Lifetime for directives that are already parsed.
func (s *Stored) lifetime(p Policy, cc Directives, targeted bool) Lifetime {
	switch {
	case p.overrides(s.Status):
		return Lifetime{p.TTL, "rule", true}
	case cc.SMaxAge.Set:
		return Lifetime{cc.SMaxAge.D, "s-maxage", true}
	case cc.MaxAge.Set:
		return Lifetime{cc.MaxAge.D, "max-age", true}
	}
	if v := s.Header["Expires"]; len(v) > 0 && !targeted {
		// An invalid date, such as "0", is in the past (RFC 9111, section 5.3).
		t, ok := ParseDate(v[0], s.ResponseTime)
		if !ok {
			return Lifetime{0, "Expires", true}
		}
		return Lifetime{max(0, t.Sub(s.Date())), "Expires", true}
	}
	if !heuristicStatus(s.Status) && !cc.Public {
		return Lifetime{}
	}
	if p.DefaultTTL > 0 {
		return Lifetime{p.DefaultTTL, "default_ttl", false}
	}
	if lm := s.LastModified(); !lm.IsZero() {
		if d := min(s.Date().Sub(lm)/heuristicFraction, heuristicLimit); d > 0 {
			return Lifetime{d, "heuristic", false}
		}
	}
	return Lifetime{}
}

// Age returns the current age (RFC 9111, section 4.2.3).
func (s *Stored) Age(now time.Time) time.Duration {
	apparent := max(0, s.ResponseTime.Sub(s.Date()))
	corrected := ageValue(s.Header["Age"]) + s.ResponseTime.Sub(s.RequestTime)
	return max(0, max(apparent, corrected)+now.Sub(s.ResponseTime))
}

// ageValue parses a received Age field. It uses the first member of a list and ignores invalid
// delta-seconds (RFC 9111, section 5.1).
func ageValue(lines []string) time.Duration {
	members := splitList(lines)
	if len(members) == 0 {
		return 0
	}
	d, _ := parseDelta(members[0])
	return d
}
