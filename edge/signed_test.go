package edge

import (
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/rules"
	"github.com/kaiku-cdn/kaiku/edge/site"
)

var signingKeys = [][]byte{[]byte("0123456789abcdef"), []byte("fedcba9876543210")}

// signedRules want signed URLs below /media/.
func signedRules(t testing.TB) *rules.Set {
	t.Helper()
	signed, err := rules.NewSigned(signingKeys, "", "pass")
	if err != nil {
		t.Fatal(err)
	}
	media, err := rules.ParseGlob("/media/**")
	if err != nil {
		t.Fatal(err)
	}
	set, err := rules.NewSet([]rules.Rule{{Name: "media", Match: rules.Match{Paths: []rules.Pattern{media}},
		Actions: rules.Actions{Signed: signed}}})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// A signed URL is checked before every look-up, and the token stays at the edge.
func TestSignedURLs(t *testing.T) { overProtocols(t, testSignedURLs) }

func testSignedURLs(t *testing.T, p protocol) {
	for name, noLane := range map[string]bool{"lane": false, "ordinary": true} {
		t.Run(name, func(t *testing.T) {
			e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Cache-Control", "max-age=60")
				w.Header().Set("Etag", `"1"`)
				_, _ = io.WriteString(w, r.URL.RequestURI()+r.Header.Get("Cookie"))
			}, func(s *Server, of *site.Site) { s.NoHitLane, of.Rules = noLane, signedRules(t) })
			checkSigned(t, e)
			if lane := counted(t, e, "kaiku_edge_hit_lane_total") > 0; lane && noLane || !lane && !noLane &&
				p != protoHTTP2Go {
				t.Errorf("the hit lane answered: %v", lane)
			}
			if n := counted(t, e, "kaiku_edge_rule_refusals_total"); n == 0 {
				t.Error("no refusal was counted")
			}
		})
	}
}

func checkSigned(t *testing.T, e *testEdge) {
	at := time.Now().Add(time.Hour).Unix()
	sign := func(token rules.Token, path, query string) string {
		token.Expires = max(token.Expires, at)
		return "token=" + token.Sign(signingKeys[0], "www.example", path, query)
	}
	one := "/media/a?" + sign(rules.Token{}, "/media/a", "")
	refused := func(method, path, why string, fields ...string) {
		t.Helper()
		a := e.do(e.request(method, path, "", fields...))
		if a.status != http.StatusForbidden || !strings.Contains(a.header.Get("Cache-Status"), why) ||
			a.header.Get("Cache-Control") != "no-store" || a.header.Get("Etag") != "" {
			t.Errorf("%s %s: %d %v, want %s", method, path, a.status, a.header, why)
		}
	}
	hit := func(path, body string, fields ...string) {
		t.Helper()
		e.get(path, fields...).wants(t, http.StatusOK, body)
		a := e.get(path, fields...)
		if a.wants(t, http.StatusOK, body); !a.isHit() {
			t.Errorf("%s: Cache-Status: %s", path, a.header.Get("Cache-Status"))
		}
	}
	refused("GET", "/media/a", "signed-missing")
	e.wantHits(0)
	hit(one, "/media/a")
	hit("/media/a?"+sign(rules.Token{Expires: at + 7}, "/media/a", ""), "/media/a")
	hit("/media/a?"+"token="+rules.Token{Expires: at}.Sign(signingKeys[1], "www.example", "/media/a", ""), "/media/a")
	e.wantHits(1)
	folder := sign(rules.Token{Prefix: "/media/7/"}, "", "")
	hit("/media/7/b?q=1&"+folder, "/media/7/b?q=1")
	hit("/media/7/c", "/media/7/ca=1; b=2", "Cookie: a=1; pass="+strings.TrimPrefix(folder, "token=")+"; b=2")
	loopback := sign(rules.Token{Network: netip.MustParsePrefix("127.0.0.0/8")}, "/media/a", "")
	hit("/media/a?"+loopback, "/media/a")
	e.wantHits(3)
	// What is stored is refused as well, in every form.
	for _, fields := range [][]string{nil, {"Range: bytes=0-1"}, {`If-None-Match: "1"`},
		{"Cache-Control: only-if-cached"},
		{"X-Original-URL: " + one}, {"Referer: https://www.example" + one}} {
		refused("GET", "/media/a", "signed-missing", fields...)
		refused("HEAD", "/media/a", "signed-missing", fields...)
	}
	far := sign(rules.Token{Network: netip.MustParsePrefix("192.0.2.0/24")}, "/media/a", "")
	expired := "token=" + rules.Token{Expires: 1}.Sign(signingKeys[0], "www.example", "/media/a", "")
	refused("GET", "/media/a?"+far, "signed-network")
	refused("GET", "/media/a?"+expired, "signed-expired")
	refused("GET", "/media/b?"+sign(rules.Token{}, "/media/a", ""), "signed-wrong")
	refused("GET", one+"&x=1", "signed-wrong")
	refused("POST", one, "signed-method")
	refused("PURGE", one, "signed-method")
	for _, path := range []string{"/%6dedia/a", "//media/a", "/./media/a", "/x/../media/a", "/media//a", "/media/%61",
		"/media%2Fa"} {
		refused("GET", path, "signed-")
	}
	for _, path := range []string{"/media//7/b", "/media/7/../a", "/media/7/%2e%2e/a", "/media/7/..%2fa",
		`/media/7/..%5ca`} {
		refused("GET", path+"?"+folder, "signed-wrong")
	}
	e.wantHits(3)
	if a := e.get(one, `If-None-Match: "1"`); a.status != http.StatusNotModified {
		t.Errorf("a condition got %d", a.status)
	}
	if a := e.do(e.request("HEAD", one, "")); a.status != http.StatusOK || !a.isHit() {
		t.Errorf("HEAD got %d", a.status)
	}
	e.get(one, "Range: bytes=1-5").wants(t, http.StatusPartialContent, "media")
}
