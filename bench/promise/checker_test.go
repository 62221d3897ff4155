//go:build linux

package promise

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"
)

// The checker finds each kind of violation, and none in what the promise allows.
func TestChecker(t *testing.T) {
	const limit = 10 * time.Second
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(s float64) time.Time { return begin.Add(time.Duration(s * float64(time.Second))) }
	soft := &purge{number: 1, floors: map[string]int{"/a": 2}}
	hard := &purge{number: 2, floors: map[string]int{"/a": 3, "/b": 2}}
	for _, c := range []struct {
		name string
		do   func(*checker)
		want map[string]int
	}{
		{"nothing was purged", func(c *checker) { c.answered(c.ask("e1", "e1", "/a", at(0)), 1) }, nil},
		{"purged, and not applied yet", func(c *checker) {
			c.ack(soft, at(0))
			c.answered(c.ask("e1", "e1", "/a", at(1)), 1)
			c.answered(c.ask("e1", "e1", "/a", at(10)), 1)
		}, nil},
		{"longer than the limit", func(c *checker) {
			c.ack(soft, at(0))
			c.ack(hard, at(5))
			c.answered(c.ask("e1", "e1", "/a", at(10.1)), 1)
			c.answered(c.ask("e1", "e1", "/a", at(10.1)), 2)
			c.answered(c.ask("e1", "e1", "/a", at(15.1)), 2)
			c.answered(c.ask("e1", "e1", "/b", at(15.1)), 2)
		}, map[string]int{kindBound: 2}},
		{"applied", func(c *checker) {
			c.ack(soft, at(0))
			before := c.ask("e1", "e1", "/a", at(0.9))
			c.apply(soft, "e1", at(1))
			c.answered(before, 1)
			c.answered(c.ask("e2", "e2", "/a", at(1.1)), 1)
			c.answered(c.ask("e1", "e1", "/a", at(1.1)), 2)
			c.answered(c.ask("e1", "e1", "/a", at(1.2)), 1)
		}, map[string]int{kindApplied: 1}},
		{"applied in another order", func(c *checker) {
			c.apply(hard, "e1", at(1))
			c.apply(soft, "e1", at(2))
			c.answered(c.ask("e1", "e1", "/a", at(3)), 2)
		}, map[string]int{kindApplied: 1}},
		{"a second machine of the edge", func(c *checker) {
			c.apply(soft, "e2", at(1))
			c.answered(c.ask("e2", "e2b", "/a", at(3)), 1)
		}, map[string]int{kindApplied: 1}},
		{"there and back", func(c *checker) {
			c.answered(c.ask("e1", "e1", "/a", at(0)), 2) // a version whose purge was never acknowledged
			c.answered(c.ask("e1", "e1", "/a", at(0)), 1)
			c.ack(soft, at(0))
			c.answered(c.ask("e1", "e1", "/a", at(1)), 1)
			c.answered(c.ask("e1", "e1", "/a", at(2)), 2)
			c.answered(c.ask("e1", "e1", "/a", at(3)), 1)
		}, map[string]int{kindOrder: 1}},
		{"in the end", func(c *checker) {
			c.ack(soft, at(0))
			c.last(c.ask("e1", "e1", "/a", at(1)), 2)
			c.ack(hard, at(1))
			c.last(c.ask("e1", "e1", "/a", at(1)), 2)
			c.last(c.ask("e1", "e1", "/b", at(1)), 2)
		}, map[string]int{kindLost: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := newChecker(limit)
			c.do(k)
			if got := k.result(); !maps.Equal(got.Kinds, c.want) || got.Violations() != len(got.First) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

// A body has its version. A body that is cut short, mixed or another object's is an error.
func TestVersionOf(t *testing.T) {
	x := object{path: "/g1/o2", size: 20_000}
	whole := body(x, 7)
	if v, err := versionOf(x, whole); v != 7 || err != nil {
		t.Errorf("got %d, %v", v, err)
	}
	mixed := append(slices.Clone(whole[:5000]), body(x, 8)[5000:]...)
	for name, b := range map[string][]byte{"cut": whole[:19_000], "mixed": mixed,
		"longer": append(slices.Clone(whole), 0), "empty": nil,
		"another": body(object{path: "/g1/o3", size: 20_000}, 7)} {
		if v, err := versionOf(x, b); !errors.Is(err, errTorn) {
			t.Errorf("%s: got %d, %v", name, v, err)
		}
	}
}

// Each fault has a unique name, a title, a begin and a heal.
func TestFaults(t *testing.T) {
	seen := map[string]bool{}
	for _, f := range allFaults() {
		if seen[f.name] || f.title == "" || f.begin == nil || f.heal == nil || f.hold > time.Minute {
			t.Errorf("the fault %q is there twice or lacks something", f.name)
		}
		seen[f.name] = true
	}
	if r := (Result{Fault: "x", Kinds: map[string]int{kindTorn: 1},
		First: []Violation{{Kind: kindTorn, Why: "because"}}}); fmt.Sprint(r) == "" || r.Violations() != 1 {
		t.Errorf("got %v", r)
	}
}
