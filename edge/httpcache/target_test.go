package httpcache

import (
	"bufio"
	"bytes"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// request returns a request as a server of the given HTTP version receives it.
func request(proto int, method, host, target string) *http.Request {
	return &http.Request{Method: method, Host: host, RequestURI: target, ProtoMajor: proto, ProtoMinor: proto & 1,
		Header: http.Header{}}
}

// targets are requests, and the keys of their targets.
var targets = []struct {
	proto                int
	method, host, target string
	secure               bool
	want                 string // the key; "" means that the request is refused
}{
	{1, "GET", "www.example", "/", false, "http://www.example/"},
	{1, "GET", "WWW.Example.:80", "/a?b", false, "http://www.example/a?b"},
	{1, "GET", "www.example:0443", "/", true, "https://www.example/"},
	{1, "GET", "www.example:443", "/", false, "http://www.example:443/"},
	{1, "GET", "www.example:08080", "/", false, "http://www.example:8080/"},
	{1, "GET", "www.example:", "/", false, "http://www.example/"},
	{1, "GET", "[2001:DB8::1]:80", "/", false, "http://[2001:db8::1]/"},
	{1, "GET", "", "/", false, ""},
	{2, "GET", "", "/", true, ""},
	{1, "GET", "www.example", "/a?", false, "http://www.example/a?"},
	{1, "GET", "www.example", "//a/../%2e?b?c=//d", false, "http://www.example//a/../%2e?b?c=//d"},
	{1, "GET", "www.example", "/a|b^[c]{d}\"`<>\\é\xff?|^%", false,
		"http://www.example/a|b^[c]{d}\"`<>\\é\xff?|^%"},
	{1, "OPTIONS", "www.example", "*", false, "http://www.example*"},
	{2, "OPTIONS", "www.example", "*", true, "https://www.example*"},
	{1, "GET", "other.example", "http://www.example/a?x", false, "http://www.example/a?x"},
	{1, "GET", "other.example", "HTTP://WWW.example:80?x", false, "http://www.example/?x"},
	{1, "GET", "other.example", "https://www.example", true, "https://www.example/"},

	{1, "GE T", "www.example", "/", false, ""},
	{2, "GET / HTTP/1.1\r\nX:", "www.example", "/", true, ""},
	{2, "", "www.example", "/", true, ""},
	{1, "GET", "www.example", "", false, ""},
	{1, "GET", "www.example", "*", false, ""},
	{1, "PRI", "www.example", "*", false, ""},
	{1, "OPTIONS", "www.example", "**", false, ""},
	{1, "GET", "www.example", "a", false, ""},
	{1, "GET", "b.test", "x:27080/p", false, ""},
	{1, "GET", "www.example.co", "m:18080/x", false, ""},
	{1, "GET", "www.example", "mailto:a@b", false, ""},
	{1, "GET", "www.example", "http:x", false, ""},
	{1, "GET", "www.example", "http:/x", false, ""},
	{1, "GET", "www.example", "http:///x", false, ""},
	{1, "GET", "www.example", "http://", false, ""},
	{1, "GET", "www.example", "ftp://www.example/x", false, ""},
	{1, "GET", "www.example", "http://u@www.example/x", false, ""},
	{1, "GET", "www.example", "http://u:p@www.example/x", false, ""},
	{1, "GET", "www.example", "http://www.example:x/", false, ""},
	{1, "GET", "www.example", "http://www.example/a#b", false, ""},
	// No absolute-form in HTTP/2 (RFC 9113, section 8.3.1).
	{2, "GET", "www.example", "http://www.example/a", true, ""},
	{1, "GET", "www.example", "/a#b", false, ""},
	{1, "GET", "www.example", "/a?b#c", false, ""},
	{2, "GET", "www.example", "/a b", true, ""},
	{2, "GET", "www.example", "/a HTTP/1.1", true, ""},
	{2, "GET", "www.example", "/a\x00", true, ""},
	{2, "GET", "www.example", "/a\r\nX: y", true, ""},
	{2, "GET", "www.example", "/a\x7f", true, ""},
	{2, "GET", "www.example", "/a?b\tc", true, ""},
	{1, "GET", "www.example", "//a|b", false, ""},
	{1, "GET", "www..example", "/", false, ""},
	{1, "GET", "www.example..", "/", false, ""},
	{1, "GET", ".", "/", false, ""},
	{1, "GET", ":80", "/", false, ""},
	{1, "GET", "www.example/b", "/", false, ""},
	{1, "GET", "www.example:80x", "/", false, ""},
	{1, "GET", "www.example:+80", "/", false, ""},
	{1, "GET", "www.example:65536", "/", false, ""},
	{1, "GET", "u@www.example", "/", false, ""},
	{1, "GET", "w w", "/", false, ""},
	{1, "GET", "w\xc3\xa4", "/", false, ""},
	{1, "GET", "[::1", "/", false, ""},
	{1, "GET", "[::1%eth0]", "/", false, ""},
	{1, "GET", "[::1%/ x]", "/", false, ""},
	{1, "GET", "[127.0.0.1]", "/", false, ""},
	{1, "GET", strings.Repeat("a", 256), "/", false, ""},
}

func TestParseTarget(t *testing.T) {
	for _, c := range targets {
		got, err := ParseTarget(request(c.proto, c.method, c.host, c.target), c.secure)
		if c.want == "" {
			if err == nil {
				t.Errorf("%s %q, Host %q: %q, want an error", c.method, c.target, c.host, got.Key())
			}
			continue
		}
		if err != nil || string(got.Key()) != c.want {
			t.Errorf("%s %q, Host %q: %q, %v, want %q", c.method, c.target, c.host, got.Key(), err, c.want)
		}
	}
	r := request(2, "GET", "www.example", "/a")
	r.Header["Host"] = []string{"www.example"}
	if _, err := ParseTarget(r, true); err != nil {
		t.Errorf("with Host and :authority that agree: %v", err)
	}
	for _, host := range []string{"other.example", "WWW.example", ""} {
		r.Header["Host"] = []string{host}
		if _, err := ParseTarget(r, true); err == nil {
			t.Errorf("the Host %q, which is not the :authority, is taken", host)
		}
	}
	r = request(1, "GET", "", "/")
	r.ProtoMinor = 0
	if got, err := ParseTarget(r, false); err != nil || got.Key() != "http:///" { // no site has the empty host
		t.Errorf("HTTP/1.0 without a host: %q, %v", got.Key(), err)
	}
}

func TestCheckLength(t *testing.T) {
	for _, c := range []struct {
		lines  []string
		length int64 // http.Request.ContentLength
		ok     bool
	}{
		{nil, 0, true}, {nil, -1, true}, {nil, 5, true}, {[]string{"0"}, 0, true}, {[]string{"5"}, 5, true},
		{[]string{"5", "5"}, 5, true}, {[]string{"005"}, 5, true},
		{[]string{"5"}, -1, true}, // over HTTP/1.1 with a transfer coding
		{[]string{"5"}, 0, false}, {[]string{"0"}, 5, false}, {[]string{"5", "6"}, 5, false}, {[]string{"5", "05"}, 5,
			false}, {[]string{""}, 0, false}, {[]string{"5", ""}, 5, false},
		{[]string{"5, 5"}, 0, false}, {[]string{"-1"}, 0, false}, {[]string{"+5"}, 5, false}, {[]string{" 5"}, 5,
			false}, {[]string{"5a"}, 0, false},
		{[]string{"9223372036854775808"}, 0, false}, {[]string{"99999999999999999999"}, 0, false},
	} {
		r := request(2, "POST", "www.example", "/")
		r.ContentLength = c.length
		if c.lines != nil {
			r.Header["Content-Length"] = c.lines
		}
		if err := CheckLength(r); (err == nil) != c.ok {
			t.Errorf("%q of %d: %v", c.lines, c.length, err)
		}
	}
}

func TestParseURL(t *testing.T) {
	for raw, want := range map[string]string{
		"http://www.example":                 "www.example/",
		"https://www.example/":               "www.example/",
		"https://WWW.Example.:8443/A?b=C#d":  "www.example/A?b=C",
		"http://www.example?x":               "www.example/?x",
		"http://www.example#x":               "www.example/",
		"http://www.example/%41//b|c":        "www.example/%41//b|c",
		"http://[2001:DB8::1]:80/a":          "[2001:db8::1]/a",
		"http://[::1]/a":                     "[::1]/a",
		"http://www.example/a?u=http://x/#y": "www.example/a?u=http://x/",
		"http://www.example/a b?c d":         "www.example/a%20b?c%20d",
		"HTTP://u:p@www.example/a":           "www.example/a",
	} {
		if got, err := ParseURL(raw); err != nil || got.URL() != want {
			t.Errorf("ParseURL(%q) = %q, %v, want %q", raw, got.URL(), err, want)
		}
	}
	for _, raw := range []string{"", "/a", "www.example/a", "ftp://www.example/a", "http://", "http:///a", "http:a",
		"http://[::1/a", "://x", "http://a..b/"} {
		if got, err := ParseURL(raw); err == nil {
			t.Errorf("ParseURL(%q) = %q, want an error", raw, got.URL())
		}
	}
}

func TestKeys(t *testing.T) {
	field := func(name, value string, present bool) []VaryField {
		return []VaryField{{Name: name, Value: value, Present: present}}
	}
	a := Key("http://a/")
	seen := map[Key]string{}
	for what, k := range map[string]Key{
		"the response":             a,
		"x":                        a.Variant(field("X", "x", true)),
		"y":                        a.Variant(field("X", "y", true)),
		"empty":                    a.Variant(field("X", "", true)),
		"absent":                   a.Variant(field("X", "", false)),
		"a name that ends as one":  a.Variant(field("X+", "", false)),
		"a value that begins so":   a.Variant(field("X", "-", true)),
		"two fields":               a.Variant(append(field("X", "x", true), field("Y", "", false)...)),
		"of another URI":           Key("http://b/").Variant(field("X", "x", true)),
		"a fragment":               a.Fragment(`"1"`, 0),
		"another one":              a.Fragment(`"1"`, 1),
		"of another validator":     a.Fragment(`"2"`, 0),
		"a fragment of a variant":  a.Variant(field("X", "x", true)).Fragment(`"1"`, 0),
		"a fragment of another":    Key("http://a/1").Fragment(`"1"`, 0),
		"as a path, without marks": a + "variant=0123",
	} {
		if other, ok := seen[k]; ok {
			t.Errorf("%s and %s have the key %q", what, other, k)
		}
		seen[k] = what
	}
	if one := a.Variant(field("X", "x", true)); seen[one] != "x" {
		t.Error("one variant has two keys")
	}
	if f := a.Fragment("1", 5); !a.HasFragment(f) || Key("http://a/b").HasFragment(f) || a.HasFragment(a) {
		t.Error("fragments and their responses don't know each other")
	}
}

// FuzzTarget checks that different targets have different keys, and that an origin receives exactly
// the target.
func FuzzTarget(f *testing.F) {
	add := func(target, host, other, otherHost string) {
		f.Add(1, false, "GET", host, target, true, otherHost, other, "x", int64(0))
		f.Add(2, true, "POST", host, target, true, otherHost, other, "x", int64(7))
	}
	add("/a", "a.test", "/a ", "a.test")
	add("/a?b", "a.test:80", "/a?b", "A.TEST.")
	add("/p", "b.testx:27080", "x:27080/p", "b.test")
	add("//a", "a.test", "///a", "a.test")
	add("/a|b", "a.test", "/a%7Cb", "a.test")
	add("/a#variant=0123", "a.test", "/a", "a.test")
	add("http://a.test/a", "b.test", "/a", "a.test")
	add("/ä?", "[::1]:8080", "/%C3%A4", "[::1]")
	add("*", "a.test", "/", "a.test*")
	f.Fuzz(func(t *testing.T, proto int, secure bool, method, host, target string, secure2 bool, host2, target2,
		value string, start int64) {
		a, err := ParseTarget(request(proto&3, method, host, target), secure)
		if err != nil {
			return
		}
		checkRequest(t, method, a)
		fields := []VaryField{{Name: "X", Value: value, Present: true}}
		if b, err := ParseTarget(request(1, "GET", host2, target2), secure2); err == nil && a != b {
			keys := map[Key]bool{}
			for _, k := range []Key{a.Key(), a.Key().Variant(fields), a.Key().Fragment(value, start),
				a.Key().Variant(fields).Fragment(value, start)} {
				keys[k] = true
			}
			for _, k := range []Key{b.Key(), b.Key().Variant(fields), b.Key().Fragment(value, start),
				b.Key().Variant(fields).Fragment(value, start)} {
				if keys[k] {
					t.Errorf("%+v and %+v have the key %q", a, b, k)
				}
			}
			if a.URL() == b.URL() && (a.Host != b.Host || a.Path != b.Path || a.Query != b.Query) {
				t.Errorf("%+v and %+v are purged as %q", a, b, a.URL())
			}
		}
		if a.Host == "" || a.Path == "*" {
			return
		}
		again, err := ParseTarget(request(1, "GET", "other.test", string(a.Key())), secure)
		if err != nil || again != a {
			t.Errorf("the key %q is read as %+v, %v, want %+v", a.Key(), again, err, a)
		}
		if u, err := ParseURL(string(a.Key())); err == nil && u != a {
			t.Errorf("the URL %q is read as %+v, want %+v", a.Key(), u, a)
		}
	})
}

// checkRequest sends a request for a to an origin over HTTP/1.1 and checks what the origin reads.
func checkRequest(t *testing.T, method string, a Target) {
	t.Helper()
	if a.Host == "" || a.Path == "*" {
		return // ParseTarget rejects it, so it is never sent
	}
	if _, err := url.ParseRequestURI(a.RequestURI()); err != nil {
		return // servers reject it before they create a request
	}
	out := &http.Request{Method: method, URL: a.RequestURL(), Host: a.Authority(), Header: http.Header{}}
	out.URL.Scheme, out.URL.Host = "http", "127.0.0.1:8000"
	var b bytes.Buffer
	if err := out.Write(&b); err != nil {
		t.Fatalf("%s %+v can't be sent: %v", method, a, err)
	}
	r := bufio.NewReader(&b)
	got, err := http.ReadRequest(r)
	if err != nil {
		t.Fatalf("%s %+v can't be read: %v", method, a, err)
	}
	if got.Method != method || got.RequestURI != a.RequestURI() || got.Host != a.Authority() || r.Buffered() > 0 {
		t.Errorf("%s %+v is read as %s %q of %q, and %d bytes more", method, a, got.Method, got.RequestURI, got.Host,
			r.Buffered())
	}
}
