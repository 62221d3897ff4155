package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kaiku-cdn/kaiku/edge/rules"
)

func TestSignedRules(t *testing.T) {
	for rule, want := range map[string]string{
		"{ signed: {} }": "7:11: sites[0].rules[0].signed.keys: 0 keys: want",
		"{ signed: { keys: [a.key], param: \"a b\" } }":     "rules[0].signed.param: \"a b\" is not a name",
		"{ signed: { keys: [a.key], cookie: \"a=b\" } }":    "rules[0].signed.cookie: \"a=b\" is not a name",
		"{ signed: { keys: [a.key], expires: 1h } }":        "rules[0].signed.expires: unknown key",
		"{ signed: { keys: [a.key] }, deny: true }":         "",
		"{ signed: { keys: [a.key, b.key] } }":              "",
		"{ signed: { keys: [a, a, a, a, a, a, a, a, a] } }": "7:21: sites[0].rules[0].signed.keys: 9 keys: want",
	} {
		_, _, err := Load(writeFleet(t, rulesFleet+"      - "+rule+"\n", ""))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s:\n%v\nwant %s", rule, err, want)
		}
	}
}

// The files of keys are read where sites are made, and checked where the fleet file is.
func TestSigningKeys(t *testing.T) {
	file := writeFleet(t, rulesFleet+
		"      - { match: { path: [/a/*] }, signed: { keys: [a.key, b.key], param: sig } }\n", "")
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(filepath.Dir(file), name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	at := &rules.Request{Method: "GET", Host: "www.example.com", Path: "/a/b"}
	write("b.key", "fedcba9876543210")
	for _, c := range [][2]string{{"", "want at least 16"}, {"0123456789abcde\n", "15 bytes: want at least 16"},
		{"0123456789abcdef\n0123456789abcdef", "want one line"}, {"0123456789abcdef\n", ""}} {
		text, want := c[0], c[1]
		write("a.key", text)
		f, _, err := Load(file)
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.SiteRules(&f.Sites[0])
		f.checkFiles()
		_, key, err2 := f.Signing(at)
		for _, err := range []error{err, f.file.failure(), err2} {
			if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
				t.Errorf("%q: %v, want %s", text, err, want)
			}
		}
		if want == "" && string(key) != "0123456789abcdef" {
			t.Errorf("the key is %q", key)
		}
	}
	f, _, err := Load(file)
	if err != nil {
		t.Fatal(err)
	}
	if param, _, err := f.Signing(at); param != "sig" || err != nil {
		t.Errorf("the parameter is %q, %v", param, err)
	}
	for _, r := range []rules.Request{{Host: "www.example.com", Path: "/b"}, {Host: "example.com", Path: "/a/b"}} {
		if _, _, err := f.Signing(&r); err == nil {
			t.Errorf("%s%s can be signed", r.Host, r.Path)
		}
	}
}
