package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kaiku-cdn/kaiku/fleet"
)

// testRotation is a rotation in which nodes are files in a folder. It stops before one of
// its events.
type testRotation struct {
	rotation
	t      *testing.T
	nodes  []string // files
	stopAt int      // number of the event; 0 means none
	events int
	told   strings.Builder
}

var errStop = errors.New("stopped by the test")

func newTestRotation(t *testing.T, stages []stage, text string) *testRotation {
	dir := t.TempDir()
	r := &testRotation{t: t, rotation: rotation{file: filepath.Join(dir, "secret"), stages: stages,
		again: "kaiku rotate x"}}
	write := func(file string) {
		if err := os.WriteFile(file, []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	write(r.file)
	for i := range 3 {
		r.nodes = append(r.nodes, filepath.Join(dir, fmt.Sprint("node", i)))
		write(r.nodes[i])
	}
	event := func() error {
		if r.events++; r.events == r.stopAt {
			return errStop
		}
		return nil
	}
	r.say = func(format string, a ...any) { fmt.Fprintf(&r.told, format+"\n", a...) }
	r.before = func(context.Context) (bool, bool, error) {
		other := r.behind()
		return other, other, event()
	}
	r.deploy = func(context.Context) error {
		for _, n := range r.nodes {
			if err := event(); err != nil {
				return err
			}
			if err := os.WriteFile(n, []byte(r.read(r.file)), 0o600); err != nil {
				t.Fatal(err)
			}
			r.wantKnown()
		}
		return nil
	}
	r.taken = func(_ context.Context, secret string) error {
		for _, n := range r.nodes {
			if !strings.Contains(r.read(n), secret) {
				t.Errorf("%s is said to have the new secret, and has %q", n, r.read(n))
			}
		}
		return event()
	}
	return r
}

// behind reports whether some node has another version of the file.
func (r *testRotation) behind() bool {
	return slices.ContainsFunc(r.nodes, func(n string) bool { return r.read(n) != r.read(r.file) })
}

func (r *testRotation) read(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		r.t.Fatal(err)
	}
	return string(b)
}

// wantKnown checks that each node accepts the operator's secret and, for keys, every other node's.
func (r *testRotation) wantKnown() {
	all := append([]string{r.file}, r.nodes...)
	secrets := make([][]string, len(all))
	for i, file := range all {
		var err error
		if secrets[i], err = fleet.SplitSecrets([]byte(r.read(file))); err != nil {
			r.t.Fatal(err)
		}
	}
	for i := range all {
		for j := range all {
			if i > 0 && (j == 0 || len(r.stages) == len(keyStages)) && !slices.Contains(secrets[i], secrets[j][0]) {
				r.t.Errorf("%s, which accepts %q, is shown %q by %s", all[i], secrets[i], secrets[j][0], all[j])
			}
		}
	}
}

// Wherever a rotation is stopped, a second run completes it, with one new secret. On the way, no
// node refuses another.
func TestRotation(t *testing.T) {
	for what, stages := range map[string][]stage{"key": keyStages, "token": tokenStages} {
		for stopAt := 0; ; stopAt++ {
			r := newTestRotation(t, stages, "# of 2026\nold\n")
			r.stopAt = stopAt
			err := r.run(t.Context())
			stopped := errors.Is(err, errStop)
			if err != nil && !stopped {
				t.Fatalf("%s, stopped at %d: %v", what, stopAt, err)
			}
			if stopped && stopAt > 1 && !strings.Contains(err.Error(), "to continue, run kaiku rotate x") {
				t.Errorf("%s, stopped at %d: %v", what, stopAt, err)
			}
			r.wantKnown()
			var begun string // the new secret, once it is in a file
			for _, s := range strings.Fields(strings.ReplaceAll(r.read(r.file), "# of 2026", "")) {
				if len(s) == 44 {
					begun = s
				}
			}
			if stopped {
				if err := r.run(t.Context()); err != nil {
					t.Fatalf("%s, stopped at %d, goes on: %v", what, stopAt, err)
				}
			}
			secrets, err := fleet.SplitSecrets([]byte(r.read(r.file)))
			if err != nil || len(secrets) != 1 || len(secrets[0]) != 44 || begun != "" && secrets[0] != begun {
				t.Errorf("%s, stopped at %d: the new secret is %q, was %q, %v", what, stopAt, secrets, begun, err)
			}
			if text := r.read(r.file); text != secrets[0]+"\n# of 2026\n" {
				t.Errorf("%s, stopped at %d: the file has\n%s", what, stopAt, text)
			}
			if r.behind() {
				t.Errorf("%s, stopped at %d: nodes have another secret", what, stopAt)
			}
			if info, err := os.Stat(r.file); err != nil || info.Mode() != 0o640 {
				t.Errorf("the mode of the file is %v, %v", info.Mode(), err)
			}
			if list, _ := filepath.Glob(filepath.Dir(r.file) + "/.*"); len(list) > 0 {
				t.Errorf("files were left: %q", list)
			}
			if stopAt > 0 && !stopped { // there were fewer events
				break
			}
		}
	}
}

// With --step, a rotation does one step at a time. Before the last step, it asks whether to give up
// the old secret.
func TestRotationSteps(t *testing.T) {
	r := newTestRotation(t, keyStages, "old\n")
	r.once = true
	for i, want := range []string{"old %s # kaiku rotate: step 1 of 3", "%s old # kaiku rotate: step 2 of 3", "%s"} {
		if err := r.run(t.Context()); err != nil {
			t.Fatal(err)
		}
		fields := strings.Fields(r.read(r.file))
		n := fields[0]
		if i == 0 {
			n = fields[1]
		}
		if got := strings.Join(fields, " "); !strings.HasPrefix(got, fmt.Sprintf(want, n)) || len(n) != 44 ||
			i < 2 && !strings.HasSuffix(got, "to continue, run kaiku rotate x") {
			t.Errorf("after step %d: %q", i+1, got)
		}
	}
	r = newTestRotation(t, tokenStages, "old\n")
	answer := false
	r.sure = func() (bool, error) { return answer, nil }
	for range 2 { // a repetition must change nothing
		if err := r.run(t.Context()); err != nil || !strings.HasPrefix(r.read(r.file), "old\n") {
			t.Fatalf("the old secret is given up without an answer: %v, %q", err, r.read(r.file))
		}
	}
	if n := strings.Count(r.told.String(), "nodes will accept the new secret"); n != 1 {
		t.Errorf("the first step is done %d times", n)
	}
	answer = true
	if err := r.run(t.Context()); err != nil || strings.Contains(r.read(r.file), "old") {
		t.Errorf("with the answer: %v, %q", err, r.read(r.file))
	}
}

// A rotation refuses a file that kaiku rotate did not write.
func TestRotationOfAnEditedFile(t *testing.T) {
	for text, says := range map[string]string{
		"": "no secret", "a\nb\n": "2 secrets, but not from kaiku rotate",
		"a\n# kaiku rotate: step 1 of 3\n":    "in the middle of a rotation",
		"a\nb\n# kaiku rotate: step 3 of 3\n": "no step", "a\nb\n# kaiku rotate: step x\n": "no step",
		"a\nb\nc\n# kaiku rotate: step 1 of 3\n": "3 secrets",
	} {
		r := newTestRotation(t, keyStages, text)
		if err := r.run(t.Context()); err == nil || !strings.Contains(err.Error(), says) || r.events > 0 ||
			r.read(r.file) != text {
			t.Errorf("%q: %v after %d events, %q", text, err, r.events, r.read(r.file))
		}
	}
}
