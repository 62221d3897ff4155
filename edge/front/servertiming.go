package front

import (
	"net/http"
	"slices"
	"strconv"
	"time"
)

// LaneTiming is the Server-Timing of a hit of the hit lane. Such a hit takes less than the tenth of
// a millisecond that the field shows.
const LaneTiming = "cdn-cache; desc=hit, edge; dur=0.0"

// SetServerTiming makes the response tell what the cache did, and how many milliseconds passed
// between the request and the response (W3C Server Timing).
func (r *Exchange) SetServerTiming() { r.timing = true }

// addServerTiming adds the field. The origin's values stay if the origin has just sent them.
func (r *Exchange) addServerTiming(h http.Header) {
	if !r.timing || r.Peer {
		return
	}
	b := append(make([]byte, 0, 64), "cdn-cache; desc="...)
	b = append(append(b, Outcome(r.cache)...), ", edge; dur="...)
	b = strconv.AppendFloat(b, float64(time.Since(r.began))/float64(time.Millisecond), 'f', 1, 64)
	lines := h["Server-Timing"]
	if r.cache.Hit {
		lines = nil
	}
	h["Server-Timing"] = append(slices.Clip(lines), string(b))
}
