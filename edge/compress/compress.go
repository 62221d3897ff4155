// Package compress has the content codings that an edge applies for its clients: which responses of
// a site it codes (Config), and the coding itself (NewWriter). Only this package imports the
// libraries of the codings. Package cache stores the results and serves them.
package compress

import (
	"cmp"
	"math/bits"
	"mime"
	"net/http"
	"path"
	"slices"
	"strings"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
)

// The content codings, by their names in Accept-Encoding.
const (
	Brotli = "br"
	Zstd   = "zstd"
	Gzip   = "gzip"
)

// Codings returns all codings. The first ones have the smallest results.
func Codings() []string { return []string{Brotli, Zstd, Gzip} }

// Largest is the largest Options.MaxSize.
const Largest = 64 << 20

// defaultTypes are text, and binary formats that are not compressed already.
var defaultTypes = []string{
	"text/*", "application/*+json", "application/*+xml", "image/*+xml", "model/*+json", "model/*+xml",
	"application/dash+xml", "application/ecmascript", "application/javascript", "application/json",
	"application/manifest+json", "application/rtf", "application/sql", "application/toml", "application/wasm",
	"application/x-httpd-php", "application/x-javascript", "application/x-ndjson", "application/x-sh",
	"application/x-yaml", "application/xml", "application/yaml",
	"application/vnd.apple.mpegurl", "application/vnd.ms-fontobject", "application/x-mpegurl",
	"application/x-font-opentype", "application/x-font-otf", "application/x-font-truetype", "application/x-font-ttf",
	"font/collection", "font/otf", "font/ttf",
	"image/bmp", "image/svg+xml", "image/vnd.microsoft.icon", "image/x-icon",
}

// Options are the settings of a site. Zero values mean the defaults.
type Options struct {
	Types   []string // media types, in lower case; * stands for any text without /
	MinSize int64    // bytes of the smallest body that is coded; 0 means 1 KiB
	MaxSize int64    // bytes of the largest one; 0 means 8 MiB
	Codings []string // the preferred one first
}

// Config says which responses of a site are coded, and how. It doesn't change.
type Config struct {
	types    map[string]bool
	globs    []string
	min, max int64
	codings  []string
}

// Complete returns the options with the defaults in place of zero values.
func (o Options) Complete() Options {
	o.MinSize, o.MaxSize = cmp.Or(o.MinSize, 1<<10), cmp.Or(o.MaxSize, 8<<20)
	if len(o.Codings) == 0 {
		o.Codings = Codings()
	}
	if len(o.Types) == 0 {
		o.Types = defaultTypes
	}
	return o
}

// New returns the Config of a site.
func New(o Options) *Config {
	o = o.Complete()
	c := &Config{types: map[string]bool{}, min: o.MinSize, max: o.MaxSize, codings: o.Codings}
	for _, t := range o.Types {
		if strings.Contains(t, "*") {
			c.globs = append(c.globs, t)
		} else {
			c.types[t] = true
		}
	}
	return c
}

// Codings returns the codings of the site, the preferred one first. The caller must not change it.
func (c *Config) Codings() []string { return c.codings }

// Accepted returns the codings of the site that a client accepts, the best one first. lines are
// those of Accept-Encoding.
func (c *Config) Accepted(lines []string) []string {
	return httpcache.PreferredCodings(lines, c.codings)
}

// keptAsTheyAre are fields of responses that are not coded: the body is coded already, is a part,
// or has a digest or a signature that would no longer hold.
var keptAsTheyAre = []string{"Content-Encoding", "Content-Range", "Content-Digest", "Content-Md5", "Digest",
	"Repr-Digest", "Signature-Input", "Trailer"}

// Codable reports whether a response is coded, whose body has size bytes; -1 means unknown.
func (c *Config) Codable(s *httpcache.Stored, size int64) bool { return c.WhyNot(s, size) == "" }

// WhyNot returns why a response is not coded, whose body has size bytes, or "" if it is; -1 means
// an unknown size.
func (c *Config) WhyNot(s *httpcache.Stored, size int64) string {
	switch {
	case s.Status != http.StatusOK:
		return "its status is not 200"
	case size == 0, size > 0 && size < c.min:
		return "it is smaller than min_size"
	case size > c.max:
		return "it is larger than max_size"
	}
	for _, name := range keptAsTheyAre {
		if _, ok := s.Header[name]; ok {
			return "it has " + name
		}
	}
	d, _ := httpcache.ResponseDirectives(s.Header)
	switch {
	case d.NoTransform, httpcache.ParseCacheControl(s.Header["Cache-Control"]).NoTransform:
		return "no-transform (RFC 9111, 5.2.2.6)"
	case !c.covers(s.Header.Get("Content-Type")):
		return "its Content-Type is not among the types"
	}
	return ""
}

// covers reports whether the value of Content-Type is of a type of the site.
func (c *Config) covers(contentType string) bool {
	t, _, _ := strings.Cut(contentType, ";")
	t = strings.ToLower(strings.TrimSpace(t))
	if c.types[t] {
		return true
	}
	return slices.ContainsFunc(c.globs, func(glob string) bool {
		ok, err := path.Match(glob, t)
		return ok && err == nil
	})
}

// IsType reports whether a text can be in Options.Types.
func IsType(s string) bool {
	kind, _, err := mime.ParseMediaType(strings.ReplaceAll(s, "*", "x"))
	main, sub, _ := strings.Cut(kind, "/")
	return err == nil && strings.ReplaceAll(s, "*", "x") == kind && httpcache.IsToken(main) && httpcache.IsToken(sub)
}

// window returns the binary logarithm of the smallest window that has size bytes and more, at least
// low and at most high.
func window(size int64, low, high int) int { return min(max(bits.Len64(uint64(size)), low), high) }
