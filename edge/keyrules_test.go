package edge

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/kaiku-cdn/kaiku/edge/rules"
	"github.com/kaiku-cdn/kaiku/edge/site"
	"github.com/kaiku-cdn/kaiku/origin"
)

// keyRules are rules that choose the origin, and what is part of the key.
func keyRules(t *testing.T) *rules.Set {
	t.Helper()
	on := func(glob string) rules.Match {
		p, err := rules.ParseGlob(glob)
		if err != nil {
			t.Fatal(err)
		}
		return rules.Match{Paths: []rules.Pattern{p}}
	}
	byField := on("/both")
	byField.Header = []rules.Field{{Name: "X-Beta"}}
	set, err := rules.NewSet([]rules.Rule{
		{Name: "all of it", Match: on("/spare/**"), Actions: rules.Actions{Cache: rules.Cache{Origin: "spare"}}},
		{Name: "some", Match: byField, Actions: rules.Actions{Cache: rules.Cache{Origin: "spare"}}},
		{Name: "keep", Match: on("/keep"),
			Actions: rules.Actions{Cache: rules.Cache{Key: &rules.Key{Keep: []string{"id", "p*"}}}}},
		{Name: "drop", Match: on("/drop"),
			Actions: rules.Actions{Cache: rules.Cache{Key: &rules.Key{Drop: []string{"s"}}}}},
		{Name: "values", Match: on("/values"), Actions: rules.Actions{Cache: rules.Cache{
			Key: &rules.Key{Header: []string{"X-Device"}, Cookie: []string{"lang"}}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// addOrigin gives a site a further origin.
func addOrigin(t *testing.T, s *site.Site, name string, h http.HandlerFunc) {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	u, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	p := &origin.Pool{Name: s.Name + "/" + name, Servers: []origin.Server{{URL: u}}}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	s.Origins = map[string]*origin.Route{name: {Origin: p}}
}

// Rules choose the origin and the key, over every protocol, in the hit lane and beside it. A purge
// of a URL covers all that is stored for it.
func TestKeyRules(t *testing.T) { overProtocols(t, testKeyRules) }

func testKeyRules(t *testing.T, p protocol) {
	for name, noLane := range map[string]bool{"lane": false, "ordinary": true} {
		t.Run(name, func(t *testing.T) {
			answer := func(of string) http.HandlerFunc {
				return func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Cache-Control", "max-age=60")
					_, _ = io.WriteString(w, of+" "+r.RequestURI+" "+r.Header.Get("X-Device")+r.Header.Get("Cookie"))
				}
			}
			e := p.newEdge(t, answer("main"), func(s *Server, of *site.Site) {
				s.NoHitLane, of.Rules = noLane, keyRules(t)
				addOrigin(t, of, "spare", answer("spare"))
			})
			long := strings.Repeat("x", 300)
			for _, c := range []struct {
				path, field, body string
				first             bool // whether it is a hit when it is asked for first
				never             bool // it is never a hit
			}{
				{"/spare/a", "", "spare /spare/a ", false, false},
				{"/both", "", "main /both ", false, false},
				{"/both", "X-Beta: 1", "spare /both ", false, false},
				{"/keep?x=1&id=2&page=3", "", "main /keep?id=2&page=3 ", false, false},
				{"/keep?id=2&page=3&y", "", "main /keep?id=2&page=3 ", true, false},
				{"/keep?y", "", "main /keep ", false, false},
				{"/drop?a=1&s=2", "", "main /drop?a=1 ", false, false},
				{"/drop?a=1&s=3", "", "main /drop?a=1 ", true, false},
				{"/values", "", "main /values ", false, false},
				{"/values", "X-Device: phone", "main /values phone", false, false},
				{"/values", "X-Device: tv", "main /values tv", false, false},
				{"/values", "Cookie: lang=fi; a=b", "main /values lang=fi; a=b", false, false},
				{"/values", "Cookie: lang=fi", "main /values lang=fi; a=b", true, false},
				{"/values", "Cookie: lang=sv", "main /values lang=sv", false, false},
				{"/values", "X-Device: " + long, "main /values " + long, false, true},
			} {
				var fields []string
				if c.field != "" {
					fields = []string{c.field}
				}
				for n := range 2 {
					a := e.get(c.path, fields...)
					a.wants(t, 200, c.body)
					if hit := a.cacheStatus()["hit"] != ""; hit != (!c.never && (n > 0 || c.first)) {
						t.Errorf("%s %.40s, request %d: %s", c.path, c.field, n, a.header.Get("Cache-Status"))
					}
				}
			}
			e.purge(`{"urls": ["` + e.url("/both") + `", "` + e.url("/values") + `"]}`)
			for _, field := range []string{"X-Beta: 1", "X-None: 1"} {
				if a := e.get("/both", field); a.cacheStatus()["hit"] != "" {
					t.Errorf("/both with %s after the purge: %s", field, a.header.Get("Cache-Status"))
				}
			}
			if a := e.get("/values", "X-Device: tv"); a.cacheStatus()["hit"] != "" {
				t.Errorf("/values after the purge: %s", a.header.Get("Cache-Status"))
			}
			// so does a successful POST
			e.do(e.request("POST", "/values", "x"))
			if a := e.get("/values", "X-Device: tv"); a.cacheStatus()["hit"] != "" {
				t.Errorf("/values after a POST: %s", a.header.Get("Cache-Status"))
			}
		})
	}
}
