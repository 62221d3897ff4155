package edge

import (
	"strings"
	"testing"
)

// A name that the fleet does not have is refused, and the error lists those that there are.
func TestUnknownNames(t *testing.T) {
	e := newTagged(t, func(s *Server, _ *Site) {
		s.Fleet = oneNode{}
		s.SetTokens([]Token{full("all"), {"www", Scopes(), []string{"www"}}})
	})
	hosts := "no site has the host other.example: the hosts are static.example, www.example"
	for _, c := range []struct {
		token, method, path, body string
		status                    int
		says                      string
	}{
		{"all", "PUT", "/v1/nodes/nosuch/drain", "", 404, `there is no node \"nosuch\": the nodes are hel1`},
		{"all", "DELETE", "/v1/nodes/nosuch/drain", "", 404, `there is no node \"nosuch\": the nodes are hel1`},
		{"all", "PUT", "/v1/nodes/hel1/drain", "", 200, `"draining":true`},
		{"all", "POST", "/v1/purge", `{"urls":["http://other.example/a"]}`, 404, hosts},
		{"all", "GET", "/v1/explain?url=http://other.example/a", "", 404, hosts},
		{"all", "POST", "/v1/warm", `{"urls":["http://other.example/a"]}`, 200, hosts},
		{"www", "POST", "/v1/purge", `{"hosts":["other.example"]}`, 403, "this token is not for the site of other.example: it is for www"},
		{"www", "POST", "/v1/warm", `{"urls":["http://other.example/a"]}`, 403, "this token is not for the site of other.example: it is for www"},
	} {
		got := e.admin(c.method, c.path, c.body, "Content-Type: application/json", "Authorization: Bearer "+c.token)
		if got.status != c.status || !strings.Contains(got.body, c.says) {
			t.Errorf("%s %s %s with %q: %d, %s; want %d, %s", c.method, c.path, c.body, c.token, got.status, got.body, c.status, c.says)
		}
	}
}
