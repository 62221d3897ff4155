package edge

import (
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/kaiku-cdn/kaiku/edge/rules"
	"github.com/kaiku-cdn/kaiku/edge/site"
)

// Browsers get a site's own pages for errors, with the error's status; other clients get what they
// would get without them.
func TestSiteErrorPages(t *testing.T) { overProtocols(t, testSiteErrorPages) }

func testSiteErrorPages(t *testing.T, p protocol) {
	glob := func(text string) rules.Match {
		p, err := rules.ParseGlob(text)
		if err != nil {
			t.Fatal(err)
		}
		return rules.Match{Paths: []rules.Pattern{p}}
	}
	long := strings.Repeat("origin", 100_000)
	e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		w.Header().Set("Etag", `"1"`)
		w.Header().Set("Content-Type", "text/css")
		status := 200
		if n, err := strconv.Atoi(r.URL.Query().Get("status")); err == nil {
			status = n
		}
		w.WriteHeader(status)
		if r.URL.Path == "/long" {
			_, _ = w.Write([]byte(long))
			return
		}
		_, _ = w.Write([]byte("origin"))
	}, func(_ *Server, s *site.Site) {
		set, err := rules.NewSet([]rules.Rule{
			{Name: "all", Actions: rules.Actions{Pages: &rules.ErrorPages{Origin: true, Pages: map[int][]byte{
				404: []byte("<h1>none</h1>"), 503: []byte("<h1>busy</h1>")}}}},
			{Name: "own", Match: glob("/own/**"), Actions: rules.Actions{Pages: &rules.ErrorPages{Pages: map[int][]byte{
				403: []byte("<h1>no</h1>"), 404: []byte("<h1>mine</h1>")}}}},
			{Name: "deny", Match: glob("/own/secret"), Actions: rules.Actions{Respond: &rules.Response{Status: 403}}},
			{Name: "gone", Match: glob("/gone"), Actions: rules.Actions{Respond: &rules.Response{Status: 404,
				Header: http.Header{"Content-Type": {"text/plain"}}, Body: []byte("gone")}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		s.Rules = set
	})
	const browser, script = "Accept: text/html,application/xhtml+xml,*/*;q=0.8", "Accept: */*"
	for _, c := range []struct {
		path, accept string
		status       int
		body, kind   string
	}{
		{"/a?status=404", browser, 404, "<h1>none</h1>", "text/html; charset=utf-8"},
		{"/a?status=404", script, 404, "origin", "text/css"},
		{"/long?status=404", browser, 404, "<h1>none</h1>", "text/html; charset=utf-8"},
		{"/long?status=404", script, 404, long, "text/css"},
		{"/a?status=503", browser, 503, "<h1>busy</h1>", "text/html; charset=utf-8"},
		{"/a?status=500", browser, 500, "origin", "text/css"},
		{"/a", browser, 200, "origin", "text/css"},
		{"/own/a?status=404", browser, 404, "<h1>none</h1>", "text/html; charset=utf-8"},
		{"/own/secret", browser, 403, "<h1>no</h1>", "text/html; charset=utf-8"},
		{"/own/secret", script, 403, "Forbidden\n", "text/plain; charset=utf-8"},
		{"/gone", browser, 404, "gone", "text/plain"},
	} {
		for range 2 { // a miss, and what is stored
			a := e.get(c.path, c.accept)
			a.wants(t, c.status, c.body)
			replaced := strings.HasPrefix(c.body, "<")
			if kind := a.header.Get("Content-Type"); kind != c.kind || replaced && a.header["Etag"] != nil ||
				a.header.Get("Content-Length") != strconv.Itoa(len(c.body)) {
				t.Errorf("%s %s: the fields are %v", c.path, c.accept, a.header)
			}
			if replaced && !strings.Contains(strings.Join(a.header["Vary"], ","), "Accept") {
				t.Errorf("%s: Vary: %s", c.path, a.header["Vary"])
			}
		}
	}
	a := e.do(e.request("HEAD", "/a?status=404", "", browser))
	if a.status != 404 || a.body != "" || a.header.Get("Content-Length") != "13" {
		t.Errorf("HEAD: %d %q %v", a.status, a.body, a.header)
	}
	e.get("/a", browser).wants(t, 200, "origin") // on the same connection
}
