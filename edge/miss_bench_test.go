package edge

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/kaiku-cdn/kaiku/edge/site"
	"github.com/kaiku-cdn/kaiku/origin"
	"github.com/kaiku-cdn/kaiku/storage"
)

// BenchmarkMiss is a miss over kept connections of HTTP/1.1, with a client and an origin that
// allocate nothing for a request: what -benchmem shows is the edge's.
func BenchmarkMiss(b *testing.B) {
	for _, c := range []struct {
		name  string
		size  int
		field string // of the response
		sends int    // bytes of a request's body; a request with one is a POST
	}{
		{"200", 200, "Cache-Control: max-age=100000\r\n", 0},
		{"8K", 8 << 10, "Cache-Control: max-age=100000\r\n", 0},
		{"1M", 1 << 20, "Cache-Control: max-age=100000\r\n", 0},
		{"pass", 8 << 10, "Cache-Control: private, no-store\r\n", 0},
		{"post", 8 << 10, "Cache-Control: private, no-store\r\n", 1 << 10},
	} {
		b.Run(c.name, func(b *testing.B) {
			e := newBenchEdge(b, serveBytes(b, c.size, c.field))
			next := new(atomic.Int64)
			b.ReportAllocs()
			b.SetParallelism(4)
			b.RunParallel(func(pb *testing.PB) {
				conn, err := net.Dial("tcp", e.Addr().String())
				if err != nil {
					b.Error(err)
					return
				}
				defer conn.Close()
				in, request := bufio.NewReaderSize(conn, 64<<10), []byte(nil)
				method, rest := "GET", []byte("\r\n")
				if c.sends > 0 {
					method = "POST"
					rest = fmt.Appendf(nil, "Content-Length: %d\r\n\r\n%s", c.sends, bytes.Repeat([]byte("x"), c.sends))
				}
				for pb.Next() {
					request = fmt.Appendf(request[:0],
						"%s /%d HTTP/1.1\r\nHost: www.example\r\nUser-Agent: bench\r\nAccept: */*\r\n", method, next.Add(1))
					request = append(request, rest...)
					if _, err := conn.Write(request); err != nil {
						b.Error(err)
						return
					}
					if err := skipResponse(in, c.size); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

// skipResponse reads a response whose body has size bytes.
func skipResponse(in *bufio.Reader, size int) error {
	for first := true; ; first = false {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return err
		}
		if first && !bytes.HasPrefix(line, []byte("HTTP/1.1 200 ")) {
			return fmt.Errorf("the response begins with %q", line)
		}
		if len(line) == 2 {
			_, err := in.Discard(size)
			return err
		}
	}
}

// serveBytes is an origin whose responses all have a body of size bytes and a field.
func serveBytes(b *testing.B, size int, field string) (addr string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = l.Close() })
	response := fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nEtag: \"1\"\r\n"+
		"Date: Sat, 28 Nov 2026 00:00:00 GMT\r\nLast-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n%sContent-Length: %d\r\n\r\n",
		field, size)
	response = append(response, bytes.Repeat([]byte("x"), size)...)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return // the benchmark is over
			}
			go func() {
				defer conn.Close()
				in := bufio.NewReader(conn)
				for body := 0; ; {
					line, err := in.ReadSlice('\n')
					if err != nil {
						return
					}
					if of, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
						body, _ = strconv.Atoi(string(of[:len(of)-2]))
					}
					if len(line) > 2 {
						continue
					}
					if _, err := in.Discard(body); err != nil {
						return
					}
					body = 0
					if _, err := conn.Write(response); err != nil {
						return
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}

// newBenchEdge starts an edge for www.example that logs nothing.
func newBenchEdge(b *testing.B, originAddr string) *Server {
	log := slog.New(slog.DiscardHandler)
	u, err := url.Parse("http://" + originAddr)
	if err != nil {
		b.Fatal(err)
	}
	store, err := storage.Open(storage.Options{Dir: b.TempDir(), Disk: 512 << 20, Memory: 64 << 20, Floor: 1, Log: log})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = store.Close() })
	pool := &origin.Pool{Servers: []origin.Server{{URL: u}}, Log: log}
	if err := pool.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(pool.Close)
	s := &Server{Name: "hel1", HTTP: "127.0.0.1:0", Store: store, Log: log}
	s.Sites.Set([]*site.Site{{Name: "www", Hosts: []string{"www.example"}, Origin: &origin.Route{Origin: pool}}})
	if err := s.Listen(b.Context()); err != nil {
		b.Fatal(err)
	}
	served := make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { served <- s.Serve(ctx) }()
	b.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			b.Error(err)
		}
	})
	return s
}
