package rules

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestCORSOrigins(t *testing.T) {
	c := &CORS{Origins: []string{"https://App.example.com", "https://*.example.net", "http://localhost:3000"},
		Credentials: true}
	if err := c.Check(); err != nil {
		t.Fatal(err)
	}
	for origin, want := range map[string]bool{"https://app.example.com": true, "https://a.b.example.net": true,
		"http://localhost:3000": true, "http://app.example.com": false, "https://app.example.com:8443": false,
		"https://example.net": false, "https://evilexample.net": false, "https://a.example.net.evil.org": false,
		"https://a.example.net:444": false, "null": false, "": false, "*": false,
		"https://evil.org/.example.net": false,
		"https://evil.org?.example.net": false, "https://evil.org@a.example.net": false, "https://.example.net": false,
		"https://app.example.com, https://evil.org": false} {
		h := http.Header{}
		if c.allow(h, origin); (len(h) > 0) != want || want && h.Get(allowOrigin) != origin {
			t.Errorf("%q gets %v", origin, h)
		}
	}
	for _, bad := range []*CORS{{}, {Origins: []string{"app.example.com"}}, {Origins: []string{"https://a/"}},
		{Origins: []string{"null"}}, {Origins: []string{"https://a.*"}}, {Origins: []string{"https://a:443"}},
		{Origins: []string{"*"}, Credentials: true}, {Origins: []string{"*", "https://a"}},
		{Origins: []string{"https://*"}},
		{Origins: []string{"https://a"}, Credentials: true, Headers: []string{"*"}},
		{Origins: []string{"https://u@a"}}} {
		if bad.Check() == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
}

func TestPreflight(t *testing.T) {
	signed, err := NewSigned([][]byte{keyForTest}, "", "")
	if err != nil {
		t.Fatal(err)
	}
	c := &CORS{Origins: []string{"https://a"}, Methods: []string{"GET", "PUT"}, Headers: []string{"X-A"},
		MaxAge: time.Hour,
		Expose: []string{"ETag"}}
	all := &CORS{Origins: []string{"*"}}
	for _, c := range []*CORS{c, all} {
		if err := c.Check(); err != nil {
			t.Fatal(err)
		}
	}
	s := mustSet(t, []Rule{{Name: "all", Actions: Actions{CORS: all}},
		{Name: "signed", Actions: Actions{Signed: signed}},
		{Name: "api", Match: Match{Paths: []Pattern{glob(t, "/api")}}, Actions: Actions{CORS: c}}})
	ask := func(path, origin, method string) *Outcome {
		return s.Evaluate(&Request{Method: method, Path: path, Header: http.Header{"Origin": {origin},
			"Access-Control-Request-Method": {"PUT"}}})
	}
	o := ask("/api", "https://a", "OPTIONS")
	if o.Response == nil || o.Response.Status != 204 || o.By != "api" ||
		o.Response.Header.Get(allowOrigin) != "https://a" ||
		o.Response.Header.Get("Access-Control-Allow-Methods") != "GET, PUT" ||
		o.Response.Header.Get("Access-Control-Max-Age") != "3600" || !strings.Contains(o.Response.Header.Get("Vary"),
		"Origin") {
		t.Errorf("the preflight gets %+v", o.Response)
	}
	if o := ask("/api", "https://b", "OPTIONS"); o.Response.Status != 204 || len(o.Response.Header) != 1 {
		t.Errorf("another origin gets %+v", o.Response)
	}
	if o := ask("/", "https://b", "OPTIONS"); o.By != "all" || o.Response.Header.Get(allowOrigin) != "*" {
		t.Errorf("of the rule for all: %+v", o.Response)
	}
	o = ask("/api", "https://a", "GET")
	h := http.Header{"Vary": {"Accept"}, allowOrigin: {"https://evil"}}
	for _, f := range o.Header {
		f.Apply(h)
	}
	o.AllowOrigin(h, http.Header{"Origin": {"https://a"}})
	if o.Response.Reason != SignedMissing || h.Get(allowOrigin) != "https://a" ||
		!slices.Equal(h["Vary"], []string{"Accept",
			"Origin"}) || h.Get("Access-Control-Expose-Headers") != "ETag" {
		t.Errorf("a page can't read the refusal: %v", h)
	}
	var out Outcome
	open := mustSet(t, []Rule{{Name: "api", Actions: Actions{CORS: c}}})
	if !open.ByOrigin() || !open.Static(&Request{Method: "GET", Path: "/"}, &out) || out.Shape == 0 ||
		open.Static(&Request{Method: "GET", Path: "/", CrossOrigin: true}, &out) {
		t.Error("the hit lane takes the wrong requests")
	}
}
