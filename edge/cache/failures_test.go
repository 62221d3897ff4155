package cache

import (
	"fmt"
	"testing"

	"github.com/kaiku-cdn/kaiku/origin"
)

// However many keys fail, some are remembered.
func TestFailuresAreBounded(t *testing.T) {
	var f failures
	if f.get("a") != nil {
		t.Error("something is known of a key at first")
	}
	f.forget("a")
	for i := range 10 * maxFailures {
		f.set(fmt.Sprint(i), origin.Failure{Error: fmt.Sprint(i)})
		f.set(fmt.Sprint(i), origin.Failure{Error: fmt.Sprint(i, " again")})
		if i%3 == 0 {
			f.forget(fmt.Sprint(i))
		}
	}
	if len(f.slots) > maxFailures || len(f.byKey) > maxFailures {
		t.Errorf("%d failures of %d keys", len(f.slots), len(f.byKey))
	}
	for i := range 10 * maxFailures {
		got := f.get(fmt.Sprint(i))
		if late := i >= 9*maxFailures && i%3 != 0; late != (got != nil) || got != nil &&
			got.Error != fmt.Sprint(i, " again") {
			t.Fatalf("of key %d: %+v", i, got)
		}
	}
}
