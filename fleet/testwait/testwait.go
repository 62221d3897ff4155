// Package testwait has tests wait for what other goroutines, processes or nodes bring about.
package testwait

import (
	"testing"
	"time"
)

// longest is how long a condition may take. It is far more than any takes on a busy machine, so a
// test that fails here would never have passed.
const longest = time.Minute

// Until waits until cond returns true, and fails the test if that takes longer than a minute. what
// completes the sentence "waited in vain until". Only the goroutine of the test may call it.
func Until(t testing.TB, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(longest); !cond(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}
