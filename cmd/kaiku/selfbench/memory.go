package selfbench

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/net/http2"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/capacity"
	"github.com/kaiku-cdn/kaiku/storage"
)

// What is opened and stored at Options.Time of usualTime. A shorter run has less of it.
const (
	usualTime = 2500 * time.Millisecond
	idle      = 3000      // connections to measure one
	indexed   = 400_000   // objects to measure the index with
	written   = 256 << 20 // bytes to measure the disk with
	large     = 1 << 20   // bytes of each of the objects of these
)

// scaled returns the number for a run of this length.
func (b *bench) scaled(n int) int { return max(1, int(float64(n)*float64(b.Time)/float64(usualTime))) }

// connections measures the memory of an idle HTTP/2 connection.
func (b *bench) connections(ctx context.Context, c *capacity.Costs) error {
	count := b.scaled(idle)
	b.Told(fmt.Sprintf("%d idle HTTP/2 connections", count))
	before, err := b.node.memory()
	if err != nil {
		return err
	}
	conf := tlsConfig()
	conf.NextProtos = []string{"h2"}
	for range count {
		conn, err := (&tls.Dialer{Config: conf}).DialContext(ctx, "tcp", b.node.https)
		if err != nil {
			return err
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
			return err
		}
		if err := http2.NewFramer(conn, nil).WriteSettings(); err != nil {
			return err
		}
	}
	select { // after a while, a connection gives up its buffers
	case <-time.After(b.Time):
	case <-ctx.Done():
		return ctx.Err()
	}
	after, err := b.node.memory()
	c.Connection = max(after-before, 1) / float64(count)
	return err
}

// store measures the store in this process: the memory of an object, and the disk.
func (b *bench) store(ctx context.Context, dir string, c *capacity.Costs) error {
	b.Told("the store")
	s, err := storage.Open(storage.Options{Dir: filepath.Join(dir, "store"), Disk: 4 << 30, Memory: 1 << 20,
		Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	defer s.Close()
	objects, small := b.scaled(written/large), b.scaled(indexed)
	began := time.Now()
	body := make([]byte, large)
	for i := range objects {
		if err := put(s, fmt.Sprintf("https://%s/large/%d", host, i), body); err != nil {
			return err
		}
	}
	c.Write = float64(objects*large) / time.Since(began).Seconds()
	began = time.Now()
	for i := range objects {
		if err := read(s, fmt.Sprintf("https://%s/large/%d", host, i)); err != nil {
			return err
		}
	}
	c.Read = float64(objects*large) / time.Since(began).Seconds()
	before := heap()
	for i := range small {
		if err := put(s, fmt.Sprintf("https://%s/small/%d", host, i), body[:16]); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	c.Object = max(heap()-before, 1) / float64(small)
	return nil
}

func put(s *storage.Store, url string, body []byte) error {
	w := s.Create(storage.Header{Key: url, URL: url, Epoch: s.Epoch()})
	defer w.Close()
	if _, err := w.Write(body); err != nil {
		return err
	}
	_, err := w.Commit(nil, nil)
	return err
}

func read(s *storage.Store, url string) error {
	o := s.Get(url)
	if o == nil {
		return fmt.Errorf("the store has lost %s: %w", url, os.ErrNotExist)
	}
	body, err := o.Open(0, o.Size())
	if err != nil {
		return err
	}
	defer body.Close()
	_, err = io.Copy(io.Discard, body)
	return err
}

// heap returns the bytes in use on the heap.
func heap() float64 {
	runtime.GC()
	runtime.GC() // pools are empty after the second one
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}
