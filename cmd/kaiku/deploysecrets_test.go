package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
	"github.com/kaiku-cdn/kaiku/deploy"
	"github.com/kaiku-cdn/kaiku/fleet"
)

// guarded returns the file of a secret as a deploy to some nodes has it, and the deployFleet with
// which that deploy queries nodes.
func guarded(t *testing.T, secret, text string, only ...string) (*deploy.File, *deployFleet) {
	t.Helper()
	fleetFile := writeDeployed(t)
	if err := os.WriteFile(filepath.Join(filepath.Dir(fleetFile), "fleet.key"), []byte(strings.Repeat("z", 40)),
		0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(filepath.Dir(fleetFile), secret), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	f, _, err := config.Load(fleetFile)
	if err != nil {
		t.Fatal(err)
	}
	nodes, err := deployNodes(f, fleetFile)
	if err != nil {
		t.Fatal(err)
	}
	d, err := newDeployFleet(f)
	if err != nil {
		t.Fatal(err)
	}
	d.guardSecrets(nodes, only)
	for i := range nodes[0].Files {
		if f := &nodes[0].Files[i]; f.Path == "/etc/kaiku/"+secret {
			return f, d
		}
	}
	t.Fatalf("a deploy has no %s", secret)
	return nil, nil
}

// A deploy refuses a fleet key that would keep nodes from recognising each other while it rolls. It
// leaves credentials alone.
func TestDeployGuardsFleetKey(t *testing.T) {
	keys := func(letters string) string {
		text := ""
		for _, l := range letters {
			text += strings.Repeat(string(l), 44) + "\n"
		}
		return text
	}
	credential := func(letters string) string {
		k, err := fleet.NewKey([]byte(keys(letters)))
		if err != nil {
			t.Fatal(err)
		}
		text, err := k.Credential("hel1", []string{fleet.RoleEdge}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	for _, c := range []struct {
		what, before, now string
		only              []string
		replaces          bool
		says              string
	}{
		{"the first step", keys("a"), keys("ab"), nil, true, ""},
		{"the second step", keys("ab"), keys("ba"), nil, true, ""},
		{"the third step", keys("ba"), keys("b"), nil, true, ""},
		{"a comment", keys("a"), "# of 2026\n" + keys("a"), nil, true, ""},
		{"no key that a node could run with", "x\n", keys("a"), nil, true, ""},
		{"another key", keys("a"), keys("b"), nil, false, "kaiku rotate fleet-key"},
		{"two steps at once", keys("a"), keys("ba"), nil, false, "kaiku rotate fleet-key"},
		{"a step for some nodes", keys("a"), keys("ab"), []string{"hel1"}, false, "leave out --only"},
		{"the same for some nodes", keys("a"), keys("a"), []string{"hel1"}, true, ""},
		{"a credential", credential("a"), keys("a"), []string{"hel1"}, false, ""},
		{"a credential, made after the first step", credential("ba"), keys("b"), nil, false, ""},
		{"a credential that does not know the new key", credential("a"), keys("ba"), nil, false,
			"kaiku credential --node hel1"},
	} {
		f, _ := guarded(t, "fleet.key", c.now, c.only...)
		replaces, err := f.Replace([]byte(c.before))
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) || err == nil &&
			replaces != c.replaces {
			t.Errorf("%s: %v, %v", c.what, replaces, err)
		}
		if err != nil && (strings.Contains(err.Error(), "aaa") || strings.Contains(err.Error(), "bbb")) {
			t.Errorf("%s: the error has the key: %v", c.what, err)
		}
	}
}

// Nodes are queried with their old tokens too. A changed token restarts nothing.
func TestDeployKnowsOldTokens(t *testing.T) {
	f, d := guarded(t, "admin.token", "new\n")
	if e := f.Effect(nil); e != deploy.Reload {
		t.Errorf("a changed token: %v", e)
	}
	if replaces, err := f.Replace([]byte("old\nolder\n")); err != nil || !replaces {
		t.Errorf("%v, %v", replaces, err)
	}
	if got := strings.Join(d.had.of("hel1"), " "); got != "old older" {
		t.Errorf("hel1 had %q", got)
	}
}
