package purge

import (
	"regexp"
	"strings"
	"testing"
)

func FuzzTagPattern(f *testing.F) {
	for _, p := range []string{`((^|,)cat_p_1(,|$))|((^|,)cat_p_2(,|$))`, `(^|,)(a\-1|b)(,|$)`,
		`(tag-one|tag-two)(,.+)?$`, `a|b`, `(^|\s)(a|b)(\s|$)`, `((((a))))`, `a\`, `(^|,)`, `a||b`, `.*`} {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, p string) {
		tags, err := parseTagPattern(p)
		if (err == nil) != (len(tags) > 0) {
			t.Fatalf("%q: %q, %v", p, tags, err)
		}
		re, bad := regexp.Compile(strings.TrimSpace(p))
		for _, tag := range tags {
			if tag == "" || strings.ContainsAny(tag, " ,\x00\n") || bad == nil && !re.MatchString(tag) {
				t.Errorf("%q: the tag %q", p, tag)
			}
		}
	})
}

func FuzzURLPattern(f *testing.F) {
	for _, p := range []string{".*", "/.*", "^/a", "^/a$", "^/a\\.css.*$", "/a", "a.*", "^/\\", "^/a\\$", "^/a\\.*"} {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, p string) {
		path, exact, err := parseURLPattern(p)
		if err != nil {
			return
		}
		re, bad := regexp.Compile(p)
		if !strings.HasPrefix(path, "/") || bad == nil &&
			(!re.MatchString(path) || !exact && !re.MatchString(path+"x")) {
			t.Errorf("%q: %q, exact %v", p, path, exact)
		}
	})
}
