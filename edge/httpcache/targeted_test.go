package httpcache

import (
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"
)

// A targeted field counts if it is a Dictionary (RFC 9651), whatever the types of its members, and
// is ignored as a whole if not. The cases include some from the HTTP working group's test vectors
// that parsers often get wrong: byte sequences without padding, and the contents of a Display
// String.
func TestTargetedFieldIsADictionary(t *testing.T) {
	const display = `%" !%22#$%25&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\]^_` + "`" +
		`abcdefghijklmnopqrstuvwxyz{|}~"`
	for _, member := range []string{
		"x", "x;y;z=1", "x=?0", "x=-5,\ty=1.5", `x="y\"z\\"`, "x=tok/en:x, *y=*z", `x=(1 "b" c);d, y=()`, "x=1 ,  y=2",
		"x=999999999999999", "x=@1659578233", "x=@-1",
		"x=::", "x=:aGk=:", "x=:aGVsbG8=:", "x=:+/8=:", "x;y=:aGk=:",
		`x=%"f%c3%bc"`, `x=%"foo %22bar%22 \ baz"`, "x=" + display, `x=%"%00%0a"`, `x=%""`,
	} {
		if d, targeted := ResponseDirectives(header("Cdn-Cache-Control: max-age=1, " + member +
			", max-age=5")); !targeted || d.MaxAge.D != 5*time.Second {
			t.Errorf("with %s it is not taken", member)
		}
	}
	for _, member := range []string{
		"X=1", "x=", "x=1 y", "x =1", "x= 1", `x="y`, "x=1.", "x=1.2345", "x=1000000000000000", "x=-", "x=?2", "x=(1",
		"x=(1,2)", "x='y'", "x=1;Y=2", "x=@1.5", "=1", "x=\"\x7f\"",
		"1x", "x=1&&&", "&&&&&", "", "x=1\t;y",
		"x=:y", "x=:aGVsbG8:", "x=:aGk:", "x=:=aGk=:", "x=:aGk==:", "x=:aG k=:", "x=:aGk-:", "x;y=:aGk:", "x=(:aGk:)",
		`x=%"f%C3%BC"`, `x=%"%c3%28"`, `x=%"%a0%a1"`, `x=%"%e2%28%a1"`, `x=%"%e2%82%28"`, `x=%"%f0%28%8c%28"`,
		`x=%"%c3"`, `x=%"%"`, `x=%"%g0"`, `x=%"a`, `x=%a`, `x=%'a'`, "x=%\"\xc3\xbc\"",
		`x;y=%"%c3%28"`, `x=(%"%a0%a1")`,
	} {
		if _, targeted := ResponseDirectives(header("Cdn-Cache-Control: max-age=5, "+member+", y",
			"Cache-Control: no-store")); targeted {
			t.Errorf("with %q it is taken", member)
		}
	}
	for _, bad := range []string{"max-age=5,", ",max-age=5", ""} {
		if _, targeted := ResponseDirectives(http.Header{"Cdn-Cache-Control": {bad}}); targeted {
			t.Errorf("%q is taken", bad)
		}
	}
	if d, targeted := ResponseDirectives(header("Cdn-Cache-Control: max-age=5",
		"Cdn-Cache-Control: private")); !targeted || d.MaxAge.D != 5*time.Second || !d.Private {
		t.Errorf("of two lines: %+v", d)
	}
}

func TestGroups(t *testing.T) {
	for text, want := range map[string][]string{
		`"a", "b c"`: {"a", "b c"}, `"a";x=1`: {"a"}, `a`: nil, `"a", b`: nil, `"a",`: nil, `("a")`: nil, ``: nil,
		strings.TrimSuffix(strings.Repeat(`"a", `, maxGroups+1), ", "): nil,
	} {
		if got := Groups([]string{text}); !reflect.DeepEqual(got, want) {
			t.Errorf("%.40q: %v, want %v", text, got, want)
		}
	}
}

func TestResponseDirectives(t *testing.T) {
	seconds := func(n int) Seconds { return Seconds{Set: true, Valid: true, D: time.Duration(n) * time.Second} }
	for _, c := range []struct {
		name     string
		fields   []string
		want     Directives
		targeted bool
	}{
		{"none", nil, Directives{}, false},
		{"plain", []string{"Cache-Control: max-age=5"}, Directives{Present: true, MaxAge: seconds(5)}, false},
		{"targeted", []string{"Cdn-Cache-Control: max-age=5, public", "Cache-Control: no-store"},
			Directives{Present: true, Public: true, MaxAge: seconds(5)}, true},
		{"parameters are ignored", []string{"Cdn-Cache-Control: max-age=5;no-store"},
			Directives{Present: true, MaxAge: seconds(5)}, true},
		{"wrong types are ignored", []string{`Cdn-Cache-Control: max-age="5", no-store=1, private=?0`},
			Directives{Present: true}, true},
		{"negative", []string{"Cdn-Cache-Control: max-age=-5"}, Directives{Present: true, MaxAge: Seconds{Set: true}},
			true},
		{"very large", []string{"Cdn-Cache-Control: max-age=99999999999"},
			Directives{Present: true, MaxAge: seconds(maxDelta)}, true},
		{"field names", []string{`Cdn-Cache-Control: no-cache="a, b", private=("x")`},
			Directives{Present: true, NoCacheFields: []string{"A", "B"}, Private: true}, true},
		{"surrogate", []string{"Surrogate-Control: max-age=5+10, content=\"ESI/1.0\""},
			Directives{Present: true, MaxAge: seconds(5), StaleWhileRevalidate: seconds(10)}, true},
		{"surrogate without directives", []string{`Surrogate-Control: content="ESI/1.0"`, "Cache-Control: max-age=7"},
			Directives{Present: true, MaxAge: seconds(7)}, false},
	} {
		if got, targeted := ResponseDirectives(header(c.fields...)); !reflect.DeepEqual(got, c.want) ||
			targeted != c.targeted {
			t.Errorf("%s: %+v %v\nwant %+v %v", c.name, got, targeted, c.want, c.targeted)
		}
	}
}

// Any targeted field is either ignored as a whole or gives directives within bounds. Adding a
// member does not change which of the two it is.
func FuzzTargetedField(f *testing.F) {
	for _, s := range []string{"a=1, b=?1", "max-age=5;x, private=(a b)", "a=(1 2);b", "a=:aGk=:",
		"max-age=60, no-store", `no-cache="a"`, `a=%"%c3%bc"`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, targeted := ResponseDirectives(http.Header{"Cdn-Cache-Control": {s}})
		for _, v := range []Seconds{d.MaxAge, d.SMaxAge, d.StaleWhileRevalidate, d.StaleIfError} {
			if v.D < 0 || v.D > maxDelta*time.Second {
				t.Errorf("%q gives %v", s, v)
			}
		}
		if strings.Trim(s, " ") == "" {
			return
		}
		more, still := ResponseDirectives(http.Header{"Cdn-Cache-Control": {s, "max-age=7"}})
		if still != targeted || targeted && more.MaxAge.D != 7*time.Second {
			t.Errorf("%q: %v, with another member %v, %+v", s, targeted, still, more)
		}
		Groups([]string{s})
		ResponseDirectives(http.Header{"Surrogate-Control": {s}})
	})
}
