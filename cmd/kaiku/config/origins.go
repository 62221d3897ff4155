package config

import (
	"fmt"
	"iter"
	"maps"
	"net/http"
	"path"
	"slices"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/words"
	"github.com/kaiku-cdn/kaiku/edge/rules"
)

// CacheKey has a rule's settings for the key of stored responses.
type CacheKey struct {
	KeepQuery []string `yaml:"keep_query"` // globs over names of query parameters
	DropQuery []string `yaml:"drop_query"`
	Header    []string `yaml:"header"`
	Cookie    []string `yaml:"cookie"`
}

// maxKeyNames is how many fields and cookies may be part of a key.
const maxKeyNames = 16

// AllOrigins yields the origins of a site by the paths of their keys: its own first, then the
// others by name.
func (s *Site) AllOrigins() iter.Seq2[string, *Origin] {
	return func(yield func(string, *Origin) bool) {
		if !yield("origin", &s.Origin) {
			return
		}
		for _, name := range slices.Sorted(maps.Keys(s.Origins)) {
			o := s.Origins[name]
			if !yield("origins."+name, &o) {
				return
			}
		}
	}
}

// HasShield reports whether one of the site's origins has a shield.
func (s *Site) HasShield() bool {
	for _, o := range s.AllOrigins() {
		if o.Shield != "" {
			return true
		}
	}
	return false
}

// checkOrigins reports what is wrong with the origins of a site, and with the rules that choose
// them.
func (f *Fleet) checkOrigins(site string, s *Site) {
	for at, o := range s.AllOrigins() {
		f.checkOrigin(site+"."+at, s, o)
	}
	used := map[string]bool{}
	for i, r := range s.Rules {
		used[r.Origin] = true
		if _, known := s.Origins[r.Origin]; r.Origin != "" && !known {
			f.errorf(fmt.Sprintf("%s.rules[%d].origin", site, i), "the site's origins don't have %s: %s", r.Origin,
				words.Suggest(r.Origin, slices.Sorted(maps.Keys(s.Origins))))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.Origins)) {
		at := site + ".origins." + name
		if !labelRE.MatchString(name) {
			f.errorf(at, "%q is not a name for an origin: want lower-case letters, digits and hyphens", name)
		}
		if !used[name] {
			f.warnf(at, "no rule of the site has origin: %s", name)
		}
	}
}

// key returns what a rule says of the key.
func (m *ruleMaker) key(at string, k *CacheKey) *rules.Key {
	if k == nil {
		return nil
	}
	for name, globs := range map[string][]string{"keep_query": k.KeepQuery, "drop_query": k.DropQuery} {
		for i, glob := range globs {
			if _, err := path.Match(glob, ""); err != nil || glob == "" {
				m.errorf(fmt.Sprintf("%s.%s[%d]", at, name, i),
					"%q is not a pattern: want a name, with * for any letters",
					glob)
			}
		}
	}
	out := &rules.Key{Keep: k.KeepQuery, Drop: k.DropQuery, Cookie: k.Cookie}
	for i, name := range k.Header {
		if !headerRE.MatchString(name) {
			m.errorf(fmt.Sprintf("%s.header[%d]", at, i), "%q is not the name of a field", name)
		}
		out.Header = append(out.Header, http.CanonicalHeaderKey(name))
	}
	for i, name := range k.Cookie {
		if !headerRE.MatchString(name) {
			m.errorf(fmt.Sprintf("%s.cookie[%d]", at, i), "%q is not the name of a cookie", name)
		}
	}
	switch n := len(k.Header) + len(k.Cookie); {
	case n > maxKeyNames:
		m.errorf(at, "%d fields and cookies: want at most %d", n, maxKeyNames)
	case n+len(k.KeepQuery)+len(k.DropQuery) == 0:
		m.errorf(at, "want keep_query, drop_query, header or cookie; ignore_query: true leaves out the whole query")
	}
	return out
}
