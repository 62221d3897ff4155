package config

import (
	"net/http"
	"strings"
	"testing"

	"github.com/kaiku-cdn/kaiku/edge/rules"
)

const rulesFleet = `nodes: { e1: { roles: [edge], location: [60, 25], addresses: [192.0.2.1] } }
sites:
  - name: www
    hosts: [www.example.com]
    origin: { servers: ["http://origin.example"] }
    rules:
`

// Each mistake in a rule is told of where it stands.
func TestMistakesInRules(t *testing.T) {
	for _, c := range []struct{ rule, want string }{
		{"{}",
			"7:9: sites[0].rules[0]: the rule does nothing"},
		{"{ deny: true, redirect: { to: /a } }",
			"want one of deny, respond and redirect"},
		{"{ deny: true, cache: { bypass: true } }",
			"the request ends with this rule"},
		{"{ match: { path: [a] }, deny: true }",
			"sites[0].rules[0].match.path[0]: \"a\" matches no path"},
		{"{ match: { path_regexp: \"(\" }, deny: true }",
			"match.path_regexp: error parsing regexp: missing closing )"},
		{"{ match: { method: [get] }, deny: true }",
			"match.method[0]: \"get\" is not a method"},
		{"{ match: { protocol: [h2] }, deny: true }",
			"match.protocol[0]: \"h2\" is unknown"},
		{"{ match: { host: [\"https://a\"] }, deny: true }",
			"match.host[0]: \"https://a\" is not a host name"},
		{"{ match: { network: [10.0.0.0/99] }, deny: true }",
			"match.network[0]: want a network"},
		{"{ redirect: { to: elsewhere } }",
			"redirect.to: \"elsewhere\" is not a URL"},
		{"{ redirect: { to: /a, status: 200 } }",
			"redirect.status: want 301"},
		{"{ match: { path: [/a/*] }, redirect: { to: /$2 } }",
			"redirect.to: $2 has no capture: the path pattern has 1"},
		{"{ match: { path: [/a/*, /b] }, redirect: { to: /$1 } }",
			"redirect.to: $1 has no capture: the path pattern has 0"},
		{"{ rewrite: { path: a } }",
			"rewrite.path: \"a\" is not a path"},
		{"{ rewrite: {} }",
			"rewrite: want path, query or both"},
		{"{ respond: { status: 99 } }",
			"respond.status: want a final status"},
		{"{ respond: { status: 204, body: x } }",
			"respond.body: a response with status 204 has no body"},
		{"{ response: { set: { Content-Length: \"1\" } } }",
			"response.set.Content-Length: Content-Length is not for rules"},
		{"{ request: { remove: [\"a b\"] } }",
			"request.remove[0]: \"a b\" is not the name of a field"},
		{"{ cache: { ttl: 1h, bypass: true } }",
			"cache.ttl: bypass stores nothing"},
		{"{ basic_auth: { realm: x } }",
			"basic_auth.file: want a file"},
		{"{ name: a, deny: true }\n      - { name: a, deny: true }",
			"8:11: sites[0].rules[1].name: two rules are called a"},
		{"{ origin: spare }",
			"7:11: sites[0].rules[0].origin: the site's origins don't have spare"},
		{"{ cache: { key: {} } }",
			"cache.key: want keep_query, drop_query, header or cookie"},
		{"{ cache: { key: { keep_query: [\"[\"] } } }",
			"cache.key.keep_query[0]: \"[\" is not a pattern"},
		{"{ cache: { key: { header: [\"a b\"] } } }",
			"cache.key.header[0]: \"a b\" is not the name of a field"},
		{"{ cache: { key: { cookie: [a=b] } } }",
			"cache.key.cookie[0]: \"a=b\" is not the name of a cookie"},
		{"{ error_pages: {} }",
			"error_pages.files: want files by status"},
		{"{ error_pages: { files: { 200: a.html } } }",
			"7:35: sites[0].rules[0].error_pages.files: \"200\" is not the status of an error: want 400 to 599"},
		{"{ error_pages: { files: { 404: \"\" } } }",
			"error_pages.files.404: want the name of a file"},
		{"{ deny: true, error_pages: { files: { 403: a.html } } }",
			"the request ends with this rule"},
		{"{ match: { country: [FI] }, deny: true }",
			"7:20: sites[0].rules[0].match.country: the edges have no database of countries: set geodns.geoip"},
		{"{ match: { country: [Finland] }, deny: true }",
			"match.country[0]: \"Finland\" is not a country"},
		{"{ pass: true }",
			"rules[0].pass: unknown key"},
	} {
		_, _, err := Load(writeFleet(t, rulesFleet+"      - "+c.rule+"\n", ""))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s:\n%v\nwant %s", c.rule, err, c.want)
		}
	}
}

func TestSiteRules(t *testing.T) {
	f, _, err := Load(writeFleet(t, rulesFleet+`      - match: { path: [/old/**], query: { a: "" } }
        redirect: { to: "https://$host/new/$1" }
      - response: { set: { x-frame-options: DENY }, remove: [x-powered-by] }
`, ""))
	if err != nil {
		t.Fatal(err)
	}
	set, err := f.SiteRules(&f.Sites[0])
	if err != nil {
		t.Fatal(err)
	}
	r := &rules.Request{Method: "GET", Host: "www.example.com", Path: "/old/x", Query: "?a"}
	o := set.Evaluate(r)
	if o.Response == nil || o.Response.Status != http.StatusFound ||
		o.Response.Header.Get("Location") != "https://www.example.com/new/x" || o.Rules[0] != "1" {
		t.Errorf("the outcome is %+v", o)
	}
	r = &rules.Request{Method: "GET", Host: "www.example.com", Path: "/old/x"}
	h := http.Header{"X-Powered-By": {"a"}}
	for _, change := range set.Evaluate(r).Header {
		change.Apply(h)
	}
	if len(h) != 1 || h.Get("X-Frame-Options") != "DENY" {
		t.Errorf("the fields are %v", h)
	}
}
