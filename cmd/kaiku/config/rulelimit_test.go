package config

import (
	"strings"
	"testing"

	"github.com/kaiku-cdn/kaiku/edge/rules"
)

func TestLimitRules(t *testing.T) {
	for _, c := range [][2]string{
		{"{ limit: {} }",
			"7:11: sites[0].rules[0].limit: want a rate"},
		{"{ limit: { rate: 1 } }",
			"7:20: sites[0].rules[0].limit.rate: \"1\" is not a rate"},
		{"{ limit: { misses: 5/x } }",
			"limit.misses: \"5/x\" is not a rate"},
		{"{ limit: { rate: 1/s, burst: -1 } }",
			"limit: a burst of -1"},
		{"{ limit: { rate: 1/s, ipv4: 64 } }",
			"limit: want networks of 8 to 32 bits"},
		{"{ limit: { rate: 1/s, header: \"a b\" } }",
			"limit.header: \"a b\" is not the name of a header"},
		{"{ limit: { rate: 1/s, header: A, cookie: b } }",
			"limit: want one of header and cookie"},
		{"{ limit: { rate: 1/s, by: client } }",
			"limit.by: unknown key"},
		{"{ match: { crawler: [al] }, deny: true }",
			"match.crawler[0]: \"al\" is unknown"},
		{"{ basic_auth: { file: a, attempts: 3 } }",
			"basic_auth.attempts: \"3\" is not a rate"},
		{"{ match: { crawler: [ai, search, any] }, limit: { misses: 5/m, cookie: id } }",
			""},
	} {
		rule, want := c[0], c[1]
		_, _, err := Load(writeFleet(t, rulesFleet+"      - "+rule+"\n", ""))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s:\n%v\nwant %s", rule, err, want)
		}
	}
}

// Each limit has a name of its own, by which its counts are kept.
func TestLimitNames(t *testing.T) {
	f, _, err := Load(writeFleet(t,
		rulesFleet+"      - limit: { rate: 1/s }\n      - { name: api, limit: { rate: 2/s } }\n", ""))
	if err != nil {
		t.Fatal(err)
	}
	set, err := f.SiteRules(&f.Sites[0])
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, l := range set.Evaluate(&rules.Request{Path: "/"}).Limits {
		names = append(names, l.Name)
	}
	if strings.Join(names, " ") != "www/1 www/api" {
		t.Errorf("the names are %q", names)
	}
}
