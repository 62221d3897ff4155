package httpcache_test

import (
	"fmt"
	"net/http"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
)

// A response with max-age is fresh for a minute. After that it may be served while it is validated.
func ExamplePolicy_Decide() {
	received := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	s := &httpcache.Stored{
		Status: http.StatusOK,
		Header: http.Header{"Cache-Control": {"max-age=60, stale-while-revalidate=30"},
			"Date": {received.Format(http.TimeFormat)}},
		RequestTime:  received,
		ResponseTime: received,
	}
	names := map[httpcache.Action]string{
		httpcache.Serve: "serve", httpcache.ServeStale: "serve, and validate", httpcache.Validate: "validate first",
	}
	var p httpcache.Policy
	for _, after := range []time.Duration{10 * time.Second, 70 * time.Second, 100 * time.Second} {
		d := p.Decide(httpcache.RequestDirectives(http.Header{}), s, false, received.Add(after))
		fmt.Printf("after %v: %s\n", after, names[d.Action])
	}
	// Output:
	// after 10s: serve
	// after 1m10s: serve, and validate
	// after 1m40s: validate first
}
