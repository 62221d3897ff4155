package front

import (
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// A write that holds much memory counts as several. Of three writes that count as 16 each, two may
// wait if the limit is 36.
func TestHeavySenders(t *testing.T) {
	t.Parallel()
	s := writeWatchdog{limit: 9, slow: prometheus.NewCounter(prometheus.CounterOpts{Name: "slow"})}
	var cut []int
	for i := range 3 {
		c := &client{cut: func() error {
			cut = append(cut, i)
			return nil
		}}
		s.begin(&Exchange{watchdog: &s, client: c, weight: weight(4 << 20)}, time.Unix(int64(i), 0))
	}
	if !slices.Equal(cut, []int{0}) || s.len() != 2 {
		t.Errorf("%v are cut, %d wait", cut, s.len())
	}
}
