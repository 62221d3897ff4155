package edge

import (
	"math/rand/v2"
	"testing"

	"github.com/kaiku-cdn/kaiku/edge/compress"
	"github.com/kaiku-cdn/kaiku/edge/site"
)

// A client can't tell whether the hit lane answered with a coded body. Most small bodies are not
// worth coding.
func TestLaneDiffersCoded(t *testing.T) {
	b := newBothWays(t, func(s *site.Site) {
		s.Compress = compress.New(compress.Options{MinSize: 1, Codings: []string{"br", "gzip"}})
	})
	for range 2 {
		b.warm(t)
		b.ordinary.settleCodings()
	}
	before := b.answered(t)
	const seed, requests = 9, 300
	r := rand.New(rand.NewPCG(seed, seed))
	fields := []string{"Accept-Encoding: gzip", "Accept-Encoding: br;q=0.5, gzip", "Accept-Encoding: br, gzip", "X: y",
		"Accept-Encoding: br\r\nIf-None-Match: \"/large-kaiku-br\"", "Accept-Encoding: br\r\nRange: bytes=3-9"}
	for i := range requests {
		request := laneRequest(r)
		if i%3 > 0 {
			path := []string{"/large", "/huge", "/a", "/weak", "/plain"}[r.IntN(5)]
			request = []byte("GET " + path + " HTTP/1.1\r\nHost: www.example\r\n" + fields[r.IntN(len(fields))] +
				"\r\n\r\n")
		}
		b.compare(t, request, i%3 == 0, i%2 == 0)
		if t.Failed() {
			t.Fatalf("request %d", i)
		}
	}
	if n := b.answered(t) - before; n < requests/2 {
		t.Errorf("the lane answered %v requests only", n)
	}
}
