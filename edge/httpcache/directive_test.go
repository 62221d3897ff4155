package httpcache

import (
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"
)

func seconds(n int) Seconds {
	return Seconds{Set: true, Valid: true, D: time.Duration(n) * time.Second}
}

// invalid is a directive with an invalid argument.
var invalid = Seconds{Set: true}

// cacheControls are the lines of a field and what is in them, without Present.
var cacheControls = []struct {
	name  string
	lines []string
	want  Directives
}{
	{"empty line", []string{""}, Directives{}},
	{"empty members", []string{", ,,no-store,,"}, Directives{NoStore: true}},
	{"all that have no argument", []string{"no-store, no-transform, public, must-revalidate, proxy-revalidate, must-understand, immutable, only-if-cached, no-cache, private"},
		Directives{NoStore: true, NoTransform: true, Public: true, MustRevalidate: true, ProxyRevalidate: true,
			MustUnderstand: true,
			OnlyIfCached:   true, NoCache: true, Private: true}},
	{"all that have one", []string{"max-age=1, s-maxage=2, min-fresh=3, max-stale=4, stale-while-revalidate=5, stale-if-error=6"},
		Directives{MaxAge: seconds(1), SMaxAge: seconds(2), MinFresh: seconds(3), MaxStale: seconds(4),
			StaleWhileRevalidate: seconds(5), StaleIfError: seconds(6)}},
	{"names in any case", []string{"No-Store, MAX-AGE=7, PUBLIC"},
		Directives{NoStore: true, MaxAge: seconds(7), Public: true}},
	{"several lines", []string{"max-age=7", "no-store"}, Directives{MaxAge: seconds(7), NoStore: true}},
	{"unknown ones", []string{`community="UCI", x=1, max-age=7, max-agent=9, xmax-age=9`},
		Directives{MaxAge: seconds(7)}},
	{"max-stale alone", []string{"max-stale"}, Directives{MaxStaleAny: true}},

	// RFC 9111, section 4.2.1: the first of repeated directives counts.
	{"repeated", []string{"max-age=1, max-age=2"}, Directives{MaxAge: seconds(1)}},
	{"repeated over lines", []string{"max-age=9", "max-age=2"}, Directives{MaxAge: seconds(9)}},
	{"repeated, the first invalid", []string{"max-age=x, max-age=2"}, Directives{MaxAge: invalid}},

	{"quoted", []string{`max-age="7"`}, Directives{MaxAge: seconds(7)}},
	{"quoted with an escape", []string{`max-age="\7"`}, Directives{MaxAge: seconds(7)}},
	{"quoted badly", []string{`max-age="7`}, Directives{MaxAge: invalid}},
	{"quoted in single quotes", []string{`max-age='7'`}, Directives{MaxAge: invalid}},
	{"no argument", []string{"max-age"}, Directives{MaxAge: invalid}},
	{"empty argument", []string{"max-age="}, Directives{MaxAge: invalid}},
	{"negative", []string{"max-age=-1"}, Directives{MaxAge: invalid}},
	{"plus", []string{"max-age=+1"}, Directives{MaxAge: invalid}},
	{"decimal", []string{"max-age=1.5"}, Directives{MaxAge: invalid}},
	{"hexadecimal", []string{"max-age=0x10"}, Directives{MaxAge: invalid}},
	{"a unit", []string{"max-age=10s"}, Directives{MaxAge: invalid}},
	{"two numbers", []string{"max-age=1 0"}, Directives{MaxAge: invalid}},
	{"semicolon", []string{"max-age=1;x"}, Directives{MaxAge: invalid}},
	{"leading zeros", []string{"max-age=007"}, Directives{MaxAge: seconds(7)}},
	// RFC 9111, section 1.2.2: values that can't be represented become 2^31.
	{"2^31", []string{"max-age=2147483648"}, Directives{MaxAge: seconds(1 << 31)}},
	{"huge", []string{"max-age=99999999999999999999999999999999"}, Directives{MaxAge: seconds(1 << 31)}},
	{"2^64", []string{"max-age=18446744073709551616"}, Directives{MaxAge: seconds(1 << 31)}},

	// The grammar allows no whitespace around "=". Restrictions are honoured anyway,
	// permissions are not.
	{"space before =", []string{"max-age =7"}, Directives{MaxAge: invalid}},
	{"space after =", []string{"max-age= 7"}, Directives{MaxAge: invalid}},
	{"no-store with an argument", []string{"no-store=0"}, Directives{NoStore: true}},
	{"no-store with a space", []string{"no-store = x"}, Directives{NoStore: true}},
	{"must-revalidate with an argument", []string{`must-revalidate="x"`}, Directives{MustRevalidate: true}},
	{"public with an argument", []string{"public=1"}, Directives{}},

	// An unclosed quote does not hide what follows.
	{"unclosed quote", []string{`x="y, no-store`}, Directives{NoStore: true}},
	{"unclosed quote after another", []string{`x="y", z="w, private`}, Directives{Private: true}},
	{"unclosed after an escape", []string{`x="y\", no-store`}, Directives{NoStore: true}},
	{"unclosed by the line's end", []string{`x="y`, `no-store"`, "no-cache"}, Directives{NoCache: true}},
	{"inside a quoted string", []string{`x="a, no-store, b", max-age=7`}, Directives{MaxAge: seconds(7)}},

	{"private for fields", []string{`private="set-cookie, X-User"`},
		Directives{PrivateFields: []string{"Set-Cookie", "X-User"}}},
	{"no-cache for fields", []string{`no-cache="set-cookie"`}, Directives{NoCacheFields: []string{"Set-Cookie"}}},
	{"for a field without quotes", []string{"no-cache=set-cookie"},
		Directives{NoCacheFields: []string{"Set-Cookie"}}},
	{"for fields and for all", []string{`private="a", private`}, Directives{Private: true}},
	{"for all and for fields", []string{`private, private="a"`}, Directives{Private: true}},
	{"for fields twice", []string{`private="a"`, `private="b"`}, Directives{PrivateFields: []string{"A", "B"}}},
	{"for no field", []string{`private="", no-cache=`}, Directives{Private: true, NoCache: true}},
	{"for what is no field", []string{`no-cache="a b"`}, Directives{NoCache: true}},
	{"for a field and what is none", []string{`private="a, (b)"`}, Directives{Private: true}},
	{"for fields, unclosed", []string{`private="a`}, Directives{Private: true}},
}

func TestParseCacheControl(t *testing.T) {
	for _, c := range cacheControls {
		t.Run(c.name, func(t *testing.T) {
			c.want.Present = true
			if got := ParseCacheControl(c.lines); !reflect.DeepEqual(got, c.want) {
				t.Errorf("ParseCacheControl(%q)\n got %+v\nwant %+v", c.lines, got, c.want)
			}
		})
	}
	if got := ParseCacheControl(nil); !reflect.DeepEqual(got, Directives{}) {
		t.Errorf("without a field: %+v", got)
	}
}

func TestRequestDirectives(t *testing.T) {
	for _, c := range []struct {
		header  http.Header
		noCache bool
	}{
		{http.Header{}, false},
		{http.Header{"Pragma": {"no-cache"}}, true},
		{http.Header{"Pragma": {"x, No-Cache"}}, true},
		{http.Header{"Pragma": {"x"}}, false},
		// RFC 9111, section 5.4: Cache-Control disables Pragma.
		{http.Header{"Pragma": {"no-cache"}, "Cache-Control": {"max-age=10"}}, false},
		{http.Header{"Cache-Control": {"no-cache"}}, true},
	} {
		if got := RequestDirectives(c.header).NoCache; got != c.noCache {
			t.Errorf("%v: no-cache is %v, want %v", c.header, got, c.noCache)
		}
	}
}

func FuzzCacheControl(f *testing.F) {
	for _, s := range []string{
		"", "max-age=10", `private="a,b", no-cache`, `x="y`, `x="y\`, `x="\"", "`, "max-age=99999999999999999999", `,"`,
		`a="b"c"d`, `no-cache="`,
		`"\"`, "max-age =1", "s-maxage=\"1\"",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, field string) {
		d := ParseCacheControl([]string{field})
		for _, s := range []Seconds{d.MaxAge, d.SMaxAge, d.MinFresh, d.MaxStale, d.StaleWhileRevalidate,
			d.StaleIfError} {
			if s.D < 0 || s.D > maxDelta*time.Second || s.D > 0 && !s.Valid || s.Valid && !s.Set {
				t.Errorf("%q: %+v", field, s)
			}
		}
		if d.NoCache && d.NoCacheFields != nil || d.Private && d.PrivateFields != nil {
			t.Errorf("%q covers all and only some: %+v", field, d)
		}
		for _, name := range append(d.NoCacheFields, d.PrivateFields...) {
			if !IsToken(name) || name != http.CanonicalHeaderKey(name) {
				t.Errorf("%q covers %q, which no field is called", field, name)
			}
		}
		if d.Public && !strings.Contains(strings.ToLower(field), "public") {
			t.Errorf("%q permits what it doesn't name", field)
		}
		// A restriction that is a well-formed list member is found, whatever precedes it or is on
		// other lines.
		for _, lines := range [][]string{{field, "no-store"}, {"no-store", field}, {"no-store, " + field}} {
			if !ParseCacheControl(lines).NoStore {
				t.Errorf("no-store is not seen in %q", lines)
			}
		}
		if strings.Count(field, `"`)%2 == 1 && !strings.Contains(field, `\`) &&
			!ParseCacheControl([]string{field + ", no-store"}).NoStore {
			t.Errorf("no-store hides behind an unclosed quote in %q", field)
		}
	})
}
