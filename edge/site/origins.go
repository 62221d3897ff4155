package site

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"path"
	"slices"

	"github.com/kaiku-cdn/kaiku/origin"
)

// This file has what rules choose for the look-up: the origin, and what is part of the key.

// Routes yields the routes to all origins of the site.
func (s *Site) Routes(yield func(*origin.Route) bool) {
	if s.Origin != nil && !yield(s.Origin) {
		return
	}
	for _, r := range s.Origins {
		if !yield(r) {
			return
		}
	}
}

// ToOrigin returns the site with one of its Origins as origin. "" means the site's own. It reports
// false if there is no such origin.
func (s *Site) ToOrigin(name string) (*Site, bool) {
	if name == "" {
		return s, true
	}
	r := s.Origins[name]
	if r == nil {
		return nil, false
	}
	c := *s
	c.Origin, c.OriginName = r, name
	return &c, true
}

// KeyMark returns what the key of a request has beside the target: a hash of the origin's name and
// of the values that a rule makes part of the key. "" means nothing. It reports false if the values
// are too long for a key: the request must pass the cache.
func (s *Site) KeyMark(h http.Header) (mark string, ok bool) {
	if s.OriginName == "" && !s.KeyRule.HasValues() {
		return "", true
	}
	b := append([]byte(s.OriginName), 0)
	if s.KeyRule.HasValues() {
		if b, ok = s.KeyRule.Append(b, h); !ok {
			return "", false
		}
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:16]), true
}

// IsKeyMark reports whether a text has the form of what KeyMark returns.
func IsKeyMark(mark string) bool {
	_, err := hex.DecodeString(mark)
	return err == nil && len(mark) == 32
}

func matchesAny(globs []string, name string) bool {
	return slices.ContainsFunc(globs, func(glob string) bool {
		ok, _ := path.Match(glob, name)
		return ok
	})
}

// StaticMark returns the KeyMark of all requests. It reports false if they have different ones.
func (s *Site) StaticMark() (mark string, ok bool) { return s.mark, !s.KeyRule.HasValues() }
