package deploy

import (
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
)

// Replace can keep a file as it is or refuse the deploy. The node's contents of a secret are not
// shown.
func TestReplace(t *testing.T) {
	f := newTestFleet(t, "hel1", "nyc1")
	f.deploy(t)
	var mu sync.Mutex
	asked := 0
	var answer func(before []byte) (bool, error)
	for i := range f.Nodes {
		key := &f.Nodes[i].Files[1]
		key.Data = []byte("new-secret\n")
		key.Replace = func(before []byte) (bool, error) {
			mu.Lock()
			defer mu.Unlock()
			asked++
			return answer(before)
		}
	}
	f.nodes["nyc1"].write(t, "/etc/kaiku/fleet.key", "own-secret\n")
	answer = func(before []byte) (bool, error) {
		if string(before) == "own-secret\n" {
			return false, errors.New("it is its own")
		}
		return true, nil
	}
	before := f.nodes["hel1"].tree(t, "/etc")
	if _, err := f.Plan(t.Context()); err == nil || err.Error() != "node nyc1: it is its own" {
		t.Errorf("a file that may not be replaced: %v", err)
	}
	if f.nodes["hel1"].tree(t, "/etc") != before {
		t.Error("a refused deploy changed something")
	}
	answer = func(before []byte) (bool, error) { return string(before) != "own-secret\n", nil }
	p, err := f.Plan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	var table strings.Builder
	if _, err := p.WriteTo(&table); err != nil {
		t.Fatal(err)
	}
	for what, said := range map[string]string{"JSON": string(text), "text": table.String(), "output": f.out.String(),
		"commands": f.nodes["hel1"].allCommands()} {
		if strings.Contains(said, "hush") || strings.Contains(said, "secret\n") ||
			strings.Contains(said, "new-secret") {
			t.Errorf("the secret is in the %s:\n%s", what, said)
		}
	}
	if _, err := f.Apply(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if got := f.nodes["hel1"].read("/etc/kaiku/fleet.key"); got != "new-secret\n" {
		t.Errorf("hel1 has %q", got)
	}
	if got := f.nodes["nyc1"].read("/etc/kaiku/fleet.key"); got != "own-secret\n" {
		t.Errorf("nyc1, which keeps its own, has %q", got)
	}
	asked = 0
	if p, err = f.Plan(t.Context()); err != nil || !p.Nothing() || asked != 1 {
		t.Errorf("afterwards %+v is to be done, and %d files were read: %v", p, asked, err)
	}
}
