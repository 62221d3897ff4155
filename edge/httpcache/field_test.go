package httpcache

import (
	"maps"
	"net/http"
	"slices"
	"testing"
)

func TestSplitList(t *testing.T) {
	for _, c := range []struct {
		lines []string
		want  []string
	}{
		{nil, nil},
		{[]string{""}, nil},
		{[]string{" , ,\t,"}, nil},
		{[]string{"a"}, []string{"a"}},
		{[]string{"a,b", "c"}, []string{"a", "b", "c"}},
		{[]string{"\ta \t,  b "}, []string{"a", "b"}},
		{[]string{`a="x,y",b`}, []string{`a="x,y"`, "b"}},
		{[]string{`a="x\",y",b`}, []string{`a="x\",y"`, "b"}},
		{[]string{`a="x\\",b`}, []string{`a="x\\"`, "b"}},
		// An unclosed quote hides nothing and does not extend into the next line.
		{[]string{`a="x,b`, "c,d"}, []string{`a="x`, "b", "c", "d"}},
		{[]string{`a="x\`, "b"}, []string{`a="x\`, "b"}},
		{[]string{`a="x\,b`}, []string{`a="x\`, "b"}},
	} {
		if got := splitList(c.lines); !slices.Equal(got, c.want) {
			t.Errorf("splitList(%q) = %q, want %q", c.lines, got, c.want)
		}
	}
}

func TestRemoveHopByHop(t *testing.T) {
	h := http.Header{
		"Connection":                {"close, X-Hop", "x-another , , cdn-loop"},
		"Cdn-Loop":                  {"kaiku"},
		"X-Hop":                     {"1"},
		"X-Another":                 {"1", "2"},
		"Keep-Alive":                {"timeout=5"},
		"Proxy-Connection":          {"keep-alive"},
		"Te":                        {"trailers"},
		"Trailer":                   {"X-Sum"},
		"Transfer-Encoding":         {"chunked"},
		"Upgrade":                   {"h2c"},
		"Proxy-Authenticate":        {"Basic"},
		"Proxy-Authorization":       {"Basic eDp5"},
		"Proxy-Authentication-Info": {"x"},
		"Http2-Settings":            {"x"},
		"X-End-To-End":              {"stays"},
		"Authorization":             {"Basic eDp5"},
		"Cache-Control":             {"max-age=1"},
	}
	RemoveHopByHop(h)
	want := []string{"Authorization", "Cache-Control", "Cdn-Loop", "X-End-To-End"}
	if got := slices.Sorted(maps.Keys(h)); !slices.Equal(got, want) {
		t.Errorf("left are %q, want %q", got, want)
	}
}
