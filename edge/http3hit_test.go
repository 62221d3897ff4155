package edge

import (
	"fmt"
	"testing"

	"github.com/kaiku-cdn/kaiku/edge/site"
)

// Hits over HTTP/3 are answered by the lane as they are by the ordinary path.
func TestHitsOfHTTP3(t *testing.T) {
	t.Parallel()
	e := newSecure(t, originOfHits, 1)
	ordinary := newSecure(t, originOfHits, 1, func(s *Server, _ *site.Site) { s.NoHitLane = true })
	client, other := e.newClientOf(protoHTTP3), ordinary.newClientOf(protoHTTP3)
	for _, c := range http2Hits {
		name := fmt.Sprintf("%s %.20s %q", c.method, c.path, c.fields)
		for range 3 {
			answerHit(t, client, "GET", c.path, c.fields...)
			answerHit(t, other, "GET", c.path, c.fields...)
		}
		before := counted(t, e, "kaiku_edge_hit_lane_total")
		got, want := answerHit(t, client, c.method, c.path, c.fields...),
			answerHit(t, other, c.method, c.path, c.fields...)
		if got != want {
			t.Errorf("%s: the lane answers\n%s, and the ordinary path\n%s", name, got, want)
		}
		if lane := counted(t, e, "kaiku_edge_hit_lane_total") > before; lane != c.lane {
			t.Errorf("%s: answered by the lane: %t", name, lane)
		}
	}
	if n := e.front.Active(); n != 0 {
		t.Errorf("%d requests are under way", n)
	}
}
