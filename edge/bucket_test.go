package edge

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/kaiku-cdn/kaiku/edge/site"
	"github.com/kaiku-cdn/kaiku/origin"
)

// A site whose origin is a bucket passes on GET and HEAD for objects, signed, and nothing else.
func TestBucket(t *testing.T) { overProtocols(t, testBucket) }

func testBucket(t *testing.T, p protocol) {
	var validated atomic.Int64
	e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		signed := r.Header.Get("Authorization")
		if !strings.HasPrefix(signed, "AWS4-HMAC-SHA256 Credential=id/") || strings.Contains(signed, "client") ||
			r.Header["X-Amz-Acl"] != nil || r.Header["Cookie"] != nil || r.Header["X-Forwarded-For"] != nil ||
			!strings.HasPrefix(r.Host, "127.0.0.1:") {
			t.Errorf("%s %s: %v", r.Method, r.RequestURI, r.Header)
		}
		if strings.HasSuffix(r.URL.Path, "/none") {
			w.WriteHeader(404)
			_, _ = w.Write([]byte("<Error><Code>NoSuchKey</Code><HostId>secret</HostId></Error>"))
			return
		}
		w.Header().Set("X-Amz-Request-Id", "1")
		w.Header().Set("Etag", `"1"`)
		w.Header().Set("Cache-Control", "max-age=0")
		if strings.HasSuffix(r.URL.Path, "/kept") {
			w.Header().Set("Cache-Control", "max-age=60")
		}
		if r.Header.Get("If-None-Match") == `"1"` {
			validated.Add(1)
			w.WriteHeader(304)
			return
		}
		_, _ = w.Write([]byte(r.RequestURI))
	}, func(_ *Server, s *site.Site) {
		s.Origin.Origin.S3 = &origin.S3{Bucket: "b", Region: "r", KeyID: "id", Secret: "s",
			Query: []string{"versionId"}}
	})
	for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS", "TRACE"} {
		if a := e.do(e.request(method, "/a", "")); a.status != 405 || a.header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: %d, Allow: %s", method, a.status, a.header.Get("Allow"))
		}
	}
	for path, status := range map[string]int{"/": 404, "/?list-type=2": 404, "/%2f": 404, "/a%2f..%2fb": 400} {
		if a := e.get(path); a.status != status {
			t.Errorf("%s: %d, want %d", path, a.status, status)
		}
	}
	if n := e.hits.Load(); n > 0 {
		t.Errorf("%d of these requests reached the origin", n)
	}
	e.get("/a%20b+c").wants(t, 200, "/b/a%20b%2Bc")
	e.get("/a?acl&x=1", "Authorization: Bearer client", "X-Amz-Acl: public-read", "Cookie: a=b").wants(t, 200, "/b/a")
	e.get("/a?versionId=2").wants(t, 200, "/b/a?versionId=2")
	a := e.get("/a", "Authorization: Bearer other")
	a.wants(t, 200, "/b/a")
	if validated.Load() != 1 || a.header["X-Amz-Request-Id"] != nil {
		t.Errorf("%d validations; the fields are %v", validated.Load(), a.header)
	}
	e.get("/none").wants(t, 404, "Not Found\n")

	for n, query := range []string{"", "?x=1", "?x=2&acl"} { // one key, in the hit lane and beside it
		a := e.get("/kept" + query)
		a.wants(t, 200, "/b/kept")
		if hit := a.cacheStatus()["hit"] != ""; hit != (n > 0) {
			t.Errorf("/kept%s: %s", query, a.header.Get("Cache-Status"))
		}
	}
	e.get("/kept", "Range: bytes=1-2").wants(t, 206, "b/")
}
