package geodns

import (
	"strings"
	"testing"
)

func TestName(t *testing.T) {
	for text, want := range map[string]name{
		"www.Example.COM":  "\x03www\x07example\x03com\x00",
		"www.example.com.": "\x03www\x07example\x03com\x00",
		".":                "\x00",
		"":                 "\x00",
		`\065\.b.c.`:       "\x03a.b\x01c\x00",
	} {
		if got, err := nameOf(text); err != nil || got != want {
			t.Errorf("%q is %q, %v, want %q", text, string(got), err, string(want))
		}
	}
	for _, text := range []string{"a..b", strings.Repeat("x", 64) + ".com", strings.Repeat("x.", 128), ".a"} {
		if got, err := nameOf(text); err == nil {
			t.Errorf("%q is %q", text, string(got))
		}
	}
	within := func(a, b string) bool {
		x, _ := nameOf(a)
		y, _ := nameOf(b)
		return x.within(y)
	}
	if !within("a.example.com", "example.com") || !within("example.com", "example.com") || !within("com", ".") {
		t.Error("within denies")
	}
	if within("com", "example.com") || within("notexample.com", "example.com") ||
		within("a.example.net", "example.com") {
		t.Error("within takes what is not")
	}
}
