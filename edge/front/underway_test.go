package front

import (
	"net/http"
	"testing"
)

// The requests of all clients together are limited. A refused request, or one that has ended, no
// longer counts.
func TestRequestsUnderWayInAll(t *testing.T) {
	u := newUnderWay()
	var loads []int64
	for range maxUnderWay {
		load, status, _ := u.begin(nil, 100)
		if status != 0 {
			t.Fatalf("%d after %d requests", status, len(loads))
		}
		loads = append(loads, load)
	}
	load, status, _ := u.begin(&client{share: &share{}}, 100)
	if status != http.StatusServiceUnavailable {
		t.Errorf("one too many gets %d", status)
	}
	u.end(&client{share: &share{}}, load)
	for _, load := range loads {
		u.end(nil, load)
	}
	if n := u.load.Load(); n != 0 {
		t.Errorf("%d are left", n)
	}
}
