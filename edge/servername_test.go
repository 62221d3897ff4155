package edge

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/kaiku-cdn/kaiku/edge/site"
)

// A TLS connection is for one site: a request for a host of another one gets 421, whatever is
// stored.
func TestServerName(t *testing.T) {
	e := newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		_, _ = io.WriteString(w, "x") // whose end comes when it is stored
	}, func(s *Server, site *site.Site) {
		s.HTTPS, s.Certificates = "127.0.0.1:0", newCertificates(t, "www.example", "shop.example")
		site.Hosts = append(site.Hosts, "static.example")
	})
	e.Sites.Set([]*site.Site{e.site, {Name: "shop", Hosts: []string{"shop.example", "*.shop.example"},
		Origin: e.site.Origin}})
	for _, p := range []protocol{protoTLS1, protoHTTP2, protoHTTP3} {
		client := e.newClientOf(p) // whose server name is www.example
		for host, want := range map[string]int{"www.example": 200, "WWW.example.": 200, "static.example": 200,
			"shop.example": 421, "a.shop.example": 421, "none.example": 421} {
			for try := range 3 { // a miss, and hits
				r := e.request("GET", "/"+string(p), "")
				r.URL.Scheme, r.URL.Host, r.Host = "https", "www.example", host
				resp, err := client.Do(r)
				if err != nil {
					t.Fatalf("%s, %s: %v", p, host, err)
				}
				if _, err := io.ReadAll(resp.Body); err != nil {
					t.Error(err)
				}
				resp.Body.Close()
				if resp.StatusCode != want {
					t.Errorf("%s, %s, request %d: %d, want %d", p, host, try+1, resp.StatusCode, want)
				}
				if cs := resp.Header.Get("Cache-Status"); want == 200 && try == 2 && !strings.Contains(cs, "hit") {
					t.Errorf("%s, %s: no hit: %s", p, host, cs)
				}
			}
		}
	}
}
