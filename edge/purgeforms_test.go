package edge

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/kaiku-cdn/kaiku/edge/purge"
	"github.com/kaiku-cdn/kaiku/edge/site"
)

// newTagged starts an edge that has stored a few pages with tags.
func newTagged(t *testing.T, change ...func(*Server, *site.Site)) *testEdge {
	t.Helper()
	e := newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=1000")
		w.Header().Set("Surrogate-Key", "all k"+strings.ReplaceAll(r.URL.Path, "/", "-"))
		_, _ = io.WriteString(w, r.RequestURI)
	}, append(change, func(_ *Server, site *site.Site) { site.Hosts = append(site.Hosts, "static.example") })...)
	for path := range strings.FieldsSeq(taggedPaths) {
		e.get(path).wants(t, 200, path)
	}
	return e
}

const taggedPaths = "/a /a?x=1 /a/b /c"

// wantGone fails the test unless these paths are gone, and no others.
func (e *testEdge) wantGone(gone string, soft bool) {
	e.t.Helper()
	for path := range strings.FieldsSeq(taggedPaths) {
		got := e.get(path)
		is := slices.Contains(strings.Fields(gone), path)
		if got.isHit() == is {
			e.t.Errorf("%s: hit %v after the purge", path, got.isHit())
		} else if is && (got.cacheStatus()["fwd"] == "stale") != soft {
			e.t.Errorf("%s: %s", path, got.header["Cache-Status"])
		}
	}
}

func TestPurgeInFastlyForm(t *testing.T) {
	key := "Fastly-Key: secret"
	for _, c := range []struct {
		name, request, body string
		fields              []string
		gone                string
		status              int
		answer              string
	}{
		{"key", "POST /service/www/purge/k-a", "", []string{key}, "/a /a?x=1", 200, `{"status":"ok","id":"1"}`},
		{"soft key", "POST /service/SU1Z0isxPaozGVKXdv0eY/purge/k-a-b", "", []string{key, "Fastly-Soft-Purge: 1"},
			"/a/b", 200, `{"status":"ok","id":"1"}`},
		{"keys in a field", "POST /service/www/purge", "", []string{key, "Surrogate-Key: k-c k-a-b"}, "/a/b /c", 200,
			`{"k-a-b":"1","k-c":"1"}`},
		{"keys in JSON", "POST /service/www/purge", `{"surrogate_keys":["k-c"]}`,
			[]string{key, "Content-Type: application/json"}, "/c", 200, `{"k-c":"1"}`},
		{"no keys", "POST /service/www/purge", "", []string{key}, "", 400, `"msg":"Bad Request"`},
		{"not JSON", "POST /service/www/purge", "{", []string{key}, "", 400, `"msg":"Bad Request"`},
		{"all", "POST /service/www/purge_all", "", []string{key}, taggedPaths, 200, `{"status":"ok","id":"1"}`},
		{"all of a host's site", "POST /service/www.example/purge_all", "", []string{key}, taggedPaths, 200, `"ok"`},
		{"all of the only site", "POST /service/xyz/purge_all", "", []string{"Authorization: Bearer secret"},
			taggedPaths, 200, `"ok"`},
		{"URL in the target", "PURGE http://www.example/a?x=1", "", []string{key}, "/a?x=1", 200,
			`{"status":"ok","id":"1"}`},
		{"path and Host", "PURGE /a", "", []string{key, "Host: www.example"}, "/a", 200, `"ok"`},
		{"soft path", "PURGE /a", "", []string{key, "Host: www.example", "Fastly-Soft-Purge: 1"}, "/a", 200, `"ok"`},
		{"URL in the path", "POST /purge/www.example/a?x=1", "", []string{key}, "/a?x=1", 200, `"ok"`},
		{"URL with scheme in the path", "POST /purge/https://www.example/a/b", "", []string{key}, "/a/b", 200, `"ok"`},
		{"URL of another host", "POST /purge/other.example/a", "", []string{key}, "", 404,
			`"detail":"no site has the host other.example: the hosts are static.example, www.example"`},
		{"no key", "POST /service/www/purge_all", "", nil, "", 401, `"msg":"Unauthorized"`},
		{"wrong key", "POST /service/www/purge_all", "", []string{"Fastly-Key: x"}, "", 401, `"msg":"Unauthorized"`},
		{"PURGE without key", "PURGE /a", "", []string{"Host: www.example"}, "", 401, `"msg":"Unauthorized"`},
		{"all, by a token of the site", "POST /service/www/purge_all", "", []string{"Fastly-Key: www"}, taggedPaths,
			200, `"ok"`},
		{"a key, by a token of the site", "POST /service/www/purge/k-a", "", []string{"Fastly-Key: www"}, "", 403,
			`"msg":"Forbidden"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := newTagged(t, func(s *Server, _ *site.Site) {
				s.Tokens.Set([]purge.Token{{Secret: "www", Scopes: []string{purge.ScopePurge}, Sites: []string{"www"}},
					full("secret")})
			})
			method, target, _ := strings.Cut(c.request, " ")
			if strings.HasPrefix(target, "http://") { // a proxy's form
				target = strings.TrimPrefix(target, "http://www.example")
				c.fields = append(c.fields, "Host: www.example")
			}
			got := e.adminAs(method, target, c.body, c.fields...)
			if got.status != c.status || !strings.Contains(got.body, c.answer) {
				t.Errorf("%d, %s", got.status, got.body)
			}
			e.wantGone(c.gone, strings.Contains(strings.Join(c.fields, " "), "Soft"))
		})
	}
}

// adminAs is admin with a Host that may be another.
func (e *testEdge) adminAs(method, path, body string, fields ...string) answer {
	e.t.Helper()
	r := e.request(method, path, body, fields...)
	r.URL.Scheme, r.URL.Host = "http", e.AdminAddr().String()
	if r.Host == "www.example" && !slices.Contains(fields, "Host: www.example") {
		r.Host = ""
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(r)
	if err != nil {
		e.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(b), err}
}

// Without tokens a web page could send what no browser asks about first.
func TestPurgeFormsFromWebPages(t *testing.T) {
	e := newTagged(t)
	for _, path := range []string{"/service/www/purge_all", "/service/www/purge/all", "/service/www/purge",
		"/purge/www.example/a", "/client/v4/zones/www/purge_cache"} {
		got := e.admin("POST", path, `{"purge_everything":true, "surrogate_keys":["all"]}`, "Content-Type: text/plain")
		if got.status != 415 {
			t.Errorf("%s: %d, %s", path, got.status, got.body)
		}
	}
	e.wantGone("", false)
}

func TestPurgeInCloudflareForm(t *testing.T) {
	ok := `{"success":true,"errors":[],"messages":[],"result":{"id":"1"}}`
	for _, c := range []struct {
		name, zone, body, field string
		gone                    string
		status                  int
		answer                  string
	}{
		{"files", "023e105f4ecef8ad9ca31a8372d0c353", `{"files":["http://www.example/a", "https://www.example/c"]}`, "",
			"/a /c", 200, ok},
		{"files with fields", "www", `{"files":[{"url":"http://www.example/a","headers":{"CF-Device-Type":"mobile"}}]}`,
			"", "/a", 200, ok},
		{"tags", "www", `{"tags":["k-a","k-c"]}`, "", "/a /a?x=1 /c", 200, ok},
		{"hosts", "www", `{"hosts":["www.example"]}`, "", taggedPaths, 200, ok},
		{"prefixes", "www", `{"prefixes":["www.example/a/"]}`, "", "/a/b", 200, ok},
		{"everything", "www", `{"purge_everything":true}`, "", taggedPaths, 200, ok},
		{"everything of the only site", "x", `{"purge_everything":true}`, "", taggedPaths, 200, ok},
		{"the old key", "www", `{"tags":["k-c"]}`, "X-Auth-Key: secret", "/c", 200, ok},
		{"a file of another site", "www", `{"files":["http://other.example/a"]}`, "", "", 403, `"success":false`},
		{"a host of another site", "www", `{"hosts":["other.example"]}`, "", "", 403, `"success":false`},
		{"everything and another site", "www", `{"purge_everything":true, "prefixes":["other.example/"]}`, "", "", 403,
			`"success":false`},
		{"nothing", "www", `{}`, "", "", 400, `"success":false`},
		{"a relative file", "www", `{"files":["/a"]}`, "", "", 400, `"success":false`},
		{"not JSON", "www", `{`, "", "", 400, `"success":false`},
		{"wrong token", "www", `{"purge_everything":true}`, "Authorization: Bearer x", "", 401,
			`"errors":[{"code":401`},
		{"a token to read", "www", `{"purge_everything":true}`, "Authorization: Bearer r", "", 403,
			`"errors":[{"code":403`},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := newTagged(t, func(s *Server, _ *site.Site) {
				s.Tokens.Set([]purge.Token{{Secret: "r", Scopes: []string{purge.ScopeRead}}, full("secret")})
			})
			if c.field == "" {
				c.field = "Authorization: Bearer secret"
			}
			got := e.admin("POST", "/client/v4/zones/"+c.zone+"/purge_cache", c.body, "Content-Type: application/json",
				c.field)
			if got.status != c.status || !strings.Contains(got.body, c.answer) {
				t.Errorf("%d, %s", got.status, got.body)
			}
			e.wantGone(c.gone, false)
		})
	}
}

// Everything of a service that is no site's name could be meant for any of several sites.
func TestPurgeAllOfUnknownService(t *testing.T) {
	e := newTagged(t)
	other := *e.site
	other.Name, other.Hosts = "two", []string{"two.example"}
	e.Sites.Set([]*site.Site{e.site, &other})
	for path, status := range map[string]int{"/service/x/purge_all": 404, "/service/two/purge_all": 200,
		"/service/two.example/purge_all": 200} {
		if got := e.admin("POST", path, "", "Fastly-Key: x"); got.status != status {
			t.Errorf("%s: %d, %s", path, got.status, got.body)
		}
	}
	e.wantGone("", false)
}
