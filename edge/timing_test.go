package edge

import (
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/kaiku-cdn/kaiku/edge/site"
)

// A site with server_timing tells what the cache did, in the hit lane and beside it.
func TestServerTiming(t *testing.T) { overProtocols(t, testServerTiming) }

func testServerTiming(t *testing.T, p protocol) {
	for name, noLane := range map[string]bool{"lane": false, "ordinary": true} {
		t.Run(name, func(t *testing.T) {
			e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Server-Timing", "db; dur=5")
				w.Header().Set("Cache-Control",
					map[bool]string{true: "max-age=60", false: "no-store"}[r.URL.Path == "/a"])
			}, func(s *Server, of *site.Site) { s.NoHitLane, of.ServerTiming = noLane, true })
			for _, c := range []struct{ path, want string }{
				{"/a", `^db; dur=5\|cdn-cache; desc=miss, edge; dur=\d+\.\d$`},
				{"/a", `^cdn-cache; desc=hit, edge; dur=\d+\.\d$`},
				{"/a", `^cdn-cache; desc=hit, edge; dur=\d+\.\d$`},
				{"/b", `^db; dur=5\|cdn-cache; desc=pass, edge; dur=\d+\.\d$`},
			} {
				got := strings.Join(e.get(c.path).header["Server-Timing"], "|")
				if !regexp.MustCompile(c.want).MatchString(got) {
					t.Errorf("%s: Server-Timing: %s, want %s", c.path, got, c.want)
				}
			}
		})
	}
}
