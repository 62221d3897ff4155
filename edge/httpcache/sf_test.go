package httpcache

import (
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestStructuredDictionary(t *testing.T) {
	good := map[string]map[string]sfItem{
		"":                           {},
		"a":                          {"a": {kind: sfBoolean, b: true}},
		"a=?0, b=?1":                 {"a": {kind: sfBoolean}, "b": {kind: sfBoolean, b: true}},
		"max-age=60;x=1;y, no-store": {"max-age": {kind: sfInteger, n: 60}, "no-store": {kind: sfBoolean, b: true}},
		"a=-5,\tb=1.5":               {"a": {kind: sfInteger, n: -5}, "b": {kind: sfDecimal}},
		`a="x\"y\\z"`:                {"a": {kind: sfString, s: `x"y\z`}},
		"a=tok/en:x, *b=*c":          {"a": {kind: sfToken, s: "tok/en:x"}, "*b": {kind: sfToken, s: "*c"}},
		`a=(1 "b" c);d, e=()`:        {"a": {kind: sfInner}, "e": {kind: sfInner}},
		"a=:aGk=:, b=@1659578233":    {"a": {kind: sfBytes}, "b": {kind: sfDate, n: 1659578233}},
		`a=%"f%c3%bc"`:               {"a": {kind: sfDisplay}},
		"a=1, a=2":                   {"a": {kind: sfInteger, n: 2}},
		"a=1 ,  b=2":                 {"a": {kind: sfInteger, n: 1}, "b": {kind: sfInteger, n: 2}},
		"a=999999999999999":          {"a": {kind: sfInteger, n: 999999999999999}},
	}
	for text, want := range good {
		if got, ok := parseSFDictionary([]string{text}); !ok || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %v %v, want %v", text, got, ok, want)
		}
	}
	for _, bad := range []string{"A=1", "a=", "a=1,", ",a", "a=1 b", "a =1", "a= 1", `a="x`, "a=1.", "a=1.2345", "a=1000000000000000", "a=-", "a=?2",
		"a=(1", "a=(1,2)", "a=:x", "a='x'", "a=1;B=2", "a=@1.5", "=1", "a=\"\x7f\"", "1a", "a=1&&&", "a, &&&&&"} {
		if got, ok := parseSFDictionary([]string{bad}); ok {
			t.Errorf("%q was taken as %v", bad, got)
		}
	}
	if got, ok := parseSFDictionary([]string{"a=1", "b=2"}); !ok || len(got) != 2 {
		t.Errorf("two lines: %v %v", got, ok)
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
		{"targeted", []string{"Cdn-Cache-Control: max-age=5, public", "Cache-Control: no-store"}, Directives{Present: true, Public: true, MaxAge: seconds(5)}, true},
		{"parameters are ignored", []string{"Cdn-Cache-Control: max-age=5;no-store"}, Directives{Present: true, MaxAge: seconds(5)}, true},
		{"wrong types are ignored", []string{`Cdn-Cache-Control: max-age="5", no-store=1, private=?0`}, Directives{Present: true}, true},
		{"negative", []string{"Cdn-Cache-Control: max-age=-5"}, Directives{Present: true, MaxAge: Seconds{Set: true}}, true},
		{"very large", []string{"Cdn-Cache-Control: max-age=99999999999"}, Directives{Present: true, MaxAge: seconds(maxDelta)}, true},
		{"field names", []string{`Cdn-Cache-Control: no-cache="a, b", private=("x")`},
			Directives{Present: true, NoCacheFields: []string{"A", "B"}, Private: true}, true},
		{"surrogate", []string{"Surrogate-Control: max-age=5+10, content=\"ESI/1.0\""},
			Directives{Present: true, MaxAge: seconds(5), StaleWhileRevalidate: seconds(10)}, true},
		{"surrogate without directives", []string{`Surrogate-Control: content="ESI/1.0"`, "Cache-Control: max-age=7"}, Directives{Present: true, MaxAge: seconds(7)}, false},
	} {
		if got, targeted := ResponseDirectives(header(c.fields...)); !reflect.DeepEqual(got, c.want) || targeted != c.targeted {
			t.Errorf("%s: %+v %v\nwant %+v %v", c.name, got, targeted, c.want, c.targeted)
		}
	}
}

func FuzzStructuredField(f *testing.F) {
	for _, s := range []string{"a=1, b=?1", `"x", "y";q=1`, "a=(1 2);b", "a=:aGk=:", "max-age=60, no-store"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if dict, ok := parseSFDictionary([]string{s}); ok {
			for k, v := range dict {
				if k == "" || strings.ToLower(k) != k || v.kind == sfInteger && (v.n > 999999999999999 || v.n < -999999999999999) {
					t.Errorf("%q gives %q=%v", s, k, v)
				}
			}
			// One more member leaves it a dictionary, and is found.
			if more, ok := parseSFDictionary([]string{s, "zz=5"}); s != "" && strings.Trim(s, " ") != "" && (!ok || more["zz"].n != 5) {
				t.Errorf("%q and another member: %v %v", s, more, ok)
			}
		}
		parseSFList([]string{s})
		ResponseDirectives(http.Header{"Cdn-Cache-Control": {s}, "Surrogate-Control": {s}})
	})
}
