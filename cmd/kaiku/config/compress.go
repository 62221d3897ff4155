package config

import (
	"fmt"
	"slices"

	"github.com/kaiku-cdn/kaiku/edge/compress"
)

// Compress says which responses of a site edges code for clients. In YAML it is true, false or a
// mapping.
type Compress struct {
	Types   []string `yaml:"types"`
	MinSize Size     `yaml:"min_size"`
	MaxSize Size     `yaml:"max_size"`
	Codings []string `yaml:"codings"`
	off     bool
}

// UnmarshalText parses true and false.
func (c *Compress) UnmarshalText(b []byte) error {
	switch string(b) {
	case "true", "false":
		*c = Compress{off: string(b) == "false"}
		return nil
	}
	return notForm("want true, false, or a mapping such as { codings: [br, gzip] }, not %q", b)
}

// Config returns what edges code, or nil if they code nothing.
func (c *Compress) Config() *compress.Config {
	if c == nil || c.off {
		return nil
	}
	return compress.New(compress.Options{Types: c.Types, MinSize: int64(c.MinSize), MaxSize: int64(c.MaxSize),
		Codings: c.Codings})
}

func (f *Fleet) checkCompress(at string, c *Compress) {
	if c == nil {
		return
	}
	for i, t := range c.Types {
		if !compress.IsType(t) {
			f.errorf(fmt.Sprintf("%s.types[%d]", at, i),
				"%q is not a media type: want one in lower case, such as text/css, text/* or application/*+json", t)
		}
	}
	for i, coding := range c.Codings {
		p := fmt.Sprintf("%s.codings[%d]", at, i)
		f.checkWord(p, coding, compress.Codings())
		if coding == "" || slices.Contains(c.Codings[:i], coding) {
			f.errorf(p, "want each coding once: br, zstd and gzip, the preferred one first")
		}
	}
	o := compress.Options{MinSize: int64(c.MinSize), MaxSize: int64(c.MaxSize)}.Complete()
	switch {
	case c.MaxSize > compress.Largest:
		f.errorf(at+".max_size", "want %s at most: coding a larger body takes minutes", Size(compress.Largest))
	case o.MinSize > o.MaxSize:
		f.errorf(at, "min_size, %s, is larger than max_size, %s", Size(o.MinSize), Size(o.MaxSize))
	}
}
