package purge

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/kaiku-cdn/kaiku/edge/site"
	"github.com/kaiku-cdn/kaiku/storage"
)

// textOf is a purge as the log has it.
func textOf(t testing.TB, p Request) string {
	t.Helper()
	b, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// The parts of a large purge are small, and together are the purge.
func TestSplitPurge(t *testing.T) {
	p := Request{All: true, Soft: true, Hosts: []string{"h"}, Prefixes: []string{"p"}}
	for range 100 {
		p.Tags = append(p.Tags, strings.Repeat("t", 10_000))
		p.URLs = append(p.URLs, strings.Repeat("u", 10_000))
	}
	var all Request
	for i, part := range p.Split() {
		if n := len(textOf(t, part)); n > maxEntry+100 {
			t.Errorf("part %d has %d bytes", i, n)
		}
		if !part.Soft {
			t.Errorf("part %d is a hard purge", i)
		}
		all.All, all.Soft = all.All || part.All, true
		all.URLs, all.Tags = append(all.URLs, part.URLs...), append(all.Tags, part.Tags...)
		all.Prefixes, all.Hosts = append(all.Prefixes, part.Prefixes...), append(all.Hosts, part.Hosts...)
	}
	if textOf(t, all) != textOf(t, p) {
		t.Error("the parts are another purge")
	}
	if n := len(Request{All: true}.Split()); n != 1 {
		t.Errorf("a purge of everything has %d parts", n)
	}
}

// A purge is read once: what is done and who may do it come from the same value. What can't be read
// hides nothing of the rest.
func TestParse(t *testing.T) {
	t.Parallel()
	www := &site.Site{Name: "www", Hosts: []string{"www.example", "*.example"}, IgnoreQuery: []string{"utm_*"}}
	shop := &site.Site{Name: "shop", Hosts: []string{"shop.example"}}
	sites := site.NewSet([]*site.Site{www, shop})
	for name, c := range map[string]struct {
		req   Request
		store storage.Purge
		site  string
		of    string // sites that a token has to be for
		fails bool
	}{
		"a URL": {Request{URLs: []string{"https://WWW.example:443/a?utm_x=1&b=2"}},
			storage.Purge{URLs: []string{"www.example/a?b=2"}}, "www", "www", false},
		"a prefix, softly": {Request{Prefixes: []string{"http://shop.example/a"}, Soft: true},
			storage.Purge{Prefixes: []string{"shop.example/a"}, Soft: true}, "shop", "shop", false},
		"hosts": {Request{Hosts: []string{"X.Example", "shop.example"}},
			storage.Purge{Tags: []string{"\x00host x.example", "\x00host shop.example"}}, "", "www shop", false},
		"a tag": {Request{Tags: []string{"t"}}, storage.Purge{Tags: []string{"t"}}, "", "", false},
		"all":   {Request{All: true}, storage.Purge{All: true}, "", "", false},
		"another's host": {Request{URLs: []string{"none.other/", "http://shop.example/"}}, storage.Purge{}, "",
			"shop", true},
		"nothing":            {Request{}, storage.Purge{}, "", "", true},
		"the edge's own tag": {Request{Tags: []string{"\x00host www.example"}}, storage.Purge{}, "", "", true},
	} {
		p, err := Parse(c.req, sites)
		if (err != nil) != c.fails {
			t.Errorf("%s: %v", name, err)
		}
		if !c.fails && (!reflect.DeepEqual(p.Store, c.store) || p.site() != c.site) {
			t.Errorf("%s: does %+v to the site %q, want %+v and %q", name, p.Store, p.site(), c.store, c.site)
		}
		if c.of == "" {
			continue
		}
		g := &Grant{scopes: []string{ScopePurge}, sites: strings.Fields(c.of)}
		if err := g.mayPurge(p); err != nil {
			t.Errorf("%s, with a token for %s: %v", name, c.of, err)
		}
		g.sites = []string{"else"}
		if err := g.mayPurge(p); err == nil {
			t.Errorf("%s, with a token for another site: it may", name)
		}
	}
}
