package edge

import (
	"encoding/json"
	"io"
	"net/http"
	"regexp"
	"testing"

	"github.com/kaiku-cdn/kaiku/edge/front"
	"github.com/kaiku-cdn/kaiku/edge/site"
)

// Errors of the edge itself are a page for browsers, problem details for who asks for JSON, and a
// line of text for others. The access log has the request that a page names.
func TestErrorPages(t *testing.T) { overProtocols(t, testErrorPages) }

func testErrorPages(t *testing.T, p protocol) {
	var log logLines
	e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/own" {
			w.WriteHeader(http.StatusBadGateway)
			_, _ = io.WriteString(w, "the origin's own page")
			return
		}
		panic(http.ErrAbortHandler)
	}, func(s *Server, _ *site.Site) { s.AccessLog = &front.AccessLog{Out: &log} })
	const browser = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
	for _, c := range []struct{ path, accept, host, contentType, body string }{
		{"/a", "Accept: */*", "www.example", "text/plain; charset=utf-8", "^Bad Gateway: connection-error\n$"},
		{"/a", browser, "www.example", "text/html; charset=utf-8",
			"<h1>.*502 Bad Gateway.*</h1>(?s:.*)<dd>www.example</dd>"},
		{"/own", browser, "www.example", "text/plain; charset=utf-8", "^the origin's own page$"},
		{"/a", browser, "none.example", "text/html; charset=utf-8", "421 Misdirected Request"},
		{"/a", "Accept: application/json", "www.example", problemJSON,
			`^{"title":"Bad Gateway","status":502,"detail":"connection-error",`},
	} {
		a := e.do(e.request("GET", c.path, "", c.accept, "Host: "+c.host))
		if a.status < 400 || a.header.Get("Content-Type") != c.contentType ||
			!regexp.MustCompile(c.body).MatchString(a.body) {
			t.Errorf("%s, %s: %d, %q, %s", c.path, c.accept, a.status, a.header, a.body)
		}
		if c.contentType == problemJSON {
			var problem struct {
				ID string `json:"request_id"`
			}
			if err := json.Unmarshal([]byte(a.body), &problem); err != nil || len(problem.ID) != 16 {
				t.Errorf("%v: %s", err, a.body)
			}
			e.stop() // writes the access log
			if log.with(`"request_id":"`+problem.ID+`"`) == "" {
				t.Errorf("the access log has no request %s", problem.ID)
			}
		}
	}
}

const problemJSON = "application/problem+json"

// A rule may let caches keep its error, whose form depends on Accept.
func TestErrorPageOfRuleVaries(t *testing.T) {
	e := newEdge(t, static("x"), func(_ *Server, s *site.Site) { s.Rules = rulesForTest(t) })
	if a := e.do(e.request("GET", "/admin/x", "", "Accept: text/html")); a.status != 403 ||
		a.header.Get("Vary") != "Accept" {
		t.Errorf("%d, %q", a.status, a.header)
	}
}
