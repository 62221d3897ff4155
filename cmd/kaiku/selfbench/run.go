package selfbench

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/capacity"
)

// Options are the settings of a run.
type Options struct {
	Program string        // the kaiku to measure
	Version string        // of it
	Dir     string        // a folder for files, on the disk to measure; Run removes what it made
	Time    time.Duration // of load for each measurement
	// Told is called before each measurement with what it measures.
	Told func(what string)
}

// clients is how many clients make requests at the same time.
const clients = 16

// bench is a run.
type bench struct {
	Options
	node   *child
	misses atomic.Int64 // numbers the objects that nobody has requested yet
}

// Run measures everything. It takes about fifteen times Options.Time, and ends with ctx.
func Run(ctx context.Context, o Options) (*capacity.Costs, error) {
	dir, err := os.MkdirTemp(o.Dir, "kaiku-bench")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	origin := &http.Server{Handler: http.HandlerFunc(serveObject), ReadHeaderTimeout: time.Minute}
	go func() { _ = origin.Serve(l) }()
	defer origin.Close()
	b := &bench{Options: o}
	b.node, err = startChild(ctx, o.Program, dir, l.Addr().String())
	if b.node != nil && b.node.cmd.Process != nil {
		defer b.node.stop()
	}
	if err != nil {
		return nil, err
	}
	c := &capacity.Costs{Machine: machine(), Version: o.Version}
	for _, step := range []func(context.Context, *capacity.Costs) error{b.hits, b.missCost, b.handshakes, b.queries,
		b.connections} {
		if err := step(ctx, c); err != nil {
			return nil, err
		}
	}
	return c, b.store(ctx, dir, c)
}

// serveObject is the origin. The path is /SIZE/NUMBER.
func serveObject(w http.ResponseWriter, r *http.Request) {
	size, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	n, err := strconv.Atoi(size)
	if err != nil || n < 0 || n > 64<<20 {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Cache-Control", "max-age=86400")
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", size)
	for chunk := make([]byte, 64<<10); n > 0; n -= min(n, len(chunk)) {
		if _, err := w.Write(chunk[:min(n, len(chunk))]); err != nil {
			return
		}
	}
}

// machine names the processor.
func machine() string {
	b, _ := os.ReadFile("/proc/cpuinfo")
	for l := range strings.Lines(string(b)) {
		if name, value, ok := strings.Cut(l, ":"); ok && strings.TrimSpace(name) == "model name" {
			return fmt.Sprintf("%s, %d cores", strings.TrimSpace(value), runtime.NumCPU())
		}
	}
	return fmt.Sprintf("%s, %d cores", runtime.GOARCH, runtime.NumCPU())
}

// hits measures hits by protocol and size.
func (b *bench) hits(ctx context.Context, c *capacity.Costs) error {
	for _, protocol := range []string{"http1", "tls1", "http2", "http3"} {
		for _, size := range []int64{1 << 10, 32 << 10, 1 << 20} {
			client, base := b.client(protocol)
			url := fmt.Sprintf("%s/%d/hit", base, size)
			b.Told(fmt.Sprintf("hits of %d bytes over %s", size, protocol))
			for range 3 { // the second request is a hit, and the third finds it in memory
				if err := get(ctx, client, url); err != nil {
					return err
				}
			}
			cpu, err := b.load(ctx, func() error { return get(ctx, client, url) })
			client.CloseIdleConnections()
			if err != nil {
				return err
			}
			c.Hits = append(c.Hits, capacity.HitCost{Protocol: protocol, Bytes: size, CPU: cpu})
		}
	}
	return nil
}

// missCost measures misses of 8 KiB.
func (b *bench) missCost(ctx context.Context, c *capacity.Costs) (err error) {
	b.Told("misses of 8 KiB")
	client, base := b.client("http1")
	defer client.CloseIdleConnections()
	c.Miss, err = b.load(ctx, func() error {
		return get(ctx, client, fmt.Sprintf("%s/8192/%d", base, b.misses.Add(1)))
	})
	return err
}

// handshakes measures TLS handshakes, without and with session tickets.
func (b *bench) handshakes(ctx context.Context, c *capacity.Costs) (err error) {
	for _, m := range []struct {
		what  string
		cache tls.ClientSessionCache
		to    *float64
	}{
		{"TLS handshakes", nil, &c.Handshake},
		{"resumed TLS handshakes", tls.NewLRUClientSessionCache(clients), &c.Resumed},
	} {
		b.Told(m.what)
		conf := tlsConfig()
		conf.ClientSessionCache = m.cache
		shake := func() error {
			d := tls.Dialer{Config: conf}
			conn, err := d.DialContext(ctx, "tcp", b.node.https)
			if err != nil {
				return err
			}
			defer conn.Close()
			// A response has the session ticket before it.
			if _, err := io.WriteString(conn,
				"GET /.kaiku/health HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\n\r\n"); err != nil {
				return err
			}
			_, err = io.Copy(io.Discard, conn)
			return err
		}
		if err := shake(); err != nil {
			return err
		}
		if *m.to, err = b.load(ctx, shake); err != nil {
			return err
		}
	}
	return nil
}

// load calls fn from all clients for Options.Time, and returns the node's CPU time for each call in
// microseconds.
func (b *bench) load(ctx context.Context, fn func() error) (float64, error) {
	before, err := b.node.cpu()
	if err != nil {
		return 0, err
	}
	end := time.Now().Add(b.Time)
	var calls atomic.Int64
	var wg sync.WaitGroup
	failed := make(chan error, clients)
	for range clients {
		wg.Go(func() {
			for time.Now().Before(end) {
				if err := fn(); err != nil {
					failed <- err
					return
				}
				calls.Add(1)
			}
		})
	}
	wg.Wait()
	after, err := b.node.cpu()
	select {
	case err = <-failed:
	default:
	}
	switch {
	case err != nil:
		return 0, err
	case ctx.Err() != nil:
		return 0, ctx.Err()
	case calls.Load() == 0:
		return 0, errors.New("no request was answered")
	}
	return float64((after - before).Nanoseconds()) / 1000 / float64(calls.Load()), nil
}

// get makes a request and reads its response.
func get(ctx context.Context, client *http.Client, url string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	r.Host = host
	resp, err := client.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, resp.Status)
	}
	return nil
}
