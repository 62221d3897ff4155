package httpcache

import (
	"net/http"
	"strings"
	"time"
)

// Seconds is the argument of a directive.
type Seconds struct {
	Set   bool // the directive is present
	Valid bool // the argument is valid delta-seconds
	D     time.Duration
}

// Directives are the Cache-Control directives of a request or a response (RFC 9111, section 5.2;
// RFC 5861; RFC 8246).
type Directives struct {
	Present bool // there is a Cache-Control field

	NoStore, NoTransform, Public, MustRevalidate, ProxyRevalidate, MustUnderstand, OnlyIfCached bool

	NoCache, Private             bool     // without an argument
	NoCacheFields, PrivateFields []string // canonical names of the fields in the argument

	MaxAge, SMaxAge, MinFresh, MaxStale, StaleWhileRevalidate, StaleIfError Seconds
	// MaxStaleAny means max-stale without an argument: any staleness is accepted.
	MaxStaleAny bool
}

// ParseCacheControl parses the lines of a Cache-Control field. It ignores unknown directives. The
// first of several equal directives counts (RFC 9111, section 4.2.1). Directives that restrict a
// cache are honoured even if their argument is malformed; directives that permit something are not.
func ParseCacheControl(lines []string) Directives {
	d := Directives{Present: len(lines) > 0}
	for _, m := range splitList(lines) {
		name, arg, hasArg := strings.Cut(m, "=")
		clean := name == trimOWS(name) && arg == trimOWS(arg)
		d.set(strings.ToLower(trimOWS(name)), trimOWS(arg), hasArg, clean)
	}
	return d
}

// set sets one directive. clean means that there is no whitespace around "=", which the grammar
// does not allow.
func (d *Directives) set(name, arg string, hasArg, clean bool) {
	switch name {
	case "no-store":
		d.NoStore = true
	case "no-transform":
		d.NoTransform = true
	case "no-cache":
		d.NoCache, d.NoCacheFields = fieldNames(arg, d.NoCache, d.NoCacheFields)
	case "private":
		d.Private, d.PrivateFields = fieldNames(arg, d.Private, d.PrivateFields)
	case "must-revalidate":
		d.MustRevalidate = true
	case "proxy-revalidate":
		d.ProxyRevalidate = true
	case "must-understand":
		// It overrides no-store, which is there for caches that don't know must-understand.
		d.MustUnderstand = d.MustUnderstand || !hasArg
	case "only-if-cached":
		d.OnlyIfCached = true
	case "public":
		d.Public = d.Public || !hasArg
	case "max-age":
		d.MaxAge.take(arg, clean)
	case "s-maxage":
		d.SMaxAge.take(arg, clean)
	case "min-fresh":
		d.MinFresh.take(arg, clean)
	case "stale-while-revalidate":
		d.StaleWhileRevalidate.take(arg, clean)
	case "stale-if-error":
		d.StaleIfError.take(arg, clean)
	case "max-stale":
		d.MaxStaleAny = d.MaxStaleAny || !hasArg
		if hasArg {
			d.MaxStale.take(arg, clean)
		}
	}
}

// take sets s unless it is already set. The argument may be quoted (RFC 9111, section 5.2).
func (s *Seconds) take(arg string, clean bool) {
	if s.Set {
		return
	}
	s.Set = true
	if q, ok := unquote(arg); ok {
		arg = q
	}
	s.D, s.Valid = parseDelta(arg)
	if !clean {
		s.D, s.Valid = 0, false
	}
}

// fieldNames parses the argument of no-cache or private. If it names no field, or contains an
// invalid name, the directive covers the whole response.
func fieldNames(arg string, all bool, names []string) (bool, []string) {
	list := arg
	if q, ok := unquote(arg); ok {
		list = q
	}
	members := splitList([]string{list})
	if all || len(members) == 0 {
		return true, nil
	}
	for _, m := range members {
		if !IsToken(m) {
			return true, nil
		}
		names = append(names, http.CanonicalHeaderKey(m))
	}
	return false, names
}
