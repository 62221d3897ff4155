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
	"strconv"
	"sync/atomic"
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
			var asked atomic.Int64 // requests that reached the origin
			conn, err := net.Dial("tcp", benchEdge(b, &asked, c.memory, c.noLane, c.size))
			if err != nil {
				b.Fatal(err)
			}
			defer conn.Close()
			request := func(field string) []byte {
				return []byte("GET /a HTTP/1.1\r\nHost: www.example\r\nUser-Agent: bench\r\nAccept: */*\r\n" + field + "\r\n")
			}
			in := make([]byte, 64<<10)
			exchangeRaw(b, conn, request(""), in) // the whole is stored: a range of it is a hit
			wanted := request(c.field)
			for range 5 {
				b.SetBytes(int64(exchangeRaw(b, conn, wanted, in)))
			}
			b.ReportAllocs()
			for b.Loop() {
				exchangeRaw(b, conn, wanted, in)
			}
			b.StopTimer()
			if n := asked.Load(); n != 1 {
				b.Errorf("the origin was asked %d times", n)
			}
		})
	}
}

// benchEdge runs an edge whose origin has one body for all, and returns its address. It counts the
// requests that reach the origin.
func benchEdge(b *testing.B, asked *atomic.Int64, memory int64, noLane bool, size int) string {
	body := bytes.Repeat([]byte("x"), size)
	o := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		w.Header().Set("Cache-Control", "max-age=100000")
		w.Header().Set("Content-Type", "image/png")
		w.Header().Set("Etag", `"1"`)
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		_, _ = w.Write(body)
	}))
	b.Cleanup(o.Close)
	log := slog.New(slog.DiscardHandler)
	u, err := url.Parse(o.URL)
	if err != nil {
		b.Fatal(err)
	}
	store, err := storage.Open(storage.Options{Dir: b.TempDir(), Disk: 256 << 20, Memory: memory, Floor: 1, Log: log})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = store.Close() })
	s := &Server{Name: "hel1", HTTP: "127.0.0.1:0", Store: store, NoHitLane: noLane, Log: log}
	pool := &origin.Pool{Servers: []origin.Server{{URL: u}}, Log: log}
	if err := pool.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(pool.Close)
	s.Sites.Set([]*site.Site{{Name: "www", Hosts: []string{"www.example"}, Origin: &origin.Route{Origin: pool}}})
	if err := s.Listen(b.Context()); err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error)
	go func() { served <- s.Serve(ctx) }()
	b.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			b.Error(err)
		}
	})
	return s.Addr().String()
}

// exchangeRaw sends a request, and reads a response with a Content-Length. It reads into a buffer
// that has room for the header block. It returns the length of the body.
func exchangeRaw(b *testing.B, conn net.Conn, request, in []byte) (size int) {
	if _, err := conn.Write(request); err != nil {
		b.Fatal(err)
	}
	n, err := conn.Read(in)
	if err != nil {
		b.Fatal(err)
	}
	head, rest, ok := bytes.Cut(in[:n], []byte("\r\n\r\n"))
	if !ok {
		b.Fatal("no header block")
	}
	_, value, _ := bytes.Cut(head, []byte("Content-Length: "))
	value, _, _ = bytes.Cut(value, []byte("\r"))
	if size, err = strconv.Atoi(string(value)); err != nil {
		b.Fatal(err)
	}
	for got := len(rest); got < size; got += n {
		if n, err = conn.Read(in); err != nil {
			b.Fatal(err)
		}
	}
	return size
}
