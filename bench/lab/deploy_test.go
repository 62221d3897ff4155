//go:build linux

package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

func TestAllDone(t *testing.T) {
	const plan = `{"nodes":[{"node":"hel1"},{"node":"nyc1"}]}` + "\n"
	for out, want := range map[string]string{
		plan + `{"nodes":[{"node":"hel1","outcome":"done"},{"node":"nyc1","outcome":"done"}]}`:          "",
		plan + `{"nodes":[{"node":"hel1","outcome":"put back"},{"node":"nyc1","outcome":"untouched"}]}`: "hel1 is put back",
		plan + `{"nodes":[{"node":"hel1","outcome":"done"}]}`: "1 nodes were changed, " +
			"want 2",
		plan: "read the report: EOF",
	} {
		got := ""
		if err := allDone([]byte(out), 2); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s: got %q, want %q", out, got, want)
		}
	}
}

// Every form of the report names a page that failed during a deploy.
func TestDeployLoses(t *testing.T) {
	for failed, want := range map[int]bool{0: true, 1: false} {
		seen := loadResult{Name: "Helsinki", During: loadSum{Visits: 100, Failed: failed, Most: 777}}
		r := &report{Time: "2026-01-01T00:00:00Z",
			Deploy: &deployResult{Took: 90 * time.Second,
				Seen: faultResult{Title: "a deploy", Loads: []loadResult{seen}}}}
		r.judgeAll()
		if len(r.Goals) != 1 || r.Goals[0].Met != want ||
			!strings.HasSuffix(r.Goals[0].Figure, " of 100 failed, in the 1m30s that it took") {
			t.Errorf("%d failed: goals are %+v", failed, r.Goals)
		}
		var text bytes.Buffer
		if err := r.print(&text); err != nil {
			t.Fatal(err)
		}
		for _, s := range []string{text.String(), string(page(r, ""))} {
			if !strings.Contains(s, "777 ms") || strings.Contains(strings.ToLower(s), "not met") == want {
				t.Errorf("%d failed:\n%s", failed, s)
			}
		}
	}
}
