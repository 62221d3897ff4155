package httpcache

import (
	"net/http"
	"strings"
	"time"
)

// Seconds is a directive's argument.
type Seconds struct {
	Set   bool // the directive is there
	Valid bool // and its argument is delta-seconds
	D     time.Duration
}

// Directives are those of Cache-Control (RFC 9111, 5.2; RFC 5861; RFC 8246), of a request or a
// response.
type Directives struct {
	Present bool // there is a Cache-Control field at all

	NoStore, NoTransform, Public, MustRevalidate, ProxyRevalidate, MustUnderstand, OnlyIfCached bool

	NoCache, Private             bool     // without an argument
	NoCacheFields, PrivateFields []string // with one: the canonical names of the fields that it covers

	MaxAge, SMaxAge, MinFresh, MaxStale, StaleWhileRevalidate, StaleIfError Seconds
	// MaxStaleAny says that max-stale has no argument: any staleness will do.
	MaxStaleAny bool
}

// ParseCacheControl parses the lines of a Cache-Control field. Unknown directives are ignored. Of a
// directive that is repeated the first counts (RFC 9111, 4.2.1). What restricts a cache is honoured
// in any form, however odd its argument; what permits something only in the right one.
func ParseCacheControl(lines []string) Directives {
	d := Directives{Present: len(lines) > 0}
	for _, m := range splitList(lines) {
		name, arg, hasArg := strings.Cut(m, "=")
		clean := name == trimOWS(name) && arg == trimOWS(arg)
		d.set(strings.ToLower(trimOWS(name)), trimOWS(arg), hasArg, clean)
	}
	return d
}

// set takes one directive. clean says that there is no whitespace around "=", which the grammar
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
		d.MustUnderstand = d.MustUnderstand || !hasArg // it lifts no-store, which stands beside it for those that don't know it
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

// take sets s, unless it is set already. Arguments may be quoted (RFC 9111, 5.2).
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

// fieldNames takes the argument of no-cache or private. One that names no field, or something that
// can't be a field, makes the directive cover the whole response.
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
