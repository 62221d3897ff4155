package edge

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/kaiku-cdn/kaiku/edge/rules"
	"github.com/kaiku-cdn/kaiku/edge/site"
)

// rulesForTest is a rule of each kind.
func rulesForTest(t *testing.T) *rules.Set {
	glob := func(text string) rules.Match {
		p, err := rules.ParseGlob(text)
		if err != nil {
			t.Fatal(err)
		}
		return rules.Match{Paths: []rules.Pattern{p}}
	}
	template := func(text string, captures int) *rules.Template {
		to, err := rules.ParseTemplate(text, captures)
		if err != nil {
			t.Fatal(err)
		}
		return &to
	}
	mobile, err := rules.ParseGlob("*Mobile*")
	if err != nil {
		t.Fatal(err)
	}
	forMobiles := glob("/device")
	forMobiles.Header = []rules.Field{{Name: "User-Agent", Value: &mobile}}
	hour, none := time.Hour, time.Duration(0)
	set, err := rules.NewSet([]rules.Rule{
		{Name: "deny", Match: glob("/admin/**"), Actions: rules.Actions{Respond: &rules.Response{Status: 403}}},
		{Name: "robots", Match: glob("/robots.txt"), Actions: rules.Actions{Respond: &rules.Response{Status: 200,
			Header: http.Header{"Content-Type": {"text/plain"}}, Body: []byte("Disallow: /\n")}}},
		{Name: "moved", Match: glob("/old/*"),
			Actions: rules.Actions{Redirect: &rules.Redirect{To: *template("/new/$1?$query", 1), Status: 301}}},
		{Name: "rewrite", Match: glob("/v1/**"),
			Actions: rules.Actions{Rewrite: &rules.Rewrite{Path: template("/api/$1", 1), Query: template("v=1", 0)}}},
		{Name: "all", Actions: rules.Actions{Response: rules.Fields{Remove: []string{"X-Powered-By"},
			Set: []rules.Value{{Name: "X-Frame-Options", Value: "DENY"}}}}},
		{Name: "mobiles", Match: forMobiles,
			Actions: rules.Actions{Rewrite: &rules.Rewrite{Path: template("/device/mobile", 0)}}},
		{Name: "kept", Match: glob("/kept"), Actions: rules.Actions{Cache: rules.Cache{TTL: &hour, NoQuery: true}}},
		{Name: "passed", Match: glob("/passed"), Actions: rules.Actions{Cache: rules.Cache{TTL: &none}}},
		{Name: "asked", Match: glob("/asked"),
			Actions: rules.Actions{Request: rules.Fields{Set: []rules.Value{{Name: "X-Edge", Value: "1"}}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// Rules do the same over every protocol, in the hit lane and beside it.
func TestRules(t *testing.T) { overProtocols(t, testRules) }

func testRules(t *testing.T, p protocol) {
	for name, noLane := range map[string]bool{"lane": false, "ordinary": true} {
		t.Run(name, func(t *testing.T) {
			e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("X-Powered-By", "origin")
				w.Header().Set("Cache-Control", "max-age=60")
				if strings.HasPrefix(r.URL.Path, "/kept") {
					w.Header().Set("Cache-Control", "no-store")
				}
				_, _ = w.Write([]byte(r.URL.RequestURI() + " " + r.Header.Get("X-Edge")))
			}, func(s *Server, of *site.Site) {
				s.NoHitLane, of.Rules = noLane, rulesForTest(t)
			})
			e.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
			for _, c := range []struct {
				path, field, body string
				status            int
				second            bool // the second response is a hit
			}{
				{"/admin/x", "", "Forbidden\n", 403, false},
				{"/%61dmin//x", "", "Forbidden\n", 403, false},
				{"/robots.txt", "", "Disallow: /\n", 200, false},
				{"/old/a%20b?x=1", "", "", 301, false},
				{"/v1/a/b?x=1", "", "/api/a/b?v=1 ", 200, true},
				{"/api/a/b?v=1", "", "/api/a/b?v=1 ", 200, true},
				{"/device", "User-Agent: x", "/device ", 200, true},
				{"/device", "User-Agent: x Mobile", "/device/mobile ", 200, true},
				{"/kept?a=1", "", "/kept ", 200, true},
				{"/kept?a=2", "", "/kept ", 200, true},
				{"/passed", "", "/passed ", 200, false},
				{"/asked", "", "/asked 1", 200, true},
			} {
				var fields []string
				if c.field != "" {
					fields = []string{c.field}
				}
				for n := range 3 {
					a := e.get(c.path, fields...)
					a.wants(t, c.status, c.body)
					if hit := a.cacheStatus()["hit"] != ""; n > 0 && hit != c.second {
						t.Errorf("%s: Cache-Status: %s", c.path, a.header.Get("Cache-Status"))
					}
					if c.status == 200 && c.body[0] == '/' && (a.header.Get("X-Powered-By") != "" ||
						a.header.Get("X-Frame-Options") != "DENY") {
						t.Errorf("%s: the fields are %v", c.path, a.header)
					}
					if to := a.header.Get("Location"); c.status == 301 && to != "/new/a%20b?x=1" {
						t.Errorf("%s is sent to %s", c.path, to)
					}
				}
			}
		})
	}
}

// A password that a rule asks for is checked for each request, and keeps nothing out of the cache.
func TestRuleAsksForPassword(t *testing.T) { overProtocols(t, testRuleAsksForPassword) }

func testRuleAsksForPassword(t *testing.T, p protocol) {
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	auth, err := rules.ParseAuth("staff", "anna:"+string(hash))
	if err != nil {
		t.Fatal(err)
	}
	set, err := rules.NewSet([]rules.Rule{{Name: "staff", Actions: rules.Actions{Auth: auth}}})
	if err != nil {
		t.Fatal(err)
	}
	e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		_, _ = io.WriteString(w, "for staff"+r.Header.Get("Authorization"))
	}, func(_ *Server, of *site.Site) { of.Rules = set })
	const right = "Authorization: Basic YW5uYTpzZWNyZXQ=" // anna:secret
	e.get("/").wants(t, 401, "Unauthorized\n")
	e.get("/", right).wants(t, 200, "for staff")
	a := e.get("/", right)
	if a.wants(t, 200, "for staff"); a.cacheStatus()["hit"] == "" {
		t.Errorf("Cache-Status: %s", a.header.Get("Cache-Status"))
	}
	e.get("/").wants(t, 401, "Unauthorized\n")
	e.get("/", "Authorization: Basic YW5uYTp3cm9uZw==").wants(t, 401, "Unauthorized\n")
}
