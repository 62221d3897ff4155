package edge

import (
	"io"
	"log/slog"
	"strings"
	"testing"

	"github.com/kaiku-cdn/kaiku/edge/site"
)

// BenchmarkHitOver is a hit over each protocol, with the client of its library.
func BenchmarkHitOver(b *testing.B) {
	for _, p := range []protocol{protoTLS1, protoHTTP2, protoHTTP3} {
		b.Run(string(p), func(b *testing.B) {
			e := newSecure(b, static(strings.Repeat("x", 1024), "Cache-Control: max-age=100000",
				"Content-Type: image/png"), 1, func(s *Server, _ *site.Site) { s.Log = slog.New(slog.DiscardHandler) })
			client := e.newClientOf(p)
			ask := func() {
				resp, err := client.Get("https://www.example/a")
				if err != nil {
					b.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != 200 {
					b.Fatal(resp.Status, err)
				}
				resp.Body.Close()
			}
			for range 5 {
				ask()
			}
			b.ReportAllocs()
			for b.Loop() {
				ask()
			}
		})
	}
}
