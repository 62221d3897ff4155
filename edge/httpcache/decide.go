package httpcache

import (
	"fmt"
	"net/http"
	"slices"
	"time"
)

// staleIfDown is how long a stale response may be used while the origin is unreachable, if neither
// the response nor the site says.
const staleIfDown = 24 * time.Hour

// Action is what a cache does with a stored response.
type Action int

const (
	// Serve uses the response without contacting the origin. The response is fresh, or the client
	// accepts it stale.
	Serve Action = iota
	// ServeStale uses the stale response, and revalidates it in the background (RFC 5861, section
	// 3, stale-while-revalidate).
	ServeStale
	// Validate revalidates the response before it is used.
	Validate
)

// Decision is the result of Decide.
type Decision struct {
	Action Action
	Age    time.Duration // current age
	TTL    time.Duration // remaining freshness lifetime; not positive if the response is stale
	// Forward is the fwd parameter of Cache-Status (RFC 9211, section 2.2) for Validate and
	// ServeStale: "stale" or "request".
	Forward string
	// StaleIfError reports whether the response may be used if the origin responds with an error
	// (RFC 5861, section 4).
	StaleIfError bool
	// StaleIfDown reports whether the response may be used if the origin does not respond (RFC
	// 9111, section 4.2.4). Without other rules that is a day after it became stale.
	StaleIfDown bool
}

// RequestDirectives returns the cache directives of a request. Pragma: no-cache counts only without
// Cache-Control (RFC 9111, section 5.4).
func RequestDirectives(h http.Header) Directives {
	d := ParseCacheControl(h["Cache-Control"])
	if !d.Present {
		for _, m := range splitList(h["Pragma"]) {
			if equalFold(m, "no-cache") {
				d.NoCache = true
			}
		}
	}
	return d
}

// Decide reports how a stored response that matches the request may be used now (RFC 9111, section
// 4). purged means that a soft purge has made it stale.
func (p Policy) Decide(req Directives, s *Stored, purged bool, now time.Time) Decision {
	cc, targeted := p.directives(s)
	lifetime := s.lifetime(p, cc, targeted)
	d := Decision{Age: s.Age(now)}
	d.TTL = lifetime.D - d.Age
	if purged {
		d.TTL = min(d.TTL, 0)
	}
	staleness := -d.TTL
	fresh := d.TTL > 0

	// s-maxage implies proxy-revalidate (RFC 9111, section 5.2.2.10), so it disables stale windows
	// that the site configured. If the response itself has both s-maxage and a stale window, the
	// window applies, as in other caches.
	mayNotBeStale := cc.NoCache || cc.MustRevalidate || cc.ProxyRevalidate
	window := func(directive Seconds, site time.Duration) time.Duration {
		switch {
		case mayNotBeStale:
			return -1
		case directive.Set:
			return directive.D
		case cc.SMaxAge.Set || lifetime.D == 0:
			return -1
		}
		return site
	}
	swr := window(cc.StaleWhileRevalidate, p.StaleWhileRevalidate)
	sie := window(cc.StaleIfError, p.StaleIfError)
	d.StaleIfError = !cc.NoCache && (fresh || sie > 0 && staleness <= sie)
	down := window(Seconds{}, max(p.StaleIfError, staleIfDown))
	d.StaleIfDown = d.StaleIfError || !cc.NoCache && down > 0 && staleness <= down

	switch {
	case req.NoCache,
		req.MaxAge.Valid && d.Age > req.MaxAge.D,
		req.MaxAge.Valid && req.MaxAge.D == 0,
		req.MinFresh.Valid && d.TTL < req.MinFresh.D:
		d.Action, d.Forward = Validate, "request"
	case cc.NoCache:
		d.Action, d.Forward = Validate, "stale"
	case fresh:
		d.Action = Serve
	case !mayNotBeStale && !cc.SMaxAge.Set && !purged &&
		(req.MaxStaleAny || req.MaxStale.Valid && staleness <= req.MaxStale.D):
		d.Action = Serve
	// The client excludes stale responses (RFC 9111, section 5.2.1.1).
	case (req.MaxAge.Set || req.MinFresh.Set) && !req.MaxStaleAny && !req.MaxStale.Set:
		d.Action, d.Forward = Validate, "request"
	case swr > 0 && staleness <= swr:
		d.Action, d.Forward = ServeStale, "stale"
	default:
		d.Action, d.Forward = Validate, "stale"
	}
	return d
}

// Storable reports whether a response to a GET may be stored (RFC 9111, section 3). If not, why is
// the reason, with the section of the RFC.
func (p Policy) Storable(request http.Header, s *Stored) (ok bool, why string) {
	cc, targeted := p.directives(s)
	req := ParseCacheControl(request["Cache-Control"])
	understood := http.StatusText(s.Status) != ""
	switch {
	case s.Status < 200:
		return false, "interim response"
	case s.Status == 304:
		return false, "not modified, without a stored response (RFC 9111, 4.3.3)"
	case s.Status == 206 && !s.hasContentRange():
		return false, "partial, of an unknown length or in several parts (RFC 9111, 3.3)"
	case s.Status == http.StatusRequestedRangeNotSatisfiable, s.Status == http.StatusPreconditionFailed,
		s.Status == http.StatusExpectationFailed:
		return false, "a status that depends on fields of this request (RFC 9110, 15.5)"
	case s.Status == http.StatusPreconditionRequired, s.Status == http.StatusTooManyRequests,
		s.Status == http.StatusRequestHeaderFieldsTooLarge,
		s.Status == http.StatusNetworkAuthenticationRequired:
		return false, "a status that is for one client (RFC 6585)"
	case s.Status > 599:
		return false, "an invalid status (RFC 9110, 15)"
	case req.NoStore:
		return false, "no-store in the request (RFC 9111, 5.2.1.5)"
	case cc.MustUnderstand && !understood:
		return false, "must-understand and an unknown status (RFC 9111, 5.2.2.3)"
	case cc.NoStore && !cc.MustUnderstand:
		return false, "no-store (RFC 9111, 5.2.2.5)"
	case cc.Private:
		return false, "private (RFC 9111, 5.2.2.7)"
	case s.isEventStream():
		return false, "an event stream, which is for one client and has no end"
	case len(request["Authorization"]) > 0 && !cc.Public && !cc.MustRevalidate && !cc.SMaxAge.Valid:
		return false, "Authorization without public, must-revalidate or s-maxage (RFC 9111, 3.5)"
	}
	if p.SetCookie == PassSetCookie && setsCookie(s, cc) {
		return false, "Set-Cookie (cache.set_cookie of the site may be strip or store)"
	}
	vary := varyNames(s.Header["Vary"])
	if len(vary) > maxVary {
		return false, fmt.Sprintf("Vary names more than %d fields", maxVary)
	}
	for _, name := range vary {
		switch {
		case name == "*", !IsToken(name):
			return false, "Vary: * (RFC 9111, 4.1)"
		case name == "X-Forwarded-For", name == "Forwarded", name == "X-Real-Ip":
			return false, "Vary by the client's address"
		}
	}
	lifetime := s.lifetime(p, cc, targeted)
	if !lifetime.Explicit && !cc.Public && !heuristicStatus(s.Status) {
		return false, "no freshness given, and the status has no default (RFC 9111, 3)"
	}
	if !lifetime.Explicit && len(s.Header["Set-Cookie"]) > 0 {
		return false, "Set-Cookie without explicit freshness"
	}
	if lifetime.D <= 0 && !s.hasValidator() && cc.StaleWhileRevalidate.D == 0 && cc.StaleIfError.D == 0 {
		return false, "a lifetime of 0 and no validator"
	}
	return true, ""
}

// Supersedes reports whether the response shows that the stored response for the same request is
// outdated, even if this one can't be stored (RFC 9111, section 4.3.3). Server errors don't, nor do
// statuses about a single request: its fields, its size or its client.
func (s *Stored) Supersedes() bool {
	switch s.Status {
	case http.StatusNotModified, http.StatusBadRequest, http.StatusNotAcceptable, http.StatusProxyAuthRequired,
		http.StatusRequestTimeout,
		http.StatusLengthRequired, http.StatusPreconditionFailed, http.StatusRequestEntityTooLarge,
		http.StatusRequestURITooLong,
		http.StatusUnsupportedMediaType, http.StatusRequestedRangeNotSatisfiable, http.StatusExpectationFailed,
		http.StatusMisdirectedRequest,
		http.StatusTooEarly, http.StatusUpgradeRequired, http.StatusPreconditionRequired, http.StatusTooManyRequests,
		http.StatusRequestHeaderFieldsTooLarge:
		return false
	}
	return s.Status >= 200 && s.Status < 500
}

// isEventStream reports whether the body is for an EventSource.
func (s *Stored) isEventStream() bool {
	kind, _, _ := cut(s.Header.Get("Content-Type"), ';')
	return equalFold(kind, "text/event-stream")
}

// hasContentRange reports whether a 206 has a valid Content-Range with a known length.
func (s *Stored) hasContentRange() bool {
	_, _, ok := ParseContentRange(s.Header)
	return ok
}

func (s *Stored) hasValidator() bool {
	return s.Header.Get("Etag") != "" || !s.LastModified().IsZero()
}

// RemoveOwn removes from the response all fields that only the requesting client may get, and
// returns them: the fields that private="..." names (RFC 9111, section 5.2.2.7), and cookies unless
// the site stores them. A response with no-cache="Set-Cookie" is stored, but its cookie is still
// for one client.
func (p Policy) RemoveOwn(s *Stored) http.Header {
	cc, _ := ResponseDirectives(s.Header)
	names := cc.PrivateFields
	if p.SetCookie != StoreSetCookie {
		names = append(slices.Clip(names), "Set-Cookie")
	}
	var removed http.Header
	for _, name := range names {
		if lines, ok := s.Header[name]; ok {
			if removed == nil {
				removed = http.Header{}
			}
			removed[name] = lines
			delete(s.Header, name)
		}
	}
	return removed
}

// Unvalidated returns the names in no-cache="...". These fields may not be used without validation
// (RFC 9111, section 5.2.2.4).
func (s *Stored) Unvalidated() []string {
	cc, _ := ResponseDirectives(s.Header)
	return cc.NoCacheFields
}
