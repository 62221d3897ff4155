package config

import (
	"strings"
	"testing"
)

func TestCORSRules(t *testing.T) {
	for _, c := range [][2]string{
		{"{ cors: {} }",
			"rules[0].cors.origins: want origins"},
		{"{ cors: { origins: [a.example] } }",
			"7:19: sites[0].rules[0].cors.origins: \"a.example\" is not an origin"},
		{"{ cors: { origins: [\"*\"], credentials: true } }",
			"cors.origins: every page could read"},
		{"{ cors: { origins: [\"https://a\"], methods: [put] } }",
			"cors.methods[0]: \"put\""},
		{"{ cors: { origins: [\"https://a\"], headers: [\"a b\"] } }",
			"cors.headers[0]: \"a b\" is not a name"},
		{"{ security_headers: base }",
			"7:11: sites[0].rules[0].security_headers: \"base\" is unknown"},
		{"{ security_headers: strict, cors: { origins: [\"*\"], expose: [\"*\"], headers: [\"*\"] } }",
			""},
	} {
		rule, want := c[0], c[1]
		_, _, err := Load(writeFleet(t, rulesFleet+"      - "+rule+"\n", ""))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s:\n%v\nwant %s", rule, err, want)
		}
	}
}
