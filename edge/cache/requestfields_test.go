package cache

import (
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// docs/security.md has the fields that the code has, and no others.
func TestImpersonatingFieldsInDocs(t *testing.T) {
	b, err := os.ReadFile("../../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(b), "| about | fields |\n|---|---|\n| any |")
	if !ok {
		t.Fatal("there is no table of fields")
	}
	_, table, _ = strings.Cut(table, "\n")
	table, _, _ = strings.Cut(table, "\n\n")
	var documented []string
	for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(table, -1) {
		documented = append(documented, http.CanonicalHeaderKey(m[1]))
	}
	slices.Sort(documented)
	want := slices.Collect(maps.Keys(impersonating))
	for _, p := range impersonatingPrefixes {
		want = append(want, p+"*")
	}
	slices.Sort(want)
	if !slices.Equal(documented, want) {
		for _, n := range documented {
			if !slices.Contains(want, n) {
				t.Errorf("docs/security.md has %s, the code has not", n)
			}
		}
		for _, n := range want {
			if !slices.Contains(documented, n) {
				t.Errorf("the code has %s, docs/security.md has not", n)
			}
		}
		t.Errorf("%d fields in docs/security.md, %d in the code", len(documented), len(want))
	}
}

func TestImpersonates(t *testing.T) {
	for name, want := range map[string]bool{
		"X_Forwarded_For": true, "X_forwarded_for": true, "X.forwarded.for": true, "Api_key": true,
		"X-Forwarded-For": true, "X-Forwarded-Ssl": true, "Forwarded": true,
		"Proxy": true, "X-Original-Url": true, "X-Remote-User": true, "Remote-User": true, "X-Accel-Redirect": true,
		"Kaiku-Failed": true, "Kaiku-Tier": true, "": true,
		"X-React-Router-Spa-Mode": true, "X-React-Router-Prerender-Data": true, "X-Astro-Path": true,
		"Next-Resume": true, "Cluster-Client-Ip": true,
		"Accept": false, "X-Requested-With": false, "X-Amz-Date": false, "X-Request-Id": false, "Traceparent": false,
		"Cookie": false, "Cdn-Loop": false, "Via": false, "X": false,
	} {
		if got := Impersonates(name); got != want {
			t.Errorf("%q: %v, want %v", name, got, want)
		}
	}
	for name, says := range map[string]string{"X-HTTP-Method-Override": "", "api_key": "", "x-forwarded-port": "",
		"X-Forwarded-For": "the edge writes", "kaiku-tier": "the edge writes",
		"Accept": "reaches the origin", "a b": "not a valid field name", "": "not a valid field name"} {
		if err := CheckPassField(name); (err == nil) != (says == "") || err != nil && !strings.Contains(err.Error(),
			says) {
			t.Errorf("%q: %v, want %q", name, err, says)
		}
	}
}
