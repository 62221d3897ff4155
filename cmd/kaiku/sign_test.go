package main

import (
	"bytes"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
	"github.com/kaiku-cdn/kaiku/edge/rules"
)

// signedFor returns why an edge with a key would refuse a URL, or "". The client is 203.0.113.7.
func signedFor(t *testing.T, raw, key, param string) string {
	t.Helper()
	target, err := httpcache.ParseURL(strings.TrimSpace(raw))
	if err != nil {
		t.Fatal(err)
	}
	signed, err := rules.NewSigned([][]byte{[]byte(strings.TrimSpace(key))}, param, "")
	if err != nil {
		t.Fatal(err)
	}
	set, err := rules.NewSet([]rules.Rule{{Actions: rules.Actions{Signed: signed}}})
	if err != nil {
		t.Fatal(err)
	}
	o := set.Evaluate(&rules.Request{Method: "GET", Host: target.Host, Path: target.Path, Query: target.Query,
		Client: netip.MustParseAddr("203.0.113.7"), Now: time.Now()})
	if o.Response != nil {
		return o.Response.Reason
	}
	return ""
}

func TestSign(t *testing.T) {
	dir := t.TempDir()
	const key = "0123456789abcdef0123456789abcdef"
	writeFiles(t, dir, map[string]string{"media.key": key + "\n", "fleet.yaml": `sites:
  - { name: www, hosts: [www.example.com], origin: { servers: ["http://127.0.0.1:8000"] },
      rules: [{ match: { path: [/media/**] }, signed: { keys: [media.key], param: sig } }] }
nodes: { hel1: { roles: [edge], location: [60.17, 24.94], addresses: [203.0.113.10] } }
`})
	fleet, file := "--config="+filepath.Join(dir, "fleet.yaml"), "--key="+filepath.Join(dir, "media.key")
	for _, c := range []struct {
		args        []string
		param, says string // says is the reason of a refusal, or what the command fails with
	}{
		{[]string{"https://WWW.example.com:8443/media/a%20b?x=1", fleet}, "sig", ""},
		{[]string{"https://www.example.com/media/7/a?x=1", "--prefix=/media/7/", fleet}, "sig", ""},
		{[]string{"https://example.org/a", file}, "token", ""},
		{[]string{"https://example.org/a", file, "--network=203.0.113.7"}, "token", ""},
		{[]string{"https://example.org/a", file, "--network=198.51.100.0/24"}, "token", rules.SignedNetwork},
		{[]string{"https://example.org/a", fleet}, "", "no site has the host example.org"},
		{[]string{"https://www.example.com/a", fleet}, "", "no rule of the site www wants a signed URL at /a"},
		{[]string{"/a", file}, "", "want an absolute URL"},
		{[]string{"https://example.org/a//b", file}, "", "can't be signed"},
		{[]string{"https://example.org/a", file, "--prefix=/b/"}, "", "does not begin with /b/"},
		{[]string{"https://example.org/a", file, "--prefix=/a"}, "", "begins and ends with /"},
		{[]string{"https://example.org/a", file, "--expires=0s"}, "", "want more than 0s"},
		{[]string{"https://example.org/a", file, "--network=203.0.113.7/24"}, "", "want 203.0.113.0/24"},
		{[]string{"https://example.org/a?token=1", file}, "", "has the parameter token already"},
		{[]string{"https://example.org/a", "--key=" + dir + "/none"}, "", "no such file"},
	} {
		var out bytes.Buffer
		err := run(t.Context(), append([]string{"sign"}, c.args...), &out, &out)
		switch {
		case c.param == "" && (err == nil || !strings.Contains(err.Error(), c.says)):
			t.Errorf("%v: %v, want %s", c.args, err, c.says)
		case c.param == "":
		case err != nil:
			t.Errorf("%v: %v", c.args, err)
		default:
			if why := signedFor(t, out.String(), key, c.param); why != c.says {
				t.Errorf("%v: %s is refused: %q", c.args, out.String(), why)
			}
		}
	}
}

// printsSigned requires that a command prints a URL that was signed with media.key.
func printsSigned(t *testing.T, s *docShell, command, _ string) {
	t.Helper()
	out := s.run(t, command)
	key, err := os.ReadFile(filepath.Join(s.dir, "media.key"))
	if err != nil {
		t.Fatal(err)
	}
	if why := signedFor(t, out, string(key), ""); why != "" {
		t.Errorf("%s\n%s is refused: %s", command, out, why)
	}
}

// scriptSigns requires that a script prints a URL that was signed with media.key. Without its
// interpreter, the script is not run.
func scriptSigns(interpreter string) func(t *testing.T, s *docShell, text string) {
	return func(t *testing.T, s *docShell, text string) {
		if _, err := exec.LookPath(interpreter); err != nil {
			t.Skipf("there is no %s", interpreter)
		}
		writeFiles(t, s.dir, map[string]string{"script": text})
		printsSigned(t, s, interpreter+" script", "")
	}
}

func signedRows() []docRow {
	return []docRow{
		{begins: "openssl rand", alone: true, lines: []docCheck{succeeds}},
		{begins: "sites:", alone: true, text: isFleet("edge")},
		{begins: "kaiku sign", alone: true, lines: []docCheck{printsSigned, printsSigned}},
		{begins: "host=", alone: true, text: scriptSigns("sh")},
		{begins: "<?php", alone: true, text: scriptSigns("php")},
		{begins: "import hmac", alone: true, text: scriptSigns("python3")},
		{begins: "const crypto", alone: true, text: scriptSigns("node")},
	}
}
