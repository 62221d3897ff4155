package httpcache

import (
	"net/http"
	"slices"
	"time"
)

// heuristicFraction is the share of the time since Last-Modified that a response counts as fresh
// where nothing else is said: the 10 % that RFC 9111, 4.2.2 names as typical.
const heuristicFraction = 10

// heuristicLimit bounds what is guessed.
const heuristicLimit = 24 * time.Hour

// Policy is what a site says where responses don't.
type Policy struct {
	DefaultTTL           time.Duration // freshness lifetime of a response that gives none; 0 leaves it to the heuristic of RFC 9111, 4.2.2
	StaleWhileRevalidate time.Duration // where the response has no such directive
	StaleIfError         time.Duration // where the response has no such directive
	SetCookie            SetCookie     // what becomes of responses that set cookies
}

// SetCookie is what becomes of a response with Set-Cookie that could be stored. RFC 9111, 7.3
// leaves it to caches. A cookie is mostly of one client, and who forgets that hands sessions
// around.
type SetCookie string

const (
	PassSetCookie  SetCookie = ""      // it is not stored, as in nginx, Varnish and Fastly
	StripSetCookie SetCookie = "strip" // it is stored and served without its cookies
	StoreSetCookie SetCookie = "store" // it is stored and served with its cookies
)

// StripCookies removes the cookies from a response that freshens a stored one, as that is served to
// others too, unless the site wants cookies to be stored.
func (p Policy) StripCookies(h http.Header) {
	if p.SetCookie != StoreSetCookie {
		delete(h, "Set-Cookie")
	}
}

// setsCookie reports whether a response sets a cookie for all to whom it is served. One that says
// private="Set-Cookie" or no-cache="Set-Cookie" has told what is to become of it.
func setsCookie(s *Stored, cc Directives) bool {
	return len(s.Header["Set-Cookie"]) > 0 && !slices.Contains(cc.PrivateFields, "Set-Cookie") && !slices.Contains(cc.NoCacheFields, "Set-Cookie")
}

// Stored is a response as it is kept, and what Age needs to know of how it came.
type Stored struct {
	Status int
	Header http.Header // without hop-by-hop fields
	// RequestTime and ResponseTime are the clock's values when the request was made and when the
	// header block came (RFC 9111, 4.2.3).
	RequestTime, ResponseTime time.Time
}

// heuristicStatus are the status codes that are heuristically cacheable (RFC 9110, 15.1).
func heuristicStatus(status int) bool {
	switch status {
	case 200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 501:
		return true
	}
	return false
}

// Date returns the Date field's value, or when the response came if there is none that is valid
// (RFC 9110, 6.6.1).
func (s *Stored) Date() time.Time {
	if v := s.Header["Date"]; len(v) > 0 {
		if t, ok := ParseDate(v[0], s.ResponseTime); ok {
			return t
		}
	}
	return s.ResponseTime
}

// LastModified returns the field's value; the zero time if there is none that is valid.
func (s *Stored) LastModified() time.Time {
	if v := s.Header["Last-Modified"]; len(v) > 0 {
		if t, ok := ParseDate(v[0], s.ResponseTime); ok {
			return t
		}
	}
	return time.Time{}
}

// Lifetime is a freshness lifetime, and where it comes from.
type Lifetime struct {
	D time.Duration
	// Source is "s-maxage", "max-age", "Expires", "default_ttl", "heuristic" or "". A directive may
	// stand in a targeted field.
	Source string
	// Explicit says that the response itself gave it.
	Explicit bool
}

// Lifetime computes how long the response is fresh (RFC 9111, 4.2.1 and 4.2.2), for a shared cache.
// Invalid freshness information makes it stale, as 4.2.1 encourages.
func (s *Stored) Lifetime(p Policy) Lifetime {
	cc, targeted := ResponseDirectives(s.Header)
	return s.lifetime(p, cc, targeted)
}

// lifetime is Lifetime of a response with these directives.
func (s *Stored) lifetime(p Policy, cc Directives, targeted bool) Lifetime {
	switch {
	case cc.SMaxAge.Set:
		return Lifetime{cc.SMaxAge.D, "s-maxage", true}
	case cc.MaxAge.Set:
		return Lifetime{cc.MaxAge.D, "max-age", true}
	}
	if v := s.Header["Expires"]; len(v) > 0 && !targeted {
		// An invalid date, "0" above all, is in the past (RFC 9111, 5.3).
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

// Age is the current age (RFC 9111, 4.2.3).
func (s *Stored) Age(now time.Time) time.Duration {
	apparent := max(0, s.ResponseTime.Sub(s.Date()))
	corrected := ageValue(s.Header["Age"]) + s.ResponseTime.Sub(s.RequestTime)
	return max(0, max(apparent, corrected)+now.Sub(s.ResponseTime))
}

// ageValue parses a received Age: the first member of a list counts, and what is not delta-seconds
// is ignored (RFC 9111, 5.1).
func ageValue(lines []string) time.Duration {
	members := splitList(lines)
	if len(members) == 0 {
		return 0
	}
	d, _ := parseDelta(members[0])
	return d
}
