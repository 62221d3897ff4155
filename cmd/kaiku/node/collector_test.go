package node

import "testing"

func TestGarbagePercent(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		live, tier uint64 // MiB
		want       int
	}{
		{0, 0, 100}, {20, 0, 100}, {20, 64, 100}, {90, 64, 35}, {300, 256, 20}, {500, 256, 48}, {20_000, 19_000, 20},
	} {
		if got := garbagePercent(c.live<<20, c.tier<<20); got != c.want {
			t.Errorf("%d MiB with a tier of %d: %d %%, want %d", c.live, c.tier, got, c.want)
		}
	}
}
