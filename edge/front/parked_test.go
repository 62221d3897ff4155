package front

import (
	"net/http"
	"testing"
)

// A body counts as what the windows admit of it, and its release takes all of that back.
func TestParkedBytes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		proto  int
		length int64
		want   [3]int64 // after each of three requests on a connection
	}{
		{1, 1 << 30, [3]int64{}},
		{2, 0, [3]int64{}},
		{2, 1000, [3]int64{1000, 2000, 3000}},
		{2, -1, [3]int64{256 << 10, 512 << 10, 768 << 10}},
		{3, 1 << 30, [3]int64{1 << 20, 2 << 20, 2 << 20}},
	} {
		u, network := newUnderWay(), &share{}
		from := &client{share: network}
		var releases []func()
		for _, want := range c.want {
			release, status, _ := u.park(from, c.proto, c.length)
			if got := network.parked.Load(); got != want || u.parked.Load() != want || status != 0 {
				t.Errorf("%+v: %d, status %d", c, got, status)
			}
			releases = append(releases, release, release)
		}
		for _, release := range releases {
			release()
		}
		if network.parked.Load() != 0 || u.parked.Load() != 0 || from.parked.Load() != 0 {
			t.Errorf("%+v: %d are left", c, network.parked.Load())
		}
	}
	u := newUnderWay()
	for range maxParked / http3ConnectionWindow {
		for range 2 {
			_, _, _ = u.park(&client{}, 3, -1)
		}
	}
	if _, status, _ := u.park(&client{}, 2, 1); status != http.StatusServiceUnavailable {
		t.Errorf("of all clients, one too many gets %d", status)
	}
}
