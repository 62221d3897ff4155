package origin

import "time"

const (
	budgetSeconds = 10 // that the budget looks back
	budgetShare   = 5  // one retry for so many requests
	budgetFloor   = 10 // retries in any budgetSeconds, but no more than there were requests
)

// budget bounds what retries add to the load of a pool: over the last ten seconds at most a fifth
// of the requests, or ten. A request that reached no server costs nothing. The idea is Finagle's
// RetryBudget.
type budget struct {
	slots [budgetSeconds]struct {
		second            int64
		requests, retries int
	}
}

func (b *budget) slot(now time.Time) (requests, retries *int) {
	s := now.Unix()
	slot := &b.slots[s%budgetSeconds]
	if slot.second != s {
		slot.second, slot.requests, slot.retries = s, 0, 0
	}
	return &slot.requests, &slot.retries
}

// request counts a request that is no retry.
func (b *budget) request(now time.Time) {
	requests, _ := b.slot(now)
	*requests++
}

// take reports whether one more retry is within the budget, and counts it if it is.
func (b *budget) take(now time.Time) bool {
	requests, retries := 0, 0
	for i := range b.slots {
		if s := &b.slots[i]; s.second > now.Unix()-budgetSeconds && s.second <= now.Unix() {
			requests += s.requests
			retries += s.retries
		}
	}
	if retries+1 > max(requests/budgetShare, min(budgetFloor, requests)) {
		return false
	}
	_, n := b.slot(now)
	*n++
	return true
}
