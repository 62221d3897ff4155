package edge

import (
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/kaiku-cdn/kaiku/edge/purge"
	"github.com/kaiku-cdn/kaiku/edge/site"
)

// loopback lets every test client purge.
func purgeFromLoopback(s *Server, _ *site.Site) {
	s.PurgeFrom = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
}

const varnishPaths = "/a /a?x=1 /a/b /c" // what is stored before each purge

// varnishPurges are the requests that the plugins for Varnish send, and what each makes gone.
var varnishPurges = []struct {
	name, request string   // method and target
	fields        []string // of the request
	gone          string
	status        int
}{
	{"PURGE", "PURGE /a", nil, "/a", 200},
	{"PURGE with a query", "PURGE /a?x=1", nil, "/a?x=1", 200},
	{"PURGE with a port", "PURGE /a", []string{"Host: WWW.example:8080"}, "/a", 200},
	{"soft", "PURGE /a", []string{"Fastly-Soft-Purge: 1"}, "/a", 200},
	{"PURGE of another host", "PURGE /a", []string{"Host: other.example"}, "", 421},
	{"Surrogate-Key", "PURGE /", []string{"Surrogate-Key: one three"}, "/a /c", 200},
	{"no Surrogate-Key", "PURGE /a", []string{"Surrogate-Key:"}, "", 400},
	{"xkey-purge", "PURGE /", []string{"xkey-purge: one,three"}, "/a /c", 200},
	{"xkey-softpurge", "PURGE /", []string{"xkey-softpurge: two"}, "/a?x=1", 200},
	{"both", "PURGE /", []string{"xkey-softpurge: two", "xkey-purge: one"}, "", 400},
	// WordPress, Proxy Cache Purge.
	{"WordPress all", "PURGE /.*", []string{"X-Purge-Method: regex"}, varnishPaths, 200},
	{"WordPress prefix", "PURGE /a/.*", []string{"X-Purge-Method: regex"}, "/a/b", 200},
	{"WordPress page", "PURGE /a", []string{"X-Purge-Method: default"}, "/a", 200},
	{"WordPress exact", "PURGE /a", []string{"X-Purge-Method: exact"}, "/a", 200},
	{"WordPress BAN", "BAN /.*", []string{"X-Purge-Method: regex"}, varnishPaths, 200},
	{"another method", "PURGE /a", []string{"X-Purge-Method: fuzzy"}, "", 400},
	{"a regex in the middle", "PURGE /a.*b", []string{"X-Purge-Method: regex"}, "", 400},
	{"a regex without ends", "PURGE /a", []string{"X-Purge-Method: regex"}, "", 400},
	// Drupal, varnish_purge.
	{"Drupal", "BAN /", []string{"Cache-Tags: one|three"}, "/a /c", 200},
	{"Drupal one", "BAN /", []string{"Cache-Tags: two"}, "/a?x=1", 200},
	{"Drupal zero configuration", "BAN /", []string{"Purge-Cache-Tags: (^|\\s)(one|two)(\\s|$)"}, "/a /a?x=1", 200},
	{"Drupal URL", "BAN /a", nil, "/a", 200},
	{"Drupal wildcard", "BAN /a.*", nil, "/a /a?x=1 /a/b", 200},
	// Magento 2.
	{"Magento", "PURGE /", []string{"X-Magento-Tags-Pattern: ((^|,)one(,|$))"}, "/a", 200},
	{"Magento several", "PURGE /", []string{"X-Magento-Tags-Pattern: ((^|,)one(,|$))|((^|,)two(,|$))"}, "/a /a?x=1",
		200},
	{"Magento all", "PURGE /", []string{"X-Magento-Tags-Pattern: .*"}, varnishPaths, 200},
	{"Magento nothing", "PURGE /", []string{"X-Magento-Tags-Pattern:"}, "", 400},
	{"Magento pool", "PURGE /", []string{"X-Pool: cat"}, "", 400},
	// FOSHttpCache.
	{"FOS tags", "BAN /", []string{"X-Cache-Tags: (^|,)(one|th\\ree)(,|$)"}, "", 400},
	{"FOS tags, quoted", "BAN /", []string{"X-Cache-Tags: (^|,)(one|t\\-\\:4)(,|$)", "X-Host: .*", "X-Url: .*",
		"X-Content-Type: .*"}, "/a /a/b", 200},
	{"FOS tags, before 2", "BAN /", []string{"X-Cache-Tags: (one|three)(,.+)?$"}, "/a /c", 200},
	{"FOS tags of a host", "BAN /", []string{"X-Cache-Tags: (one)(,.+)?$", "X-Host: ^www"}, "", 400},
	{"FOS path", "BAN /", []string{"X-Url: ^/a/.*$", "X-Host: .*", "X-Content-Type: .*"}, "/a/b", 200},
	{"FOS exact path", "BAN /", []string{"X-Url: ^/a$", "X-Host: ^(www.example|static.example)$",
		"X-Content-Type: .*"}, "/a", 200},
	{"FOS all", "BAN /", []string{"X-Url: .*", "X-Host: .*", "X-Content-Type: .*"}, varnishPaths, 200},
	{"FOS host", "BAN /", []string{"X-Url: .*", "X-Host: ^static.example$", "X-Content-Type: .*"}, "", 200},
	{"FOS other host", "BAN /", []string{"X-Url: .*", "X-Host: ^other.example$"}, "", 400},
	{"FOS bad host", "BAN /", []string{"X-Url: .*", "X-Host: (("}, "", 400},
	{"FOS type", "BAN /", []string{"X-Url: .*", "X-Host: .*", "X-Content-Type: image/.*"}, "", 400},
	{"FOS suffix", "BAN /", []string{"X-Url: .*png$", "X-Host: .*"}, "", 400},
	{"FOS xkey", "PURGEKEYS /", []string{"xkey-softpurge: one two"}, "/a /a?x=1", 200},
}

// Each purge of a plugin for Varnish removes what it is to, and nothing else.
func TestPurgeInVarnishForm(t *testing.T) {
	for _, c := range varnishPurges {
		t.Run(c.name, func(t *testing.T) {
			e := newEdge(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Cache-Control", "max-age=1000")
				fields := map[string][2]string{"/a": {"X-Magento-Tags", "zero,one"}, "/a?x=1": {"xkey", "zero two"},
					"/a/b": {"X-Cache-Tags", "t-:4,five"}, "/c": {"Cache-Tags", "three four"}}
				w.Header().Set(fields[r.RequestURI][0], fields[r.RequestURI][1])
				_, _ = io.WriteString(w, r.RequestURI)
			}, purgeFromLoopback, func(_ *Server, site *site.Site) {
				site.Hosts = append(site.Hosts, "static.example")
			})
			for path := range strings.FieldsSeq(varnishPaths) {
				got := e.get(path)
				got.wants(t, 200, path)
				for _, name := range []string{"X-Magento-Tags", "Xkey", "X-Cache-Tags", "Cache-Tags"} {
					if got.header[name] != nil {
						t.Errorf("a client sees %s: %v", name, got.header[name])
					}
				}
			}
			method, target, _ := strings.Cut(c.request, " ")
			got := e.do(e.request(method, target, "", c.fields...))
			if got.status != c.status || c.status == 200 && got.body != "Purged\n" || len(got.body) < 5 {
				t.Fatalf("%d, %s", got.status, got.body)
			}
			e.wantHits(4)
			for path := range strings.FieldsSeq(varnishPaths) {
				got := e.get(path)
				if gone := slices.Contains(strings.Fields(c.gone), path); got.isHit() == gone {
					t.Errorf("%s: hit %v after the purge", path, got.isHit())
				} else if soft := strings.Contains(strings.ToLower(strings.Join(c.fields, " ")),
					"soft"); gone && (got.cacheStatus()["fwd"] == "stale") != soft {
					t.Errorf("%s: %s", path, got.header["Cache-Status"])
				}
			}
		})
	}
}

func TestWhoMayPurgeInVarnishForm(t *testing.T) {
	for _, c := range []struct {
		name    string
		change  func(*Server, *site.Site)
		request string
		fields  []string
		status  int
		passed  bool // the origin was asked
	}{
		{"nothing configured", func(*Server, *site.Site) {}, "PURGE /a", nil, 200, true},
		{"nothing configured, BAN", func(*Server, *site.Site) {}, "BAN /a", nil, 200, true},
		{"nothing configured, but a token sent", func(*Server, *site.Site) {}, "PURGE /a",
			[]string{"Authorization: Bearer x"}, 200, true},
		{"another network", func(s *Server,
			_ *site.Site) {
			s.PurgeFrom = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
		}, "PURGE /a", nil, 403, false},
		{"another network that is claimed",
			func(s *Server, _ *site.Site) { s.PurgeFrom = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")} },
			"PURGE /a",
			[]string{"X-Forwarded-For: 10.0.0.1", "Forwarded: for=10.0.0.1", "X-Real-IP: 10.0.0.1"}, 403, false},
		{"no token", func(s *Server, _ *site.Site) { s.Tokens.Set([]purge.Token{full("t")}) }, "BAN /a", nil, 403,
			false},
		{"an empty token", func(s *Server,
			_ *site.Site) {
			s.PurgeFrom = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
		}, "BAN /a", []string{"Authorization: Bearer "}, 403, false},
		{"a wrong token", func(s *Server, _ *site.Site) { s.Tokens.Set([]purge.Token{full("t")}) }, "PURGE /a",
			[]string{"Authorization: Bearer u"}, 403, false},
		{"the token", func(s *Server, _ *site.Site) { s.Tokens.Set([]purge.Token{full("t")}) }, "PURGE /a",
			[]string{"Authorization: Bearer t"}, 200, false},
		{"a token to read", func(s *Server,
			_ *site.Site) {
			s.Tokens.Set([]purge.Token{{Secret: "t", Scopes: []string{purge.ScopeRead}}})
		}, "PURGE /a", []string{"Authorization: Bearer t"}, 403, false},
		{"a token of the site", func(s *Server, _ *site.Site) {
			s.Tokens.Set([]purge.Token{{Secret: "t", Scopes: []string{purge.ScopePurge}, Sites: []string{"www"}}})
		}, "PURGE /a", []string{"Authorization: Bearer t"}, 200, false},
		{"a token of another site", func(s *Server, _ *site.Site) {
			s.Tokens.Set([]purge.Token{{Secret: "t", Scopes: []string{purge.ScopePurge}, Sites: []string{"x"}}})
		}, "PURGE /a", []string{"Authorization: Bearer t"}, 403, false},
		{"tags with a token of the site", func(s *Server, _ *site.Site) {
			s.Tokens.Set([]purge.Token{{Secret: "t", Scopes: []string{purge.ScopePurge}, Sites: []string{"www"}}})
		}, "PURGE /",
			[]string{"Authorization: Bearer t", "xkey-purge: a"}, 403, false},
		{"other methods go on", purgeFromLoopback, "LINK /a", nil, 200, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := newEdge(t, static("x"), c.change)
			method, target, _ := strings.Cut(c.request, " ")
			got := e.do(e.request(method, target, "", c.fields...))
			if got.status != c.status || (e.hits.Load() == 1) != c.passed || got.body == "" {
				t.Errorf("%d, %s, the origin was asked %d times", got.status, got.body, e.hits.Load())
			}
		})
	}
}

// An edge for any host has no list that an expression over hosts could be matched with.
func TestPurgeInVarnishFormOfAnyHost(t *testing.T) {
	e := newEdge(t, static("x", "Cache-Control: max-age=1000"), purgeFromLoopback,
		func(_ *Server, site *site.Site) { site.Hosts = nil })
	for _, c := range []struct {
		fields string // of a BAN
		status int
		gone   string // hosts
	}{
		{"X-Host: .*|X-Url: .*", 400, ""},
		{"X-Host: ^www|X-Url: [a]", 400, ""},
		{"X-Host: ^(a.example;b.example)$|X-Url: .*", 200, "a.example b.example"},
		{"X-Host: ^b\\.example$|X-Url: ^/p", 200, "b.example"},
		{"X-Host: a/b|X-Url: ^/p", 400, ""},
		{"X-Magento-Tags-Pattern: .*", 200, "a.example b.example c.example"},
	} {
		for host := range strings.FieldsSeq("a.example b.example c.example") {
			e.get("/p", "Host: "+host)
		}
		fields := []string{"Host: c.example"}
		for f := range strings.SplitSeq(c.fields, "|") {
			fields = append(fields, strings.ReplaceAll(f, ";", "|"))
		}
		if got := e.do(e.request("BAN", "/", "", fields...)); got.status != c.status {
			t.Errorf("%s: %d, %s", c.fields, got.status, got.body)
		}
		for host := range strings.FieldsSeq("a.example b.example c.example") {
			if hit := e.get("/p", "Host: "+host).isHit(); hit == slices.Contains(strings.Fields(c.gone), host) {
				t.Errorf("%s: hit of %s: %v", c.fields, host, hit)
			}
		}
	}
}
