package edge

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/kaiku-cdn/kaiku/edge/site"
	"github.com/kaiku-cdn/kaiku/origin"
	"github.com/kaiku-cdn/kaiku/storage"
)

// BenchmarkHit is a hit over a kept connection of HTTP/1.1, with a client that allocates nothing:
// by the lane, by the ordinary path from the RAM tier, and from the disk.
func BenchmarkHit(b *testing.B) {
	for _, c := range []struct {
		name   string
		memory int64
		noLane bool
		size   int
		field  string
	}{
		{"lane", 64 << 20, false, 1 << 10, ""},
		{"ordinary", 64 << 20, true, 1 << 10, ""},
		{"disk", 0, false, 1 << 10, ""},
		{"disk-large", 64 << 20, false, 1 << 20, ""},
		{"range", 64 << 20, false, 1 << 20, "Range: bytes=65536-131071\r\n"},
	} {
		b.Run(c.name, func(b *testing.B) {
			body := bytes.Repeat([]byte("x"), c.size)
			o := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Cache-Control", "max-age=100000")
				w.Header().Set("Content-Type", "image/png")
				w.Header().Set("Etag", `"1"`)
				w.Header().Set("Content-Length", fmt.Sprint(len(body)))
				_, _ = w.Write(body)
			}))
			defer o.Close()
			log := slog.New(slog.DiscardHandler)
			u, err := url.Parse(o.URL)
			if err != nil {
				b.Fatal(err)
			}
			store, err := storage.Open(storage.Options{Dir: b.TempDir(), Disk: 256 << 20, Memory: c.memory, Floor: 1,
				Log: log})
			if err != nil {
				b.Fatal(err)
			}
			defer store.Close()
			s := &Server{Name: "hel1", HTTP: "127.0.0.1:0", Store: store, NoHitLane: c.noLane, Log: log}
			pool := &origin.Pool{Servers: []origin.Server{{URL: u}}, Log: log}
			if err := pool.Start(); err != nil {
				b.Fatal(err)
			}
			defer pool.Close()
			s.Sites.Set([]*site.Site{{Name: "www", Hosts: []string{"www.example"},
				Origin: &origin.Route{Origin: pool}}})
			if err := s.Listen(b.Context()); err != nil {
				b.Fatal(err)
			}
			ctx, cancel := context.WithCancel(context.Background())
			served := make(chan error)
			go func() { served <- s.Serve(ctx) }()
			defer func() {
				cancel()
				if err := <-served; err != nil {
					b.Error(err)
				}
			}()
			conn, err := net.Dial("tcp", s.Addr().String())
			if err != nil {
				b.Fatal(err)
			}
			defer conn.Close()
			request := []byte(fmt.Sprintf("GET /a HTTP/1.1\r\nHost: www.example\r\nUser-Agent: bench\r\nAccept: */*\r\n%s\r\n", c.field))
			in := make([]byte, 64<<10)
			length := 0
			// ask reads a response of known length, or the first one to learn it.
			ask := func() {
				if _, err := conn.Write(request); err != nil {
					b.Fatal(err)
				}
				got, need := 0, length
				for need == 0 || got < need {
					n, err := conn.Read(in)
					if err != nil {
						b.Fatal(err)
					}
					if need == 0 {
						head, rest, ok := bytes.Cut(in[:n], []byte("\r\n\r\n"))
						if !ok {
							b.Fatal("no header block")
						}
						var size int
						_, value, _ := bytes.Cut(head, []byte("Content-Length: "))
						if _, err := fmt.Sscan(string(value), &size); err != nil {
							b.Fatal(err)
						}
						need, got = size, len(rest)
						continue
					}
					got += n
				}
			}
			for range 5 {
				ask()
			}
			b.ReportAllocs()
			b.SetBytes(int64(c.size))
			for b.Loop() {
				ask()
			}
		})
	}
}
