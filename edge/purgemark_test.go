package edge

import (
	"testing"

	"github.com/kaiku-cdn/kaiku/edge/purge"
	"github.com/kaiku-cdn/kaiku/edge/site"
	"github.com/kaiku-cdn/kaiku/storage"
)

// A purge that may be of one site only, by who has another fleet file, is of what this edge has in
// a site of another name. It is not purged, and nothing is used without validation.
func TestPurgeOfSiteThatWasRenamed(t *testing.T) { overProtocols(t, testPurgeOfSiteThatWasRenamed) }

func testPurgeOfSiteThatWasRenamed(t *testing.T, p protocol) {
	for name, c := range map[string]struct {
		site, host string
		fwd        string
	}{
		"renamed":            {"old", "www.example", "stale"},
		"another site's":     {"shop", "www.example", ""},
		"of no site":         {"old", "none.example", ""},
		"of its own":         {"www", "www.example", "uri-miss"},
		"of none, unlimited": {"", "none.example", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := p.newEdge(t, static("a", "Cache-Control: max-age=60", `Etag: "a"`))
			www := e.Sites.Now().List[0]
			www.Name, www.Hosts = "www", []string{"www.example"}
			e.Sites.Set([]*site.Site{www, {Name: "shop", Hosts: []string{"shop.example"}, Origin: www.Origin}})
			e.get("/a", "Host: www.example").wants(t, 200, "a")
			l := purge.Logged{Site: c.site, Request: purge.Request{Hosts: []string{c.host}}}
			if err := e.Apply([]purge.Logged{l}, storage.Position{Log: 1, Seq: 1}); err != nil {
				t.Fatal(err)
			}
			if a := e.get("/a", "Host: www.example"); a.cacheStatus()["fwd"] != c.fwd {
				t.Errorf("%v", a.cacheStatus())
			}
		})
	}
}
