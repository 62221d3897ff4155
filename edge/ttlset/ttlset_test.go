package ttlset

import (
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestKeysAreForgotten(t *testing.T) {
	var n Set
	now := time.Unix(1_000_000, 0)
	n.Put("a", "why", now)
	for _, w := range []struct {
		key   string
		after time.Duration
		want  string
	}{{"a", 0, "why"}, {"b", 0, ""}, {"a", TTL, "why"}, {"a", TTL + 1, ""}, {"a", 0, ""}} {
		if got := n.Get(w.key, now.Add(w.after)); got != w.want {
			t.Errorf("%s after %v: %q, want %q", w.key, w.after, got, w.want)
		}
	}
	n.Put("a", "why", now)
	n.Put("a", "", now)
	if n.Get("a", now) != "" {
		t.Error("what was taken back is still remembered")
	}
	for i := range Max + 100 {
		n.Put(strconv.Itoa(i), "why", now)
	}
	if got := len(n.m); got > Max {
		t.Errorf("%d keys are remembered, want at most %d", got, Max)
	}
}

// What is remembered of keys that clients choose has a bound in bytes.
func TestBytesAreBounded(t *testing.T) {
	var n Set
	now := time.Now()
	long := strings.Repeat("k", 8<<10)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range Max + 1000 {
		n.Put(long+strconv.Itoa(i), "why", now)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grew := int64(after.HeapAlloc) - int64(before.HeapAlloc); grew > 16<<20 {
		t.Errorf("%d keys take %d bytes", Max, grew)
	}
	if n.Get(long+strconv.Itoa(Max+999), now) != "why" || n.Get(long, now) != "" {
		t.Error("keys are mixed up")
	}
}
