package origin

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// A server whose probes are good but that fails what clients ask is ejected for longer each time it
// comes back.
func TestFlapping(t *testing.T) {
	flaps := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/health" {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	defer flaps.Close()
	other := newServer(t, "other")
	const interval = 20 * time.Millisecond
	p := start(t, &Pool{Servers: []Server{at(t, flaps.URL), at(t, other.URL)}, Retries: 1, SlowStart: time.Nanosecond,
		Health: &Health{Path: "/health", Interval: interval, Timeout: time.Second}})
	paused := func() (n uint64, pause time.Duration) {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.all[0].counts.Ejections, p.all[0].paused
	}
	want := interval
	for round := range uint64(5) {
		until(t, "it is ejected again", func() bool {
			if _, err := ask(t, p, request(t, "GET", "/", "")); err != nil {
				t.Fatal(err)
			}
			n, _ := paused()
			return n > round
		})
		if _, got := paused(); got != want {
			t.Errorf("pause %d is %v, want %v", round+1, got, want)
		}
		want *= 2
	}
}
