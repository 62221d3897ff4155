package edge

import (
	"net/http"
	"strings"
	"testing"

	"github.com/kaiku-cdn/kaiku/edge/rules"
	"github.com/kaiku-cdn/kaiku/edge/site"
)

// CORS and security fields are the same over every protocol, in the hit lane and beside it,
// whatever the status is.
func TestBrowserFields(t *testing.T) { overProtocols(t, testBrowserFields) }

func testBrowserFields(t *testing.T, p protocol) {
	for name, noLane := range map[string]bool{"lane": false, "ordinary": true} {
		t.Run(name, func(t *testing.T) {
			cors := &rules.CORS{Origins: []string{"https://app.example"}, Credentials: true}
			if err := cors.Check(); err != nil {
				t.Fatal(err)
			}
			basic, _ := rules.SecurityHeaders("basic")
			denied, err := rules.ParseGlob("/denied")
			if err != nil {
				t.Fatal(err)
			}
			set, err := rules.NewSet([]rules.Rule{{Name: "cors", Actions: rules.Actions{CORS: cors, Security: basic}},
				{Name: "deny", Match: rules.Match{Paths: []rules.Pattern{denied}},
					Actions: rules.Actions{Respond: &rules.Response{Status: http.StatusForbidden}}}})
			if err != nil {
				t.Fatal(err)
			}
			e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/absent" {
					w.WriteHeader(http.StatusNotFound)
					return
				}
				if r.Header.Get("If-None-Match") != "" { // without X-Frame-Options, which the client has stored
					w.Header().Set("Etag", `"1"`)
					w.WriteHeader(http.StatusNotModified)
					return
				}
				setFields(w.Header(), []string{"Cache-Control: max-age=60", `Etag: "1"`, "X-Frame-Options: DENY",
					"Access-Control-Allow-Origin: *", "Vary: Accept-Language"})
				if r.URL.Path == "/private" {
					w.Header().Set("Cache-Control", "no-store")
				}
				_, _ = w.Write([]byte("x"))
			}, func(s *Server, of *site.Site) { s.NoHitLane, of.Rules = noLane, set })
			checkBrowserFields(t, e)
			if lane := counted(t, e, "kaiku_edge_hit_lane_total") > 0; lane && noLane || !lane && !noLane &&
				p != protoHTTP2Go {
				t.Errorf("the hit lane answered: %v", lane)
			}
		})
	}
}

func checkBrowserFields(t *testing.T, e *testEdge) {
	for _, c := range []struct {
		method, path, condition string
		status                  int
		frames                  string
	}{
		{"GET", "/a", "", 200, "DENY"}, {"GET", "/a", "", 200, "DENY"}, {"HEAD", "/a", "", 200, "DENY"},
		{"GET", "/a", `If-None-Match: "1"`, 304, "DENY"}, {"GET", "/a", "Range: bytes=0-0", 206, "DENY"},
		{"GET", "/a", "Range: bytes=9-", 416, "*"}, {"GET", "/absent", "", 404, "SAMEORIGIN"},
		{"POST", "/a", "", 200, "DENY"}, {"GET", "/denied", "", 403, "SAMEORIGIN"},
		{"GET", "/private", "", 200, "DENY"}, {"GET", "/private", `If-None-Match: "1"`, 304, ""},
	} {
		for origin, allowed := range map[string]bool{"": false, "https://app.example": true,
			"https://evil.example": false,
			"null":                 false} {
			fields := []string{"Origin: " + origin}
			if origin == "" {
				fields = nil
			}
			if c.condition != "" {
				fields = append(fields, c.condition)
			}
			a := e.do(e.request(c.method, c.path, "", fields...))
			e.settle()
			h := a.header
			if a.status != c.status || !strings.Contains(strings.Join(h["Vary"], ", "), "Origin") ||
				c.frames != "*" && c.frames != "" && h.Get("X-Frame-Options") != c.frames ||
				c.frames == "" && h.Get("X-Frame-Options") == "SAMEORIGIN" || // instead of DENY
				c.frames != "" && h.Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("%v: got %d %v", c, a.status, h)
			}
			if allowed && (h.Get("Access-Control-Allow-Origin") != origin ||
				h.Get("Access-Control-Allow-Credentials") != "true") ||
				!allowed && (h["Access-Control-Allow-Origin"] != nil || h["Access-Control-Allow-Credentials"] != nil) {
				t.Errorf("%v from %q: got %v", c, origin, h)
			}
		}
	}
	before := e.hits.Load()
	a := e.do(e.request("OPTIONS", "/a", "", "Origin: https://app.example", "Access-Control-Request-Method: PUT"))
	if a.status != http.StatusNoContent || a.header.Get("Access-Control-Allow-Origin") != "https://app.example" {
		t.Errorf("the preflight got %d %v", a.status, a.header)
	}
	e.wantHits(before)
}
