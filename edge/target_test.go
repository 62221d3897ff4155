package edge

import (
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/net/http2/hpack"

	"github.com/kaiku-cdn/kaiku/edge/site"
)

// echoTarget is an origin that answers with what it was asked for, for long.
func echoTarget(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "max-age=1000")
	_, _ = io.WriteString(w, r.Method+" "+r.Host+" "+r.RequestURI)
}

// anyHost has a site answer for any host.
func anyHost(_ *Server, s *site.Site) { s.Hosts = nil }

// What is no token as a method, and no target, is refused over every protocol before anything else
// is done with it. Most of it is refused by the edge, with a text; what the library refuses has
// none, or is reset.
func TestMalformedTargets(t *testing.T) {
	e := newSecure(t, echoTarget, 1, withPeers, anyHost)
	for name, client := range e.rawClients() {
		t.Run(name, func(t *testing.T) {
			http1 := strings.HasPrefix(name, "HTTP/1.1")
			for _, c := range []struct {
				method, authority, target string
			}{
				{"GE T", "www.example", "/a"},
				{"GET / HTTP/1.1\r\nX: y\r\n\r\nGET", "www.example", "/a"},
				{"GET", "www.example", "/a b"},
				{"GET", "www.example", "/admin HTTP/1.1"},
				{"GET", "www.example", "/a 0123456789abcdef01234567"},
				{"GET", "www.example", "/a\x7f"},
				{"GET", "www.example", "/a#b"},
				{"GET", "www.example", "/a?b#c"},
				{"GET", "www.example", "//a|b"},
				{"GET", "www.example", "*"},
				{"POST", "www.example", "*"},
				{"GET", "b.test", "x:27080/p"},
				{"GET", "www.example.co", "m:18080/x"},
				{"GET", "www.example", "mailto:a@b"},
				{"GET", "www.example", "http:x"},
				{"GET", "www.example", "http:///x"},
				{"GET", "www.example", "ftp://www.example/x"},
				{"GET", "www.example", "http://u:p@www.example/x"},
				{"GET", "www.example", "a"},
				{"GET", "[::1%/ x]", "/a"},
				{"GET", "www..example", "/a"},
				{"GET", "www.example/b", "/a"},
			} {
				if http1 && strings.Contains(c.method, "\r\n") {
					continue // that is two requests
				}
				got := client.ask(rawRequest{method: c.method, authority: c.authority, target: c.target})
				switch {
				case http1 && got.status != 400, !http1 && got.status != 400 && got.err == nil:
					t.Errorf("%s %q of %q: %d, %q, %v", c.method, c.target, c.authority, got.status, got.body, got.err)
				case got.status == 400 && got.header["Cache-Status"] != nil && !strings.HasPrefix(got.body,
					"Bad Request: malformed "):
					t.Errorf("%s %q of %q: the text is %q", c.method, c.target, c.authority, got.body)
				}
			}
			// These are refused by the edge itself.
			for _, target := range []string{"/a#b", "//a|b", "*"} {
				got := client.ask(rawRequest{method: "GET", authority: "www.example", target: target})
				if name == "HTTP/3" && target == "*" {
					continue // which the library resets
				}
				if got.status != 400 || !strings.HasPrefix(got.body, "Bad Request: malformed request target") ||
					!strings.HasPrefix(got.header.Get("Cache-Status"), "hel1; detail=") ||
					got.header.Get("Cache-Control") != "no-store" {
					t.Errorf("GET %s: %+v", target, got)
				}
			}
			if http1 {
				return
			}
			for _, c := range []struct{ method, target string }{{"GET", "/a b"}, {"GET", "/admin HTTP/1.1"}} {
				if got := client.ask(rawRequest{method: c.method, authority: "www.example",
					target: c.target}); got.status != 400 || got.header["Cache-Status"] == nil {
					t.Errorf("%s %s: %+v", c.method, c.target, got)
				}
			}
			if got := client.ask(rawRequest{"GET", "www.example", "/a",
				[]hpack.HeaderField{{Name: "host", Value: "other.example"}}}); got.status != 400 && got.err == nil {
				t.Errorf("a Host that is not the :authority: %+v", got)
			}
		})
	}
	e.wantHits(0)
}

// What browsers and curl send as it is reaches the origin as it is, and is stored apart from what
// looks like it.
func TestTargetsOfEveryProtocol(t *testing.T) {
	e := newSecure(t, echoTarget, 1)
	for name, client := range e.rawClients() {
		for _, target := range []string{"/a|b", "/a%7Cb", "/a^b[c]{d}`<e>\"'\\", "/ä", "/%C3%A4", "/\xff", "/?q=100%",
			"/a?", "/a", "//a", "/a/../b", "/http://a/"} {
			for range 2 {
				got := client.ask(rawRequest{method: "GET", authority: "www.example", target: target})
				got.wants(t, 200, "GET www.example "+target)
				e.settle()
			}
		}
		if t.Failed() {
			t.Fatal(name)
		}
	}
	e.wantHits(2 * 12) // by http and https
}

// The origin is told the host in the form that the key has, so that one that matches exactly never
// answers for another.
func TestHostIsCanonical(t *testing.T) {
	var saw atomic.Pointer[http.Header]
	e := newSecure(t, func(w http.ResponseWriter, r *http.Request) {
		saw.Store(&r.Header)
		echoTarget(w, r)
	}, 1)
	for name, client := range e.rawClients() {
		port := ":443"
		if name == "HTTP/1.1" {
			port = ":80"
		}
		for i, authority := range []string{"WWW.EXAMPLE.", "www.example" + port, "Www.Example.:0" + port[1:],
			"www.example:" + port[1:]} {
			for _, method := range []string{"GET", "POST"} {
				target := "/" + strings.ReplaceAll(name, " ", "-") + string(rune('a'+i))
				got := client.ask(rawRequest{method: method, authority: authority, target: target})
				got.wants(t, 200, method+" www.example "+target)
				h := *saw.Load()
				if h.Get("X-Forwarded-Host") != "www.example" ||
					!strings.HasSuffix(h.Get("Forwarded"), `host="www.example"`) {
					t.Errorf("%s, %s: the origin sees %v", name, authority, h)
				}
				e.settle()
			}
		}
		target := "/" + strings.ReplaceAll(name, " ", "-")
		client.ask(rawRequest{method: "GET", authority: "WWW.example.:8443", target: target}).wants(t, 200,
			"GET www.example:8443 "+target)
		if h := *saw.Load(); h.Get("X-Forwarded-Host") != "www.example:8443" {
			t.Errorf("%s: the origin sees %v", name, h)
		}
		e.settle()
	}
}

// A redirect to https is to what the client asked for, ignored parameters included: scripts of the
// page may read them.
func TestRedirectKeepsTheQuery(t *testing.T) {
	e := newSecure(t, echoTarget, 1,
		func(_ *Server, s *site.Site) { s.Redirect, s.IgnoreQuery = true, []string{"utm_*"} })
	a := e.do(e.request("GET", "/a|b?utm_x=1&y", ""))
	if to := a.header.Get("Location"); a.status != 308 || !strings.HasPrefix(to, "https://www.example:") ||
		!strings.HasSuffix(to, "/a|b?utm_x=1&y") {
		t.Errorf("%d, Location %q", a.status, to)
	}
	e.wantHits(0)
}
