package config

import (
	"strings"
	"testing"
)

// Mistakes in compress are told where they stand, and what is right switches it on.
func TestCompress(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		value, want string
		on          bool
	}{
		{"true", "", true},
		{"false", "", false},
		{"{}", "", true},
		{"{ codings: [gzip, br], min_size: 200B, max_size: 1MiB, types: [text/css, \"*/*+xml\"] }", "", true},
		{"yes", `6:15: sites[0].compress: want true, false, or a mapping such as { codings: [br, gzip] }, not "yes"`,
			false},
		{"[br]", "compress: want a mapping", false},
		{"{ codings: [brotli] }", `compress.codings[0]: "brotli" is unknown: want br, zstd or gzip`, false},
		{"{ codings: [br, br] }", "compress.codings[1]: want each coding once", false},
		{"{ types: [css] }", `compress.types[0]: "css" is not a media type`, false},
		{"{ types: [\"text/css; charset=utf-8\"] }", "compress.types[0]", false},
		{"{ max_size: 65MiB }", "compress.max_size: want 64MiB at most", false},
		{"{ min_size: 2KiB, max_size: 1KiB }", "compress: min_size, 2KiB, is larger than max_size, 1KiB", false},
		{"{ min_size: 9MiB }", "min_size, 9MiB, is larger than max_size, 8MiB", false},
		{"{ size: 1KiB }", "compress.size: unknown key", false},
	} {
		text := strings.Replace(rulesFleet, "rules:\n", "compress: "+c.value+"\n", 1)
		f, _, err := Load(writeFleet(t, text, ""))
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.value, err)
		case c.want == "":
			if on := f.Sites[0].Compress.Config() != nil; on != c.on {
				t.Errorf("%s: on is %v", c.value, on)
			}
		case err == nil || !strings.Contains(err.Error(), c.want):
			t.Errorf("%s: %v, want %s", c.value, err, c.want)
		}
	}
	var none *Compress
	if none.Config() != nil {
		t.Error("it is on without the key")
	}
}
