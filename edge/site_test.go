package edge

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/kaiku-cdn/kaiku/edge/front"
	"github.com/kaiku-cdn/kaiku/edge/site"
)

// What identifies a resource is left as it is: the origin sees the bytes that the client sent, and
// what differs is stored apart.
func TestTargetsUnchanged(t *testing.T) { overProtocols(t, testTargetsUnchanged) }

func testTargetsUnchanged(t *testing.T, p protocol) {
	e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=1000")
		_, _ = io.WriteString(w, r.RequestURI)
	})
	targets := []string{
		"/", "/?", "/a", "/a/", "/a?", "/a?x", "/a?x=", "/A", "/%41", "/%61", "/a%2Fb", "/a%2fb", "/a/b", "/a|b",
		"/a%7Cb", "//a", "///a", "/a//b",
		"/a/./b", "/a/../b", "/%2e%2e/b", "/a;b", "/a:b", "/a+b", "/a%20b", "/ä", "/%C3%A4", "/a?x=1&y=2", "/a?y=2&x=1",
		"/a?x=%41", "/a?x=a|b",
		"/a?b?c", "/a?//b", "/'()*!$,~", "/a\\b", "/a%00b", "/*", "/a[1]", `/a"b`, "/a^b`{c}", "/a?&&",
		"/a?b=http://c/d", "/http://c/d",
	}
	for round, method := range []string{"POST", "GET", "GET"} {
		for _, target := range targets {
			got := e.raw(method + " " + target +
				" HTTP/1.1\r\nHost: www.example\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
			e.settle()
			got.wants(t, 200, target)
			if got.isHit() != (round == 2) {
				t.Errorf("%s %s in round %d: Cache-Status %q", method, target, round, got.header["Cache-Status"])
			}
		}
	}
}

func TestIgnoreQuery(t *testing.T) { overProtocols(t, testIgnoreQuery) }

func testIgnoreQuery(t *testing.T, p protocol) {
	e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=1000")
		_, _ = io.WriteString(w, r.RequestURI)
	}, func(_ *Server, s *site.Site) { s.IgnoreQuery = []string{"utm_*", "fbclid", "?c"} })
	for _, c := range []struct {
		target string
		is     string // what is stored for it
	}{
		{"/a", "/a"},
		{"/a?utm_source=x", "/a"},
		{"/a?utm_source=x&utm_medium=y&fbclid", "/a"},
		{"/a?utm=1", "/a?utm=1"},
		{"/a?xutm_source=1", "/a?xutm_source=1"},
		{"/a?fbclid2=1", "/a?fbclid2=1"},
		{"/a?x=1", "/a?x=1"},
		{"/a?utm_source=x&x=1", "/a?x=1"},
		{"/a?x=1&gc=2", "/a?x=1"},
		{"/a?UTM_source=1", "/a?UTM_source=1"},
		{"/b?fbclid=1&x=1", "/b?x=1"}, // what is not part of the key isn't sent
		{"/b?x=1", "/b?x=1"},
	} {
		e.get(c.target).wants(t, 200, c.is)
	}
}

func TestHosts(t *testing.T) { overProtocols(t, testHosts) }

func testHosts(t *testing.T, p protocol) {
	e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=1000")
		_, _ = io.WriteString(w, r.Host)
	})
	e.get("/a").wants(t, 200, "www.example")
	port := ":80"
	if p.secure() {
		port = ":443"
	}
	for _, host := range []string{"WWW.EXAMPLE", "www.example" + port, "www.example.", "www.example." + port} {
		// the same
		if got := e.get("/a", "Host: "+host); !got.isHit() {
			t.Errorf("%s: %d, %q", host, got.status, got.header["Cache-Status"])
		}
	}
	for _, host := range []string{"example", "other.example", "xwww.example", "www.example.evil", "127.0.0.1",
		"[::1]:80"} {
		got := e.get("/a", "Host: "+host)
		if got.status != 421 || got.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d, %v", host, got.status, got.header)
		}
	}
	e.wantHits(1)
	// Another port is another origin (RFC 9110, 4.3.1), and what it answers may say so.
	e.get("/a", "Host: www.example:8080").wants(t, 200, "www.example:8080")
	for _, host := range []string{"[::1", "www.example:b:c", "www.example:99999", "www.example%zz", "www,example",
		"www.example:80x"} {
		if got := e.get("/a", "Host: "+host); got.status != 400 {
			t.Errorf("%s: %d", host, got.status)
		}
	}
	e.wantHits(2)
}

// Two hosts of a site have stores of their own; a site without hosts answers for any.
func TestHostsApart(t *testing.T) { overProtocols(t, testHostsApart) }

func testHostsApart(t *testing.T, p protocol) {
	h := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=1000")
		_, _ = io.WriteString(w, r.Host)
	}
	for name, hosts := range map[string][]string{"two": {"a.example", "b.example", "www.example"}, "any": nil} {
		t.Run(name, func(t *testing.T) {
			e := p.newEdge(t, h, func(_ *Server, s *site.Site) { s.Hosts = hosts })
			for range 2 {
				e.get("/", "Host: a.example").wants(t, 200, "a.example")
				e.get("/", "Host: b.example").wants(t, 200, "b.example")
			}
			e.wantHits(2)
		})
	}
}

func TestSetSites(t *testing.T) { overProtocols(t, testSetSites) }

func testSetSites(t *testing.T, p protocol) {
	e := p.newEdge(t, static("x", "Cache-Control: max-age=1000"))
	e.get("/").wants(t, 200, "x")
	e.Sites.Set(nil)
	if got := e.get("/"); got.status != 421 {
		t.Errorf("without sites: %d", got.status)
	}
	e.Sites.Set([]*site.Site{e.site})
	if got := e.get("/"); !got.isHit() {
		t.Errorf("with the site again: %d, %q", got.status, got.header["Cache-Status"])
	}
}

func TestSizeLimits(t *testing.T) { overProtocols(t, testSizeLimits) }

func testSizeLimits(t *testing.T, p protocol) {
	e := p.newEdge(t, static("x"))
	at := "/" + strings.Repeat("a", front.MaxURL-1)
	e.get(at).wants(t, 200, "x")
	if got := e.get(at + "a"); got.status != 414 {
		t.Errorf("a target of %d bytes: %d", front.MaxURL+1, got.status)
	}
	if got := e.raw("GET / HTTP/1.1\r\nHost: www.example\r\nX-Large: " + strings.Repeat("a", 2*front.MaxHeaderBytes) +
		"\r\n\r\n"); got.status != 431 {
		t.Errorf("a header block of %d bytes: %d", 2*front.MaxHeaderBytes, got.status)
	}
	e.wantHits(1)
}
