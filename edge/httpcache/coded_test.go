package httpcache

import (
	"net/http"
	"slices"
	"strings"
	"testing"
)

func TestPreferredCodings(t *testing.T) {
	for _, c := range []struct{ field, want string }{
		{"", ""}, {"gzip", "gzip"}, {"gzip, deflate, br, zstd", "br zstd gzip"}, {"*", "br zstd gzip"},
		{"gzip;q=1.0, br;q=0.9", "gzip br"}, {"br;q=0.9, gzip; Q=1, *;q=0", "gzip br"}, {"BR , x-GZip", "br gzip"},
		{"*;q=0.5, gzip", "gzip br zstd"}, {"identity", ""}, {"identity;q=0", ""}, {"identity, br;q=0.9", ""},
		{"identity;q=0.3, br;q=0.3, gzip;q=0.2", "br"}, {"br;q=0", ""}, {"br;q=", ""}, {"br;q=nan", ""}, {"br;q=1.001",
			""},
		{"br;q=0.0001", ""}, {"br;level=3;q=0.1, gzip;level=1", "gzip br"}, {"gzip;q=0, gzip", "gzip"}, {"compress",
			""},
		{"*;q=0", ""}, {"br;;", "br"}, {";q=1", ""}, {"\"br\"", ""},
	} {
		if got := strings.Join(PreferredCodings([]string{c.field}, []string{"br", "zstd", "gzip"}),
			" "); got != c.want {
			t.Errorf("%q: %q, want %q", c.field, got, c.want)
		}
	}
	if got := PreferredCodings([]string{"br;q=0.5", "gzip"}, []string{"gzip", "br"}); !slices.Equal(got,
		[]string{"gzip", "br"}) {
		t.Errorf("two lines: %q", got)
	}
	if got := PreferredCodings(nil, []string{"br"}); len(got) > 0 {
		t.Errorf("without the field: %q", got)
	}
}

// The choice is of what is offered, without what the client refuses, and it is what the client
// accepts by the look of Codings.
func FuzzPreferredCodings(f *testing.F) {
	for _, s := range []string{"", "gzip, br", "*;q=0.1", "br;q=0,*", "identity;q=1, br;q=0.5", "x-gzip;q=0.001",
		"a;b;q=1"} {
		f.Add(s)
	}
	offered := []string{"br", "zstd", "gzip"}
	f.Fuzz(func(t *testing.T, field string) {
		got := PreferredCodings([]string{field}, offered)
		seen := map[string]bool{}
		for _, c := range got {
			if !slices.Contains(offered, c) || seen[c] {
				t.Fatalf("%q: %q", field, got)
			}
			seen[c] = true
			if slices.Contains(PreferredCodings([]string{field, c + ";q=0"}, offered), c) {
				t.Fatalf("%q: %s is chosen though it is refused", field, c)
			}
			if !strings.Contains(field, "*") && !strings.Contains(Codings([]string{field}), c) {
				t.Fatalf("%q: %s is chosen, and the origin is told %q", field, c, Codings([]string{field}))
			}
		}
	})
}

func TestCoded(t *testing.T) {
	for _, c := range []struct{ etag, want string }{
		{`"a"`, `"a-kaiku-br"`}, {`W/"a"`, `W/"a"`}, {"", ""}, {"a", "a-kaiku-br"}, {`"a`, `"a-kaiku-br`}, {` "a" `,
			`"a-kaiku-br"`},
	} {
		s := &Stored{Status: 200, Header: http.Header{"Accept-Ranges": {"bytes"}, "Vary": {"Origin"}}}
		if c.etag != "" {
			s.Header["Etag"] = []string{c.etag}
		}
		before := s.Header.Clone()
		coded := s.Coded("br").Header
		if got := coded.Get("Etag"); got != c.want {
			t.Errorf("%s became %s, want %s", c.etag, got, c.want)
		}
		if coded.Get("Content-Encoding") != "br" || coded["Accept-Ranges"] != nil ||
			strings.Join(coded["Vary"], ", ") != "Origin, Accept-Encoding" {
			t.Errorf("the coded header is %v", coded)
		}
		if !slices.Equal(s.Header["Vary"], before["Vary"]) || s.Header["Content-Encoding"] != nil ||
			s.Header["Accept-Ranges"] == nil {
			t.Errorf("the stored header changed to %v", s.Header)
		}
	}
	for vary, want := range map[string]string{"*": "*", "accept-encoding": "accept-encoding", "": "Accept-Encoding"} {
		s := &Stored{Header: http.Header{}}
		if vary != "" {
			s.Header.Set("Vary", vary)
		}
		if got := strings.Join(s.VariedByCoding().Header["Vary"], ", "); got != want {
			t.Errorf("Vary %q became %q, want %q", vary, got, want)
		}
	}
}

func TestRemoveCodedTags(t *testing.T) {
	for field, want := range map[string]string{
		`"a-kaiku-br"`: `"a"`, `"a"`: `"a"`, `W/"a", "b-kaiku-gzip"`: `W/"a", "b"`, `"a,b-kaiku-br"`: `"a,b"`, "*": "*",
		`"a-kaiku-1"`: `"a-kaiku-1"`, `"a-kaiku"`: `"a-kaiku"`, "a-kaiku-br": "a", `"-kaiku-br"`: `""`,
	} {
		h := http.Header{"If-Match": {field}}
		RemoveCodedTags(h)
		if got := h.Get("If-Match"); got != want {
			t.Errorf("%s became %s, want %s", field, got, want)
		}
	}
}
