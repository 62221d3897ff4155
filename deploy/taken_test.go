package deploy

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"
)

func TestRuns(t *testing.T) {
	for _, c := range []struct {
		status, sum string
		err         string // "" means no error
	}{
		{"", "a1", ""}, {"runs something", "a1", ""}, {Taken("a1"), "a1", ""}, {Taken("a1"), "", ""},
		{Taken("b2"), "a1", "it has not loaded the new fleet file yet"},
		{Taken("a12"), "a1", "it has not loaded the new fleet file yet"},
		{NotTaken("b2", "a1", errors.New("line 3\nmore")), "a1", "refused: it refused the new fleet file: line 3"},
		{NotTaken("b2", "c3", errors.New("line 3")), "a1", "it has not loaded the new fleet file yet"},
		{NotTaken("a1", "c3", errors.New("line 3")), "a1", ""},
		{NotTaken("a1", "a1", errors.New("no token")), "a1", "refused: it refused the new fleet file: no token"},
	} {
		if err := checkStatus(c.status, c.sum); (err == nil) != (c.err == "") || err != nil && err.Error() != c.err {
			t.Errorf("%q, %s: %v, want %s", c.status, c.sum, err, c.err)
		}
	}
}

// A node is not healthy while its process has not taken the new fleet file or has rejected it.
func TestReloadIsWaitedFor(t *testing.T) {
	f := newTestFleet(t, "hel1")
	n := f.nodes["hel1"]
	for i := range f.Nodes {
		f.Nodes[i].Files[0].Effect = func([]byte) Effect { return Reload }
	}
	f.deploy(t)
	pid, before := n.pid(), n.read("/etc/kaiku/fleet.yaml")
	out := &watchedOutput{news: make(chan struct{}, 1)}
	f.Out, f.Tell = out, time.Millisecond
	setConfig(f, "slow: 1\nsick: 1\n")
	ctx, cancel := context.WithCancel(t.Context())
	waited := make(chan error, 1)
	go func() {
		err := out.wait(ctx, "hel1: still waiting for it to be well: it has not loaded the new fleet file yet (")
		waited <- errors.Join(err, os.WriteFile(n.root+"/run/go", nil, 0o600))
	}()
	if _, r, err := f.tryDeploy(t.Context()); err == nil || r.Nodes[0].Outcome != "put back" ||
		!strings.Contains(err.Error(), `it says "sick"`) {
		t.Fatalf("a file with which it is sick: %v, %+v", err, r)
	}
	cancel()
	if err := <-waited; err != nil {
		t.Error(err)
	}
	f.Limit = time.Hour
	setConfig(f, "broken: 1\n")
	_, r, err := f.tryDeploy(t.Context())
	if err == nil || !strings.Contains(err.Error(),
		"node hel1: refused: it refused the new fleet file: fleet.yaml is broken") ||
		r.Nodes[0].Outcome != "put back" {
		t.Errorf("a file that it can't take: %v, %+v", err, r)
	}
	if n.pid() != pid || n.read("/etc/kaiku/fleet.yaml") != before {
		t.Errorf("put back by another process: %d was %d", n.pid(), pid)
	}
}
