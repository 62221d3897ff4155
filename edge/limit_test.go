package edge

import (
	"net/http"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/rules"
	"github.com/kaiku-cdn/kaiku/edge/site"
)

// A limit counts hits and misses apart, over every protocol, with the hit lane on.
func TestLimits(t *testing.T) { overProtocols(t, testLimits) }

func testLimits(t *testing.T, p protocol) {
	all := &rules.Limit{Name: "www/all", Rate: rules.Rate{N: 11, In: time.Hour},
		Misses: rules.Rate{N: 3, In: time.Hour}}
	if err := all.Check(); err != nil {
		t.Fatal(err)
	}
	set, err := rules.NewSet([]rules.Rule{{Name: "all", Actions: rules.Actions{Limit: all,
		Response: rules.Fields{Add: []rules.Value{{Name: "X-Rule", Value: "1"}}}}}})
	if err != nil {
		t.Fatal(err)
	}
	e := p.newEdge(t, static("x", "Cache-Control: max-age=60"), func(_ *Server, of *site.Site) { of.Rules = set })
	refused := func(a answer, reason string) {
		t.Helper()
		if a.status != http.StatusTooManyRequests || a.header.Get("Retry-After") == "" ||
			a.header.Get("Cache-Control") != "no-store" || a.header.Get("RateLimit-Policy") == "" ||
			a.cacheStatus()["detail"] != `"rule all: `+reason+`"` || len(a.header["X-Rule"]) > 1 {
			t.Errorf("got %d %v, want %s", a.status, a.header, reason)
		}
	}
	e.get("/a").wants(t, http.StatusOK, "x")
	for range 2 { // hits
		e.get("/a").wants(t, http.StatusOK, "x")
	}
	e.do(e.request("HEAD", "/b", "")).wants(t, http.StatusOK, "")
	e.do(e.request("POST", "/b", "x")).wants(t, http.StatusOK, "x")
	refused(e.get("/c"), rules.LimitMisses)
	refused(e.get("/c", "Range: bytes=0-0"), rules.LimitMisses)
	refused(e.do(e.request("DELETE", "/a", "")), rules.LimitMisses)
	refused(e.get("/a", "Cache-Control: no-cache"), rules.LimitMisses)
	e.wantHits(3)
	e.get("/d?x=1", "Cache-Control: only-if-cached") // the origin is not asked
	e.get("/a").wants(t, http.StatusOK, "x")
	refused(e.get("/a"), rules.LimitRequests)
}
