package origin

import (
	"testing"
	"time"
)

func TestBudget(t *testing.T) {
	start := time.Unix(1_700_000_000, 0)
	type step struct {
		at              time.Duration
		requests, takes int
		want            int // retries that take allows
	}
	for _, c := range []struct {
		name  string
		steps []step
	}{
		{"nothing was asked", []step{{0, 0, 1, 0}}},
		{"few requests may all be sent again", []step{{0, 3, 9, 3}}},
		{"the floor", []step{{0, 30, 99, 10}}},
		{"a fifth", []step{{0, 1000, 999, 200}}},
		{"a fifth in parts", []step{{0, 100, 99, 20}, {0, 0, 9, 0}, {time.Second, 100, 99, 20}}},
		{"requests of before count", []step{{0, 500, 0, 0}, {9 * time.Second, 0, 999, 100}}},
		{"for ten seconds", []step{{0, 500, 0, 0}, {10 * time.Second, 0, 999, 0}}},
		{"retries of before count too",
			[]step{{0, 50, 99, 10}, {9 * time.Second, 50, 99, 10}, {11 * time.Second, 0, 99, 0}}},
		{"and are forgotten with their requests", []step{{0, 500, 999, 100}, {time.Minute, 50, 99, 10}}},
		{"a slot is used again", []step{{0, 500, 999, 100}, {10 * time.Second, 5, 99, 5},
			{20 * time.Second, 500, 999, 100}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b budget
			for i, s := range c.steps {
				now := start.Add(s.at)
				for range s.requests {
					b.request(now)
				}
				got := 0
				for range s.takes {
					if b.take(now) {
						got++
					}
				}
				if got != s.want {
					t.Errorf("step %d: %d retries, want %d", i, got, s.want)
				}
			}
		})
	}
}

// When every request fails, retries add at most a fifth to the load.
func TestRetriesStayWithinTheBudget(t *testing.T) {
	const total = 1000
	p := &Pool{Retries: 2, Log: discardLog}
	var servers []*testServer
	for range 3 {
		s := newStatusServer(t, 503, "no")
		servers = append(servers, s)
		p.Servers = append(p.Servers, serverAt(t, s.URL))
	}
	startPool(t, p)
	for range total {
		if got, err := fetchBody(t, p, request(t, "GET", "/", "")); got != "no" || err != nil {
			t.Fatalf("%q, %v", got, err)
		}
	}
	n := int64(0)
	for _, s := range servers {
		n += s.requests.Load()
	}
	if n > total*12/10 || n < total*11/10 {
		t.Errorf("%d requests reached the servers for %d", n, total)
	}
	if got := p.Status().Retries; int64(got) != n-total {
		t.Errorf("%d retries are counted, %d were made", got, n-total)
	}
}

// Retries of requests that reached no server need no budget: each request reaches the server that
// is up.
func TestUnsentRequestsCostNoBudget(t *testing.T) {
	up := newServer(t, "up")
	p := startPool(t, &Pool{Servers: []Server{serverAt(t, closedURL(t)), serverAt(t, closedURL(t)),
		serverAt(t, up.URL)}, Retries: 2, Log: discardLog})
	p.mu.Lock()
	for p.budget.request(time.Now()); p.budget.take(time.Now()); { // spends the budget
	}
	p.mu.Unlock()
	if got, err := fetchBody(t, p, request(t, "GET", "/", "")); got != "up" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}
