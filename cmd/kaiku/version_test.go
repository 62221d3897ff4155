package main

import (
	"runtime/debug"
	"strings"
	"testing"
)

func TestVersion(t *testing.T) {
	t.Parallel()
	built := &debug.BuildInfo{GoVersion: "go1.26.1", Settings: []debug.BuildSetting{
		{Key: "vcs.revision", Value: "c0ffee"}, {Key: "vcs.time", Value: "2026-11-27T22:44:14Z"}, {Key: "vcs.modified",
			Value: "true"}}}
	for want, info := range map[string]*debug.BuildInfo{
		"kaiku v1\ncommit: c0ffee (with uncommitted changes)\ndate: 2026-11-27T22:44:14Z\ngo: go1.26.1\n": built,
		"kaiku v1\ncommit: unknown\ndate: unknown\ngo: go1.26.1\n": {
			GoVersion: "go1.26.1"},
	} {
		if got := versionText("v1", info); got != want {
			t.Errorf("got\n%swant\n%s", got, want)
		}
	}
	out, err := command(t, "version")
	if lines := strings.Split(out, "\n"); err != nil || len(lines) != 5 || !strings.HasPrefix(lines[0], "kaiku ") ||
		!strings.HasPrefix(lines[3], "go: go1.") {
		t.Errorf("%v\n%s", err, out)
	}
}
