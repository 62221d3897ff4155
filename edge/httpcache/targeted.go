package httpcache

import (
	"net/http"
	"time"

	"github.com/dunglas/httpsfv"
)

// ResponseDirectives returns the directives of a response that apply to this cache. If they come
// from a targeted field, targeted is true and Cache-Control, Expires and Pragma must be ignored
// (RFC 9213, section 2.2). CDN-Cache-Control has priority over the older Surrogate-Control.
func ResponseDirectives(h http.Header) (d Directives, targeted bool) {
	if lines := h["Cdn-Cache-Control"]; len(lines) > 0 {
		// A field that is empty or does not parse is ignored (RFC 9213, section 2.1).
		if dict, err := httpsfv.UnmarshalDictionary(lines); err == nil && len(dict.Names()) > 0 {
			return fromDictionary(dict), true
		}
	}
	if lines := h["Surrogate-Control"]; len(lines) > 0 {
		if d := parseSurrogate(lines); d.MaxAge.Set || d.NoStore {
			return d, true
		}
	}
	return ParseCacheControl(h["Cache-Control"]), false
}

// fromDictionary returns the directives of a targeted field. It ignores directives with a value of
// the wrong type, and all parameters (RFC 9213, section 2.1).
func fromDictionary(dict *httpsfv.Dictionary) Directives {
	d := Directives{Present: true}
	// value returns the value of a directive, which may be an inner list, or nil if the directive
	// is missing.
	value := func(name string) any {
		m, _ := dict.Get(name)
		if item, ok := m.(httpsfv.Item); ok {
			return item.Value
		}
		return m
	}
	flag := func(name string) bool { return value(name) == true }
	seconds := func(name string) Seconds {
		n, ok := value(name).(int64)
		switch {
		case !ok:
			return Seconds{}
		case n < 0:
			return Seconds{Set: true}
		}
		return Seconds{Set: true, Valid: true, D: time.Duration(min(n, maxDelta)) * time.Second}
	}
	// no-cache and private may have field names as a String and then cover only these. An inner
	// list counts as covering the whole response.
	names := func(name string) (bool, []string) {
		switch v := value(name).(type) {
		case string:
			return fieldNames(v, false, nil)
		case httpsfv.InnerList:
			return true, nil
		}
		return flag(name), nil
	}
	d.NoStore, d.NoTransform, d.Public = flag("no-store"), flag("no-transform"), flag("public")
	d.MustRevalidate, d.ProxyRevalidate = flag("must-revalidate"), flag("proxy-revalidate")
	d.MustUnderstand = flag("must-understand")
	d.NoCache, d.NoCacheFields = names("no-cache")
	d.Private, d.PrivateFields = names("private")
	d.MaxAge, d.SMaxAge = seconds("max-age"), seconds("s-maxage")
	d.StaleWhileRevalidate, d.StaleIfError = seconds("stale-while-revalidate"), seconds("stale-if-error")
	return d
}

// parseSurrogate parses Surrogate-Control (W3C note "Edge Architecture Specification", section
// 2.2). max-age may be followed by "+" and a time to serve stale. A directive with a parameter is
// for another surrogate and is ignored.
func parseSurrogate(lines []string) Directives {
	d := Directives{Present: true}
	for _, m := range splitList(lines) {
		name, arg, _ := cut(m, '=')
		if _, _, target := cut(arg, ';'); target {
			continue
		}
		switch {
		case equalFold(name, "no-store"):
			d.NoStore = true
		case equalFold(name, "max-age"):
			fresh, stale, more := cut(arg, '+')
			d.MaxAge.take(fresh, true)
			if more {
				d.StaleWhileRevalidate.take(stale, true)
			}
		}
	}
	return d
}
