package main

import (
	"errors"
	"strings"
	"testing"
)

// A purge that looks like a pattern would succeed and purge nothing. It is refused before any edge
// is queried.
func TestPurgeRefusesPatterns(t *testing.T) {
	for _, c := range []struct{ args, says string }{
		{"http://www.example.com/*", "use --prefix http://www.example.com/"},
		{"http://www.example.com/a http://www.example.com/b/*", "use --prefix http://www.example.com/b/"},
		{"--prefix http://www.example.com/sty*", "use --prefix http://www.example.com/sty"},
		{"--prefix http://www.example.com/img/**", "use --prefix http://www.example.com/img/"},
	} {
		_, err := command(t, append([]string{"purge"}, strings.Fields(c.args)...)...)
		if !errors.As(err, new(usageError)) || !strings.HasSuffix(err.Error(), c.says) ||
			!strings.Contains(err.Error(), "* has no special meaning") {
			t.Errorf("purge %s: %v", c.args, err)
		}
	}
}
