package origin

import "time"

const (
	budgetSeconds = 10 // length of the window
	budgetShare   = 5  // one retry for each budgetShare requests
	budgetFloor   = 10 // retries always allowed in the window, but at most as many as requests
)

// budget bounds the load that retries add to a pool. In any ten seconds it allows one retry for
// every five requests, or ten retries if that is more, but never more retries than requests.
// Retries of requests that reached no server are free. Finagle's RetryBudget works like this.
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

// request counts a request that is not a retry.
func (b *budget) request(now time.Time) {
	requests, _ := b.slot(now)
	*requests++
}

// take reports whether the budget allows one more retry. If so, it counts the retry.
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
