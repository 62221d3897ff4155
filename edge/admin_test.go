package edge

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/kaiku-cdn/kaiku/edge/admin"
	"github.com/kaiku-cdn/kaiku/edge/purge"
	"github.com/kaiku-cdn/kaiku/edge/site"
	"github.com/kaiku-cdn/kaiku/fleet/testwait"
)

// The status counts what was answered for sites, and nothing else.
func TestStatus(t *testing.T) {
	e := newSecure(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/broken" {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		w.Header().Set("Cache-Control", "max-age=1000")
		_, _ = io.WriteString(w, "hello")
	}, 1, func(s *Server, _ *site.Site) { s.Version = "v1" })
	for _, path := range []string{"/a", "/a", "/a", "/broken", admin.HealthPath} {
		e.get(path)
	}
	other := e.request("GET", "/a", "")
	other.Host = "other.example"
	if got := e.do(other); got.status != http.StatusMisdirectedRequest {
		t.Fatalf("a host of no site: %d", got.status)
	}
	var st admin.Status
	testwait.Until(t, "the last request is counted", func() bool { // which is done after its answer has come
		if got := e.admin("GET", "/v1/status", ""); got.status != 200 || decode(got.body, &st) != nil {
			t.Fatalf("%d, %s", got.status, got.body)
		}
		return st.Traffic.Requests == 4
	})
	if st.Traffic.Hits != 2 || st.Traffic.Errors != 1 || st.Traffic.Bytes < 15 {
		t.Errorf("traffic is %+v", st.Traffic)
	}
	if st.Version != "v1" || st.Started.IsZero() {
		t.Errorf("version %q, started %v", st.Version, st.Started)
	}
	if len(st.Certificates) != 1 {
		t.Fatalf("certificates are %+v", st.Certificates)
	}
	if c := st.Certificates[0]; c.Name != "www.example" || c.From != "file" || c.DaysLeft == nil || *c.DaysLeft <= 0 ||
		c.Days < *c.DaysLeft {
		t.Errorf("the certificate is %+v", c)
	}
}

// A name that the fleet does not have is refused, and the error lists those that there are.
func TestUnknownNames(t *testing.T) {
	e := newTagged(t, func(s *Server, _ *site.Site) {
		s.Fleet = oneNode{}
		s.Tokens.Set([]purge.Token{full("all"), {Secret: "www", Scopes: purge.Scopes(), Sites: []string{"www"}}})
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
		{"www", "POST", "/v1/purge", `{"hosts":["other.example"]}`, 403,
			"this token is not for the site of other.example: it is for www"},
		{"www", "POST", "/v1/warm", `{"urls":["http://other.example/a"]}`, 403,
			"this token is not for the site of other.example: it is for www"},
	} {
		got := e.admin(c.method, c.path, c.body, "Content-Type: application/json", "Authorization: Bearer "+c.token)
		if got.status != c.status || !strings.Contains(got.body, c.says) {
			t.Errorf("%s %s %s with %q: %d, %s; want %d, %s", c.method, c.path, c.body, c.token, got.status, got.body,
				c.status, c.says)
		}
	}
}
