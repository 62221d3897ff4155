package rules

import (
	"bytes"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"
)

var (
	keyForTest = []byte("0123456789abcdef")
	oldKey     = []byte("fedcba9876543210")
	noon       = time.Unix(1_800_000_000, 0)
)

// signedSet wants signed URLs below /media/.
func signedSet(t testing.TB) *Set {
	t.Helper()
	s, err := NewSigned([][]byte{keyForTest, oldKey}, "", "pass")
	if err != nil {
		t.Fatal(err)
	}
	return mustSet(t, []Rule{{Name: "media", Match: Match{Paths: []Pattern{glob(t, "/media/**")}},
		Actions: Actions{Signed: s}}})
}

// reason returns why a request is refused, or "". It fails the test if the hit lane decides
// otherwise.
func reason(t testing.TB, s *Set, r Request) string {
	t.Helper()
	lane := r
	lane.Header, lane.Client = nil, netip.Addr{}
	var static Outcome
	ok := s.Static(&lane, &static)
	o := s.Evaluate(&r)
	switch {
	case o.Response == nil && strings.Contains(o.Query, "token"):
		t.Errorf("%s%s: the origin gets the token: %s", r.Path, r.Query, o.Query)
	case ok && (o.Response != nil || static.Query != o.Query):
		t.Errorf("%s%s: the hit lane accepts it", r.Path, r.Query)
	case o.Response == nil:
		return ""
	}
	return o.Response.Reason
}

func TestSigned(t *testing.T) {
	s := signedSet(t)
	const host, path = "www.example.com", "/media/a b.mp4"
	until := func(d time.Duration) Token { return Token{Expires: noon.Add(d).Unix()} }
	one := until(time.Hour).Sign(keyForTest, host, path, "")
	folder := Token{Expires: until(time.Hour).Expires, Prefix: "/media/7 &~/"}.Sign(oldKey, host, "", "")
	near := Token{Expires: until(time.Hour).Expires, Network: netip.MustParsePrefix("192.0.2.0/24")}
	nearToken := near.Sign(keyForTest, host, path, "")
	for _, c := range []struct{ name, path, query, want string }{
		{"another path", "/other", "", ""},
		{"nothing", "/media/a%20b.mp4", "", SignedMissing},
		{"an empty token", "/media/a%20b.mp4", "?token=", SignedWrong},
		{"right", "/media/a%20b.mp4", "?token=" + one, ""},
		{"encoded otherwise", "/%6dedia/a%20b%2Emp4", "?token=" + strings.ReplaceAll(one, "~", "%7e"), ""},
		{"the old key", "/media/7%20&~/x/1.ts", "?token=" + folder + "&q=1", ""},
		{"the folder itself", "/media/7%20&~/", "?token=" + folder, ""},
		{"beside the folder", "/media/8/1.ts", "?token=" + folder, SignedWrong},
		{"another parameter", "/media/a%20b.mp4", "?x=1&token=" + one, SignedWrong},
		{"a signed parameter", "/media/a%20b.mp4",
			"?x=1&token=" + until(time.Hour).Sign(keyForTest, host, path, "x=1&y=2") + "&y=2", ""},
		{"parameters in another order", "/media/a%20b.mp4",
			"?y=2&token=" + until(time.Hour).Sign(keyForTest, host, path, "x=1&y=2") + "&x=1", SignedWrong},
		{"two tokens", "/media/a%20b.mp4", "?token=" + one + "&token=" + one, SignedWrong},
		{"another key", "/media/a%20b.mp4",
			"?token=" + until(time.Hour).Sign([]byte("another key here"), host, path, ""), SignedWrong},
		{"another host", "/media/a%20b.mp4", "?token=" + until(time.Hour).Sign(keyForTest, "example.com", path, ""),
			SignedWrong},
		{"later", "/media/a%20b.mp4", "?token=" + strings.Replace(one, "18", "19", 1), SignedWrong},
		{"expired", "/media/a%20b.mp4", "?token=" + until(0).Sign(keyForTest, host, path, ""), SignedExpired},
		{"expired and wrong", "/media/a%20b.mp4", "?token=" + until(0).Sign(oldKey, host, "/x", ""), SignedWrong},
		{"another network", "/media/a%20b.mp4", "?token=" + nearToken, SignedNetwork},
		{"a wider network", "/media/a%20b.mp4", "?token=" + strings.Replace(nearToken, "/24", "/8", 1), SignedWrong},
		{"no network", "/media/a%20b.mp4", "?token=" + strings.Replace(nearToken, "192.0.2.0/24", "", 1), SignedWrong},
		{"a URL's token as a folder's", "/media/a%20b.mp4", "?token=" + strings.Replace(one, "~~", "~/media/~", 1),
			SignedWrong},
		{"a wider folder", "/media/8/1.ts", "?token=" + strings.Replace(folder, "7%20%26%7E/", "", 1), SignedWrong},
		{"no slash", "/media/7", "?token=" + Token{Expires: until(1).Expires, Prefix: "/media/7"}.Sign(keyForTest, host,
			"", ""), SignedWrong},
	} {
		r := Request{Method: "GET", Host: host, Path: c.path, Query: c.query, Now: noon,
			Client: netip.MustParseAddr("::ffff:198.51.100.7")}
		if got := reason(t, s, r); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	r := Request{Method: "GET", Host: host, Path: "/media/a%20b.mp4", Query: "?token=" + nearToken, Now: noon,
		Client: netip.MustParseAddr("::ffff:192.0.2.7")}
	if got := reason(t, s, r); got != "" {
		t.Errorf("from the network: %s", got)
	}
	for _, method := range []string{"POST", "PUT", "DELETE", "PURGE", "get"} {
		r := Request{Method: method, Host: host, Path: "/media/a%20b.mp4", Query: "?token=" + one, Now: noon}
		if got := reason(t, s, r); got != SignedMethod {
			t.Errorf("%s: %s", method, got)
		}
	}
}

// A token for a folder opens nothing beside it, however the path is spelled.
func TestSignedPathSpellings(t *testing.T) {
	s := signedSet(t)
	folder := Token{Expires: noon.Unix() + 1, Prefix: "/media/7/"}.Sign(keyForTest, "h", "", "")
	for _, path := range []string{"/media/7/../8/x", "/media/7/%2e%2e/8/x", "/media/7/..%2f8/x",
		"/media/7/%252e%252e/8/x",
		"/media/7/..%5c8%5cx", `/media/7/..\8\x`, "/media/7/..;a/8/x", "/media/7/.%20./8/x", "/media/7//x",
		"/media//7/x",
		"/media/8/../7/x", "/media/7/./x", "/media/7/%zz", "/media/7/x%00", "/media/7/x%0a", "/media/7/;/x",
		"/x/../media/7/x", "//media/7/x", "/media/7/%2561/..%252f..%252fx"} {
		r := Request{Method: "GET", Host: "h", Path: path, Query: "?token=" + folder, Now: noon}
		if got := reason(t, s, r); got != SignedWrong {
			t.Errorf("%s: %q", path, got)
		}
	}
	for _, path := range []string{"/media/7/", "/media/7/x", "/media/7/a%2Fb", "/media/7/100%25", "/media/7/a;b=1",
		"/media/7/..a"} {
		r := Request{Method: "GET", Host: "h", Path: path, Query: "?token=" + folder, Now: noon}
		if got := reason(t, s, r); got != "" {
			t.Errorf("%s: %q", path, got)
		}
	}
}

func TestSignedCookie(t *testing.T) {
	s := signedSet(t)
	right := Token{Expires: noon.Unix() + 1, Prefix: "/media/"}.Sign(keyForTest, "h", "", "")
	for cookie, want := range map[string]string{"pass=" + right: "", "a=1; pass=x; pass=" + right: "",
		"pass=x":         SignedWrong,
		"other=" + right: SignedMissing, strings.Repeat("pass=x; ", 4) + "pass=" + right: SignedWrong} {
		r := Request{Method: "GET", Host: "h", Path: "/media/a", Now: noon, Header: http.Header{"Cookie": {cookie}}}
		if got := reason(t, s, r); got != want {
			t.Errorf("%.40s: %q, want %q", cookie, got, want)
		}
	}
	r := Request{Method: "GET", Host: "h", Path: "/media/a", Query: "?token=x", Now: noon,
		Header: http.Header{"Cookie": {"pass=" + right}}}
	if got := reason(t, s, r); got != SignedWrong {
		t.Errorf("the cookie counts beside the query: %q", got)
	}
	h := http.Header{"Cookie": {"a=1; pass=x;b=2", "pass=y"}}
	if RemoveCookie(h, "pass"); len(h["Cookie"]) != 1 || h.Get("Cookie") != "a=1; b=2" {
		t.Errorf("the cookies are %v", h)
	}
	if RemoveCookie(h, "a"); h.Get("Cookie") != "b=2" {
		t.Errorf("the cookies are %v", h)
	}
	if RemoveCookie(h, "b"); len(h) != 0 {
		t.Errorf("the fields are %v", h)
	}
}

// Rewrites never see the token, whichever rule comes first. Redirects keep it.
func TestSignedAndRewritten(t *testing.T) {
	signed, err := NewSigned([][]byte{keyForTest}, "sig", "")
	if err != nil {
		t.Fatal(err)
	}
	uri, to := template(t, "/new$path", 0), template(t, "https://x$uri", 0)
	query := template(t, "$query&v=1", 0)
	s := mustSet(t, []Rule{
		{Name: "rewrite", Actions: Actions{Rewrite: &Rewrite{Path: &uri, Query: &query}}},
		{Name: "signed", Actions: Actions{Signed: signed}},
		{Name: "again", Actions: Actions{Signed: signed}},
		{Name: "to", Match: Match{Paths: []Pattern{glob(t, "/to")}}, Actions: Actions{Redirect: &Redirect{To: to,
			Status: 302}}},
	})
	sent := "?a=1&sig=" + Token{Expires: noon.Unix() + 1}.Sign(keyForTest, "h", "/a", "a=1")
	if o := s.Evaluate(&Request{Method: "GET", Host: "h", Path: "/a", Query: sent, Now: noon}); o.Response != nil ||
		o.Path != "/new/a" || o.Query != "?a=1&v=1" {
		t.Errorf("the outcome is %+v", o)
	}
	sent = "?sig=" + Token{Expires: noon.Unix() + 1}.Sign(keyForTest, "h", "/to", "")
	if o := s.Evaluate(&Request{Method: "GET", Host: "h", Path: "/to", Query: sent, Now: noon}); o.Response == nil ||
		o.Response.Header.Get("Location") != "https://x/to"+sent || o.By != "to" {
		t.Errorf("the outcome is %+v", o)
	}
}

func TestKeysForSigning(t *testing.T) {
	for _, keys := range [][][]byte{nil, {keyForTest[:15]}, make([][]byte, MaxKeys+1)} {
		if _, err := NewSigned(keys, "", ""); err == nil {
			t.Errorf("%d keys were taken", len(keys))
		}
	}
}

// No token that was not made with the key is accepted, and no two requests have the same text.
func FuzzToken(f *testing.F) {
	one := Token{Expires: noon.Unix() + 1}.Sign(keyForTest, "h", "/media/a", "")
	f.Add(one, "/media/a", "", "1~~~"+one[len(one)-64:], "/media/a", "q")
	f.Add("1~::/0~/media/~"+one[len(one)-64:], "/media/a", "url", "1~10.0.0.1~/media/%0a/~"+one[len(one)-64:], "/",
		"\n")
	s := signedSet(f)
	f.Fuzz(func(t *testing.T, value, path, query, value2, path2, query2 string) {
		a, ok := parseToken(value)
		if ok {
			r := Request{Method: "GET", Host: "h", Path: "/media/" + path, Query: "?token=" + value, Now: noon}
			if reason(t, s, r) == "" && value != one {
				t.Errorf("%s is accepted for %s", value, r.Path)
			}
		}
		b, ok2 := parseToken(value2)
		if !ok || !ok2 || strings.Contains(query+query2, "\n") || strings.ContainsAny(path+path2, "\n") {
			return // check refuses these
		}
		same := a.expires == b.expires && a.network == b.network && a.Prefix == b.Prefix
		if a.Prefix == "" {
			same = same && query == query2 && path == path2
		}
		if got := bytes.Equal(a.text(nil, "h", query, path), b.text(nil, "h", query2, path2)); got != same {
			t.Errorf("%q and %q: the same text %v", value, value2, got)
		}
	})
}

func BenchmarkSigned(b *testing.B) {
	s := signedSet(b)
	query := "?token=" + Token{Expires: noon.Unix() + 1}.Sign(keyForTest, "www.example.com", "/media/a.mp4", "")
	var o Outcome
	b.ReportAllocs()
	for b.Loop() {
		r := Request{Method: "GET", Path: "/media/a.mp4", Query: query, Host: "www.example.com", Now: noon}
		if !s.Static(&r, &o) {
			b.Fatal("refused")
		}
	}
}
