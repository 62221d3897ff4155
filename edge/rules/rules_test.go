package rules

import (
	"encoding/base64"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
)

func glob(t testing.TB, text string) Pattern {
	t.Helper()
	p, err := ParseGlob(text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func mustSet(t testing.TB, list []Rule) *Set {
	t.Helper()
	s, err := NewSet(list)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func template(t testing.TB, text string, captures int) Template {
	t.Helper()
	tm, err := ParseTemplate(text, captures)
	if err != nil {
		t.Fatal(err)
	}
	return tm
}

func TestGlob(t *testing.T) {
	for _, c := range []struct {
		glob, value string
		want        bool
	}{
		{"/a", "/a", true}, {"/a", "/ab", false}, {"/a", "/", false},
		{"/a/*", "/a/b", true}, {"/a/*", "/a/b/c", false}, {"/a/*", "/a/", true}, {"/a/*", "/a", false},
		{"/a/**", "/a/b/c", true}, {"/**.js", "/x/y.js", true}, {"/*.js", "/x/y.js", false},
		{"/?", "/a", true}, {"/?", "//", false}, {"/?", "/ab", false},
		{`/\*`, "/*", true}, {`/\*`, "/a", false}, {"/a.b", "/axb", false}, {"/(a)", "/(a)", true},
		{"/**", "/a\nb", true}, {"", "", true}, {"", "/", false},
	} {
		p := glob(t, c.glob)
		if got := p.Match(c.value); got != c.want {
			t.Errorf("%q matches %q: %v, want %v", c.glob, c.value, got, c.want)
		}
	}
	for _, bad := range []string{`/a\`, strings.Repeat("*", maxPattern+1)} {
		if _, err := ParseGlob(bad); err == nil {
			t.Errorf("the glob %.20q was taken", bad)
		}
	}
	var zero Pattern
	if zero.Match("") || zero.Match("/") {
		t.Error("the zero Pattern matches")
	}
	p, err := ParseRegexp("/a|/b")
	if err != nil || !p.Match("/a") || !p.Match("/b") || p.Match("/ab") || p.Match("x/a") {
		t.Error("a regular expression has to match the whole value:", err)
	}
}

// A rule for a path is for all spellings that an origin may take for the same.
func TestPathSpellings(t *testing.T) {
	s := mustSet(t, []Rule{{Name: "deny", Match: Match{Paths: []Pattern{glob(t, "/admin/**")}},
		Actions: Actions{Respond: &Response{Status: 403}}}})
	for _, path := range []string{"/admin/", "/admin/x", "/%61dmin/x", "//admin/x", "/./admin/x", "/y/../admin/x",
		"/admin//x", "/admin%2Fx", "/admin/.", "/admin/x/..", "/%2e/admin/x", "/..//admin/x", "/admin/%zz"} {
		if o := s.Evaluate(&Request{Method: "GET", Path: path}); o.Response == nil || o.Response.Status != 403 {
			t.Errorf("%s passes", path)
		}
	}
	for _, path := range []string{"/", "/administrator", "/x/admin/", "/admin/../x"} {
		if o := s.Evaluate(&Request{Method: "GET", Path: path}); o.Response != nil {
			t.Errorf("%s is refused", path)
		}
	}
}

func TestConditions(t *testing.T) {
	fin := glob(t, "fi*")
	r := &Request{Method: "GET", Secure: true, Host: "www.example.com", Path: "/a", Query: "?x=1&y=%20&x=2",
		Protocol: 2, Client: netip.MustParseAddr("::ffff:192.0.2.7"), Country: func(netip.Addr) string { return "FI" },
		Header: http.Header{
			"Accept-Language": {"fi-FI"}, "Cookie": {"a=1; lang=fi", `beta="yes"`}}}
	two, yes, space := glob(t, "2"), glob(t, "yes"), glob(t, " ")
	for name, c := range map[string]struct {
		m    Match
		want bool
	}{
		"nothing":         {Match{}, true},
		"method":          {Match{Methods: []string{"HEAD", "GET"}}, true},
		"other method":    {Match{Methods: []string{"POST"}}, false},
		"host":            {Match{Hosts: []string{"www.example.com"}}, true},
		"wildcard":        {Match{Hosts: []string{"*.example.com"}}, true},
		"apex":            {Match{Hosts: []string{"*.www.example.com"}}, false},
		"scheme":          {Match{Protocols: []string{"https"}}, true},
		"other scheme":    {Match{Protocols: []string{"http"}}, false},
		"protocol":        {Match{Protocols: []string{"http3", "http2"}}, true},
		"query":           {Match{Query: []Field{{Name: "x", Value: &two}}}, true},
		"decoded query":   {Match{Query: []Field{{Name: "y", Value: &space}}}, true},
		"absent":          {Match{Query: []Field{{Name: "z", Absent: true}}}, true},
		"not absent":      {Match{Query: []Field{{Name: "x", Absent: true}}}, false},
		"header":          {Match{Header: []Field{{Name: "accept-language", Value: &fin}}}, true},
		"present":         {Match{Header: []Field{{Name: "Cookie"}}}, true},
		"not present":     {Match{Header: []Field{{Name: "X"}}}, false},
		"cookie":          {Match{Cookies: []Field{{Name: "beta", Value: &yes}}}, true},
		"network":         {Match{Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}, true},
		"other network":   {Match{Networks: []netip.Prefix{netip.MustParsePrefix("2001:db8::/32")}}, false},
		"country":         {Match{Countries: []string{"SE", "FI"}}, true},
		"other country":   {Match{Countries: []string{"SE"}}, false},
		"all but the one": {Match{Methods: []string{"GET"}, Header: []Field{{Name: "X"}}}, false},
	} {
		s := mustSet(t, []Rule{{Name: "x", Match: c.m, Actions: Actions{Cache: Cache{Bypass: true}}}})
		if got := s.Evaluate(r).Cache.Bypass; got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
		var o Outcome
		if ok := s.Static(r, &o); c.m.needsMore() && ok || !c.m.needsMore() && (!ok || o.Cache.Bypass != c.want) {
			t.Errorf("%s: the static outcome is %v, %v", name, ok, o)
		}
	}
}

func TestActions(t *testing.T) {
	old := glob(t, "/old/*/**")
	moved, rewritten := template(t, "/new/$2?from=$1", 2), template(t, "/v2/$1/$2", 2)
	minute, hour := time.Minute, time.Hour
	s := mustSet(t, []Rule{
		{Name: "first", Actions: Actions{Cache: Cache{TTL: &minute},
			Response: Fields{Set: []Value{{"X", "1"}}}}},
		{Name: "old", Match: Match{Paths: []Pattern{old}, Methods: []string{"GET"}},
			Actions: Actions{Redirect: &Redirect{To: moved, Status: 301}}},
		{Name: "post", Match: Match{Paths: []Pattern{old}},
			Actions: Actions{Rewrite: &Rewrite{Path: &rewritten}, Cache: Cache{TTL: &hour, Bypass: true},
				Response: Fields{Remove: []string{"X"}, Add: []Value{{"Y", "2"}}}}},
	})
	o := s.Evaluate(&Request{Method: "GET", Path: "/old/a/b/c%20d%3F"})
	if o.Response == nil || o.Response.Status != 301 || o.Response.Header.Get("Location") != "/new/b/c%20d%3F?from=a" {
		t.Errorf("the redirect is %+v", o.Response)
	}
	o = s.Evaluate(&Request{Method: "POST", Path: "/old/a/b", Query: "?q"})
	h := http.Header{}
	for _, f := range o.Header {
		f.Apply(h)
	}
	if o.Response != nil || o.Path != "/v2/a/b" || o.Query != "?q" || *o.Cache.TTL != hour || !o.Cache.Bypass ||
		len(h) != 1 || h.Get("Y") != "2" || strings.Join(o.Rules, " ") != "first post" {
		t.Errorf("the outcome is %+v with the fields %v", o, h)
	}
}

// No client is sent to another host by what it puts into a path.
func TestRedirectsStay(t *testing.T) {
	any := glob(t, "/go/**")
	s := mustSet(t, []Rule{{Name: "go", Match: Match{Paths: []Pattern{any}},
		Actions: Actions{Redirect: &Redirect{To: template(t, "/$1", 1), Status: 302}}}})
	for _, path := range []string{"/go//evil.example/", `/go/\evil.example/`, "/go/%2fevil.example/",
		"/go/%5cevil.example",
		"/go/a%0d%0aSet-Cookie:%20x"} {
		to := s.Evaluate(&Request{Method: "GET", Path: path}).Response.Header.Get("Location")
		if strings.HasPrefix(to, "//") || strings.ContainsAny(to, "\\\r\n ") || !strings.HasPrefix(to, "/") {
			t.Errorf("%s is sent to %q", path, to)
		}
	}
}

func TestTemplate(t *testing.T) {
	for text, ok := range map[string]bool{"$1": true, "$2": false, "$host$uri": true, "$$5": true, "$": false,
		"$x": false} {
		if _, err := ParseTemplate(text, 1); (err == nil) != ok {
			t.Errorf("%q: %v", text, err)
		}
	}
	r := &Request{Host: "h", Path: "/p", Query: "?q"}
	tm := template(t, "https://$host$path?$query&$$&$uri", 0)
	if got, _ := tm.expand(r, nil); got != "https://h/p?q&$&/p?q" {
		t.Errorf("got %s", got)
	}
	long := template(t, strings.Repeat("$1", 40), 1)
	if _, ok := long.expand(r, []string{strings.Repeat("a", 1000)}); ok {
		t.Error("a template has no bound")
	}
}

func TestAuth(t *testing.T) {
	hash, err := bcrypt.GenerateFromPassword([]byte("secret:1"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	a, err := ParseAuth(`a "realm"`, "# users\n\nanna:"+string(hash)+"\n")
	if err != nil {
		t.Fatal(err)
	}
	s := mustSet(t, []Rule{{Name: "private", Actions: Actions{Auth: a}}})
	for text, want := range map[string]int{"anna:secret:1": 0, "anna:secret": 401, "otto:secret:1": 401, "anna": 401,
		"":                                 401,
		"anna:" + strings.Repeat("x", 100): 401} {
		for range 2 { // the second time it is remembered, or is not
			o := s.Evaluate(&Request{Method: "GET", Path: "/", Header: http.Header{
				"Authorization": {"basic " + base64.StdEncoding.EncodeToString([]byte(text))}}})
			if got := o.Response; want == 0 && got != nil || want != 0 && (got == nil || got.Status != want ||
				got.Header.Get("WWW-Authenticate") != `Basic realm="a \"realm\"", charset="UTF-8"`) {
				t.Errorf("%q gets %+v", text, got)
			}
		}
	}
	for _, bad := range []string{"", "anna", "anna:plain", "anna:" + string(hash) + "\nanna:" + string(hash),
		":" + string(hash),
		"anna:" + strings.Replace(string(hash), "$04$", "$14$", 1)} {
		if _, err := ParseAuth("x", bad); err == nil {
			t.Errorf("the file %.40q was taken", bad)
		}
	}
}

func FuzzEvaluate(f *testing.F) {
	f.Add("/a/b", "?x=1", "GET", "a=b")
	f.Add("/%2e%2e/", "?%", "", ";=;")
	any := glob(f, "/**/*.js")
	to := template(f, "/$2/$1$query", 2)
	to2 := template(f, "/x$uri", 0)
	s := mustSet(f, []Rule{
		{Name: "a", Match: Match{Paths: []Pattern{any}, Query: []Field{{Name: "x"}},
			Cookies: []Field{{Name: "c", Absent: true}}},
			Actions: Actions{Redirect: &Redirect{To: to, Status: 302}}},
		{Name: "b", Actions: Actions{Rewrite: &Rewrite{Path: &to2, Query: &to}}},
	})
	f.Fuzz(func(t *testing.T, path, query, method, cookie string) {
		r := &Request{Method: method, Path: "/" + path, Query: query, Header: http.Header{"Cookie": {cookie}}}
		o := s.Evaluate(r)
		if o.Response != nil {
			if to := o.Response.Header.Get("Location"); strings.ContainsAny(to, "\r\n \x00") ||
				strings.HasPrefix(to, "//") {
				t.Errorf("sent to %q", to)
			}
		} else if o.Path[0] != '/' {
			t.Errorf("looked up at %q", o.Path)
		}
	})
}

func BenchmarkStatic(b *testing.B) {
	var list []Rule
	for _, text := range []string{"/a/**", "/b/**", "/c/*.js", "/d", "/e/**", "/f/**", "/g/**", "/h/**", "/i/**"} {
		list = append(list, Rule{Name: text, Match: Match{Paths: []Pattern{glob(b, text)}},
			Actions: Actions{Respond: &Response{Status: 403}}})
	}
	list = append(list, Rule{Name: "all", Actions: Actions{Response: Fields{Set: []Value{{"X-A", "b"}}}}})
	s := mustSet(b, list)
	r := &Request{Method: "GET", Path: "/static/app.js", Protocol: 1, Host: "www.example.com"}
	var o Outcome
	b.ReportAllocs()
	for b.Loop() {
		if !s.Static(r, &o) {
			b.Fatal("no static outcome")
		}
	}
}

func TestTooManyRules(t *testing.T) {
	if _, err := NewSet(make([]Rule, MaxRules+1)); err == nil {
		t.Error("there is no bound for rules")
	}
	many := make([]Rule, MaxShapes+1)
	for i := range many {
		many[i].Cache.Bypass = true
	}
	if _, err := NewSet(many); err == nil {
		t.Error("there is no bound for shapes")
	}
	if _, err := NewSet(many[1:]); err != nil {
		t.Error(err)
	}
}

// A response is sent with its own fields, while others share the stored header.
func TestAddedFieldsAreNotShared(t *testing.T) {
	stored := append(make([]string, 0, 4), "a")
	one, two := http.Header{"Link": stored}, http.Header{"Link": stored}
	(&Fields{Add: []Value{{"Link", "b"}}}).Apply(one)
	(&Fields{Add: []Value{{"Link", "c"}}}).Apply(two)
	if got := strings.Join(one["Link"], " "); got != "a b" {
		t.Errorf("Link: %s", got)
	}
}
