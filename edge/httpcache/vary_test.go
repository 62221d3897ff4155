package httpcache

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestVaryFields(t *testing.T) {
	request := header("Accept-Encoding: gzip,  br", "Accept-Encoding: zstd", "X-Empty:")
	got := VaryFields([]string{"x-missing, accept-encoding", "X-Empty, Accept-Encoding,"}, request)
	want := []VaryField{
		{Name: "Accept-Encoding", Value: "br, gzip, zstd", Present: true},
		{Name: "X-Empty", Present: true},
		{Name: "X-Missing"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	if got := VaryFields(nil, request); got != nil {
		t.Errorf("without Vary: %+v", got)
	}
}

// RFC 9111, section 4.1.
func TestVariantMatches(t *testing.T) {
	for _, c := range []struct {
		name          string
		vary          string
		first, second []string
		want          bool
	}{
		{"equal", "Accept", []string{"Accept: a"}, []string{"Accept: a"}, true},
		{"different", "Accept", []string{"Accept: a"}, []string{"Accept: b"}, false},
		{"values in another case", "Accept", []string{"Accept: a"}, []string{"Accept: A"}, false},
		{"absent from both", "Accept", nil, nil, true},
		{"absent from one", "Accept", []string{"Accept: a"}, nil, false},
		{"absent from the first", "Accept", nil, []string{"Accept: a"}, false},
		{"empty is not absent", "Accept", []string{"Accept:"}, nil, false},
		{"whitespace", "Accept", []string{"Accept: a,b"}, []string{"Accept: a ,  b"}, true},
		{"one line or two", "Accept", []string{"Accept: a, b"}, []string{"Accept: a", "Accept: b"}, true},
		{"in another order", "Accept", []string{"Accept: a, b"}, []string{"Accept: b, a"}, false},
		{"a comma in quotes", "Accept", []string{`Accept: "a,b"`}, []string{`Accept: "a, b"`}, false},
		{"two fields", "Accept, Accept-Language", []string{"Accept: a", "Accept-Language: fi"},
			[]string{"Accept: a", "Accept-Language: fi"}, true},
		{"one of two", "Accept, Accept-Language", []string{"Accept: a", "Accept-Language: fi"},
			[]string{"Accept: a", "Accept-Language: sv"}, false},
		{"another field", "Accept", []string{"Accept: a", "Cookie: x"}, []string{"Accept: a", "Cookie: y"}, true},
		{"a field that is no list", "Origin", []string{"Origin: https://a.test"}, []string{"Origin: https://a.test,"},
			false},
		{"lines of a field that is no list", "Origin", []string{"Origin: a", "Origin: b"}, []string{"Origin: a, b"},
			false},
		{"a field that the origin is not sent", "Range, If-None-Match", []string{"Range: bytes=0-1"},
			[]string{"If-None-Match: *"}, true},
		{"nothing to vary by", "", []string{"Accept: a"}, []string{"Accept: b"}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := Variant{Fields: VaryFields([]string{c.vary}, header(c.first...))}
			if got := v.Matches(header(c.second...)); got != c.want {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
}

func variant(key string, age time.Duration, lines ...string) Variant {
	var vary []string
	for _, l := range lines {
		name, _, _ := strings.Cut(l, ":")
		vary = append(vary, name)
	}
	return Variant{Key: Key(key), Fields: VaryFields(vary, header(lines...)), Date: now.Add(-age)}
}

func TestSelect(t *testing.T) {
	gzip := variant("gzip", time.Hour, "Accept-Encoding: gzip")
	br := variant("br", time.Minute, "Accept-Encoding: br")
	finnish := variant("finnish", time.Second, "Accept-Encoding: gzip", "Accept-Language: fi")
	for _, c := range []struct {
		name     string
		variants []Variant
		request  []string
		want     string
	}{
		{"none stored", nil, nil, ""},
		{"the one", []Variant{gzip, br}, []string{"Accept-Encoding: gzip"}, "gzip"},
		{"the other", []Variant{gzip, br}, []string{"Accept-Encoding: br"}, "br"},
		{"neither", []Variant{gzip, br}, []string{"Accept-Encoding: zstd"}, ""},
		{"neither, without the field", []Variant{gzip, br}, nil, ""},
		{"the newest of two", []Variant{gzip, finnish}, []string{"Accept-Encoding: gzip", "Accept-Language: fi"},
			"finnish"},
		{"the newest of two, first in the list", []Variant{finnish, gzip},
			[]string{"Accept-Encoding: gzip", "Accept-Language: fi"}, "finnish"},
		{"of one Date, that added last", []Variant{variant("old", 0, "Accept: a"), variant("new", 0, "Cookie: c")},
			[]string{"Accept: a", "Cookie: c"}, "new"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := ""
			if v := Select(c.variants, header(c.request...)); v != nil {
				got = string(v.Key)
			}
			if got != c.want {
				t.Errorf("selected %q, want %q", got, c.want)
			}
		})
	}
}

func TestAddVariant(t *testing.T) {
	keys := func(variants []Variant) string {
		var out []string
		for _, v := range variants {
			out = append(out, string(v.Key))
		}
		return strings.Join(out, " ")
	}
	var list []Variant
	used := ""
	for _, v := range []struct{ add, want, used string }{
		{"a", "a", ""}, {"b", "a b", ""}, {"c", "a b c", ""},
		{"a", "b c a", ""},  // replaces the variant with the same fields
		{"d", "c a d", ""},  // the oldest is dropped
		{"e", "c d e", "c"}, // the oldest unused one is dropped
		{"f", "d e f", "c d e"},
	} {
		used = v.used
		before := keys(list)
		next := AddVariant(list, variant(v.add, 0, "Accept: "+v.add), 3,
			func(k Key) bool { return strings.Contains(used, string(k)) })
		if keys(list) != before {
			t.Errorf("adding %s changed the list that was given from %q to %q", v.add, before, keys(list))
		}
		if list = next; keys(list) != v.want {
			t.Errorf("after %s: %q, want %q", v.add, keys(list), v.want)
		}
	}
}

func FuzzVary(f *testing.F) {
	f.Add("Accept-Encoding", "gzip, br", "gzip")
	f.Add("accept, ACCEPT", `"a,b"`, "a")
	f.Add("X-A, X-B", `"`, "")
	f.Add(",,", "", "x")
	f.Add(`"a,b"`, "", "x")
	f.Fuzz(func(t *testing.T, vary, one, other string) {
		a, b := http.Header{}, http.Header{}
		for _, name := range splitList([]string{vary}) {
			a[http.CanonicalHeaderKey(name)] = []string{one}
			b[http.CanonicalHeaderKey(name)] = []string{other}
		}
		va, vb := Variant{Fields: VaryFields([]string{vary}, a)}, Variant{Fields: VaryFields([]string{vary}, b)}
		if !va.Matches(a) {
			t.Errorf("Vary %q: a request does not select the variant that it made, with %q", vary, one)
		}
		if va.Matches(b) != vb.Matches(a) || va.Matches(b) != slices.Equal(va.Fields, vb.Fields) {
			t.Errorf("Vary %q: %q and %q match one way only", vary, one, other)
		}
		if len(va.Fields) > 0 && va.Matches(http.Header{}) {
			t.Errorf("Vary %q: a request without the fields selects the variant for %q", vary, one)
		}
		if !slices.IsSortedFunc(va.Fields, func(a, b VaryField) int { return strings.Compare(a.Name, b.Name) }) {
			t.Errorf("Vary %q: fields are not in order: %+v", vary, va.Fields)
		}
	})
}

func TestCodings(t *testing.T) {
	for in, want := range map[string]string{
		"gzip, deflate, br, zstd":        "br, gzip, zstd",
		"GZIP;q=0.5,br;q=1.0":            "br, gzip",
		"br;q=0, gzip":                   "gzip",
		"gzip;q=0.000":                   "identity",
		"deflate":                        "deflate",
		"deflate, gzip":                  "gzip",
		"x-gzip, x-compress, compress":   "gzip",
		"*":                              "gzip",
		"*, gzip;q=0":                    "identity",
		"*;q=0":                          "identity",
		"identity;q=1, junk, junk2;q=.1": "identity",
		"":                               "identity",
		"gzip, br, dcz, dcb":             "br, dcb, dcz, gzip",
		"br;level=9, gzip ; q = 0":       "br",
	} {
		if got := Codings([]string{in}); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	if got := Codings([]string{"zstd", "br,,", " gzip"}); got != "br, gzip, zstd" {
		t.Errorf("several lines: %q", got)
	}
}

// Clients can't cause more than a few normalized values.
func FuzzCodings(f *testing.F) {
	f.Add("gzip, br;q=0.1")
	f.Fuzz(func(t *testing.T, in string) {
		got := Codings([]string{in})
		if len(got) > 40 || Codings([]string{got}) != got {
			t.Fatalf("%q becomes %q, and that %q", in, got, Codings([]string{got}))
		}
	})
}

// A hash replaces a long value, and no value that a client can send equals it.
func TestLongVaryValues(t *testing.T) {
	long := strings.Repeat("c", 8<<10)
	fields := VaryFields([]string{"Cookie, Accept-Language, X-Kind"},
		http.Header{"Cookie": {long}, "Accept-Language": {long}, "X-Kind": {long}})
	for _, f := range fields {
		if len(f.Value) >= hashedFrom || f.Value[0] != 0 {
			t.Errorf("%s: %q", f.Name, f.Value)
		}
	}
	v := Variant{Fields: VaryFields([]string{"Cookie"}, http.Header{"Cookie": {long}})}
	if !v.Matches(http.Header{"Cookie": {long}}) || v.Matches(http.Header{"Cookie": {long + "c"}}) ||
		v.Matches(http.Header{"Cookie": {v.Fields[0].Value[1:]}}) {
		t.Error("a long value is mixed up with another one")
	}
}

func TestPreferredType(t *testing.T) {
	for accept, want := range map[string]string{
		"":    "",
		"*/*": "",
		"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8": "text/html",
		"application/json": "application/json",
		"application/json;q=0.5, text/html;level=1;q=0.4": "application/json",
		"application/json, text/html":                     "text/html",
		"TEXT/HTML;q=0, application/json;q=0.001":         "application/json",
		"text/html;q=nonsense":                            "",
		"text/*, application/*":                           "",
		", ;q=1, text/html;":                              "text/html",
	} {
		if got := PreferredType([]string{accept}, "text/html", "application/json"); got != want {
			t.Errorf("%q: %q, want %q", accept, got, want)
		}
	}
}
