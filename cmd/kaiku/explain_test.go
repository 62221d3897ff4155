package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/kaiku-cdn/kaiku/edge/cache"
	"github.com/kaiku-cdn/kaiku/origin"
)

// A hint is printed if the failure is this URL's, or if the server is not used now.
func TestExplainHints(t *testing.T) {
	failure := &origin.Failure{Error: "connection refused", Hint: "start it"}
	for _, c := range []struct {
		name, state string
		last        *origin.Failure // of the URL
		says        string
		hints       int
	}{
		{"the server failed another URL", "up", nil,
			"server      http://a is up; earlier, another fetch failed 0001-01-01T00:00:00Z: connection refused", 0},
		{"the server failed this URL", "up", failure,
			"server      http://a is up; last failed 0001-01-01T00:00:00Z: connection refused", 1},
		{"the server is down", "failing", nil,
			"server      http://a is failing; last failed 0001-01-01T00:00:00Z: connection refused", 1},
	} {
		var out bytes.Buffer
		e := cache.Explanation{Key: "k", WhyNot: "purged", LastFailure: c.last,
			Servers: []origin.ServerStatus{{Server: "http://a", State: c.state, LastFailure: failure}}}
		if err := printExplanation(&out, e); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(out.String(), c.says) || strings.Count(out.String(), "start it") != c.hints {
			t.Errorf("%s:\n%s", c.name, out.String())
		}
	}
}
