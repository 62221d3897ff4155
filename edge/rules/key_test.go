package rules

import (
	"net/http"
	"strings"
	"testing"
)

// Different values never make the same key, and long ones make none.
func TestKeyValues(t *testing.T) {
	t.Parallel()
	k := &Key{Header: []string{"A", "B"}, Cookie: []string{"c"}}
	seen := map[string]int{}
	for i, h := range []http.Header{
		{}, {"A": {""}}, {"A": {"", ""}}, {"A": {"1"}}, {"B": {"1"}}, {"A": {"1", "2"}}, {"A": {"12"}},
		{"A": {"1"}, "B": {"2"}}, {"Cookie": {"c=1"}}, {"Cookie": {"c=1; c=2"}}, {"Cookie": {"c=12"}},
	} {
		b, ok := k.Append(nil, h)
		if before, twice := seen[string(b)]; !ok || twice {
			t.Errorf("%d: %v has the key of %d", i, h, before)
		}
		seen[string(b)] = i
	}
	for _, h := range []http.Header{{"A": {strings.Repeat("x", 257)}}, {"A": make([]string, 9)},
		{"Cookie": {"c=" + strings.Repeat("x", 257)}}} {
		if _, ok := k.Append(nil, h); ok {
			t.Errorf("%v has a key", h)
		}
	}
}
