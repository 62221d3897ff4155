package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// measure runs one round of load on a peer.
func (b *bench) measure(ctx context.Context, i *instance, c testCase) (m sample, err error) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Minute)
	defer cancel()
	if err := b.warm(ctx, i, c); err != nil {
		return m, fmt.Errorf("warm: %w", err)
	}
	switch c.How {
	case idle:
		return b.measureIdle(ctx, i, c)
	case slow:
		return b.measureSlow(ctx, i, c)
	case page:
		return b.measurePage(ctx, i, c)
	}
	background := func() error { return nil }
	if c.How == churn {
		background = b.fill(ctx, i, c)
	}
	if c.misses() {
		syscall.Sync()
	}
	before, err := i.cpu()
	if err != nil {
		return m, errors.Join(err, background())
	}
	asked, first := b.origin.hot.Load(), b.fresh
	o, err := b.loadAll(ctx, i, c)
	after, err2 := i.cpu()
	if err := errors.Join(err, err2, background()); err != nil {
		return m, err
	}
	if o.Requests == 0 {
		return m, errors.New("no request was answered")
	}
	m.Requests, m.Seconds, m.Origin = o.Requests, o.Took.Seconds(), b.origin.hot.Load()-asked
	if c.misses() {
		m.Origin = b.origin.cold.Swap(0)
		if b.fresh += 1 << 24; m.Origin < int64(o.Requests) {
			return m, fmt.Errorf("%d misses, and only %d requests at the origin, from object %d on", o.Requests,
				m.Origin, first)
		}
	}
	m.CPU = float64((after - before).Nanoseconds()) / 1000 / float64(o.Requests)
	m.Rate, m.Busy = float64(o.Requests)/m.Seconds, 100*(after-before).Seconds()/m.Seconds
	m.P50, m.P99 = float64(o.P50.Nanoseconds())/1000, float64(o.P99.Nanoseconds())/1000
	m.RSS, m.Anonymous = i.rss(), i.process.Anonymous()
	cut := int64(c.Conns) * c.Body // an upper limit for the bodies that are cut short at the end
	if mean := o.Bytes / int64(o.Requests); mean < c.Body ||
		(o.Bytes-cut)/int64(o.Requests) > c.Body+c.Body/100+1500 {
		return m, fmt.Errorf("a response has %d bytes on the average, and its body should have %d", mean, c.Body)
	}
	return m, b.verify(ctx, i, c)
}

// loadAll runs the load of a case, and again until http1/cold has filled the peer.
func (b *bench) loadAll(ctx context.Context, i *instance, c testCase) (outcome, error) {
	total, err := b.load(ctx, i, c)
	for c.How == cold && err == nil && int64(total.Requests)*c.Size < b.mebis*mib {
		b.fresh += 1 << 24
		var o outcome
		o, err = b.load(ctx, i, c)
		total.Requests, total.Bytes, total.Took = total.Requests+o.Requests, total.Bytes+o.Bytes, total.Took+o.Took
		total.P50, total.P99 = max(total.P50, o.P50), max(total.P99, o.P99) // of the slowest part
	}
	return total, err
}

// load runs the load of a case.
func (b *bench) load(ctx context.Context, i *instance, c testCase) (outcome, error) {
	switch c.Proto {
	case "http3":
		return b.loadHTTP3(ctx, i, c)
	case "http2":
		return b.h2load(ctx, i, c)
	}
	return b.wrk(ctx, i, c)
}

// warm makes the peer store all objects of the case, and requests them until they are where the
// peer keeps hot objects. Then it compares some of them.
func (b *bench) warm(ctx context.Context, i *instance, c testCase) error {
	// Objects over TLS are different ones: most peers have the scheme in the cache key.
	set := fmt.Sprintf("%v: %d of %d", c.Proto == "http1", c.Count, c.Size)
	if i.warmed[set] {
		return b.verify(ctx, i, c)
	}
	i.warmed[set] = true
	began := time.Now()
	defer func() {
		fmt.Fprintf(b.log, "%s: %s warm after %.1f s\n", c.Name, i.server.name, time.Since(began).Seconds())
	}()
	if i.server.name == "caddy" {
		if err := b.writeFiles(c); err != nil {
			return err
		}
	}
	passes := 4 // at most
	if c.Size >= gib {
		passes = 1
	}
	client := newClient()
	defer client.CloseIdleConnections()
	for pass := range passes {
		asked := b.origin.hot.Load()
		if err := eachObject(c.Count, func(n int) error {
			return get(ctx, client, i, c.Proto, object{c.Size, int64(n)},
				false)
		}); err != nil {
			return err
		}
		if pass > 0 && b.origin.hot.Load() == asked && int64(c.Count)*c.Size > 512*mib && !c.Setup.RAMHolds {
			break // everything is stored, and the load warms the rest
		}
	}
	if c.How == churn { // until the cache is full and objects are evicted
		if err := eachObject(i.Disk*5/4, func(n int) error {
			return get(ctx, client, i, c.Proto, object{mib, coldFrom + int64(n)}, false)
		}); err != nil {
			return err
		}
	}
	short := *b
	short.length = time.Second
	if c.How == parts { // a peer may check an object on its first use
		if err := eachPart(ctx, i, c); err != nil {
			return err
		}
	}
	if c.How != idle && c.How != slow && c.How != page && !c.misses() {
		if _, err := short.load(ctx, i, c); err != nil {
			return err
		}
	}
	syscall.Sync() // without this, what one peer has written slows down the next
	return b.verify(ctx, i, c)
}

// eachObject calls fn for all numbers below count, eight at a time.
func eachObject(count int, fn func(n int) error) error {
	const workers = 8
	var wg sync.WaitGroup
	failed := make([]error, workers)
	for w := range workers {
		wg.Go(func() {
			for n := w; n < count && failed[w] == nil; n += workers {
				failed[w] = fn(n)
			}
		})
	}
	wg.Wait()
	return errors.Join(failed...)
}

// eachPart requests each part of the object of a case once.
func eachPart(ctx context.Context, i *instance, c testCase) error {
	client := newClient()
	defer client.CloseIdleConnections()
	return eachObject(int(c.Size/c.Body), func(n int) error {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, i.url(c.Proto, object{c.Size, 0}), nil)
		if err != nil {
			return err
		}
		at := int64(n) * c.Body
		r.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", at, at+c.Body-1))
		resp, err := client.Do(r)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		size, err := io.Copy(io.Discard, resp.Body)
		if err == nil && (resp.StatusCode != c.Status || size != c.Body) {
			err = fmt.Errorf("%s: %s with %d bytes", r.URL, resp.Status, size)
		}
		return err
	})
}

// writeFiles writes the files that Caddy serves.
func (b *bench) writeFiles(c testCase) error {
	for path := range pageTypes {
		if err := os.WriteFile(filepath.Join(b.files, path), []byte(b.origin.pageFile(path)), 0o644); err != nil {
			return err
		}
	}
	for n := range c.Count {
		o := object{c.Size, int64(n)}
		path := filepath.Join(b.files, o.path())
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		data := make([]byte, o.size)
		if _, err := o.ReadAt(data, 0); err != nil {
			return err
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			return err
		}
		if err := os.Chtimes(path, modified, modified); err != nil {
			return err
		}
	}
	return nil
}

func newClient() *http.Client {
	return &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16, DisableCompression: true,
		TLSClientConfig: clientTLS()}}
}

// clientTLS returns a TLS configuration that does not verify the benchmark's own certificate.
func clientTLS(protocols ...string) *tls.Config {
	return &tls.Config{ServerName: host, InsecureSkipVerify: true, NextProtos: protocols}
}

// get requests an object. It checks the length of the response or, with compare, every byte.
func get(ctx context.Context, client *http.Client, i *instance, proto string, o object, compare bool) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, i.url(proto, o), nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", r.URL, resp.Status)
	}
	if !compare {
		n, err := io.Copy(io.Discard, resp.Body)
		if err == nil && n != o.size {
			err = fmt.Errorf("%s: %d bytes", r.URL, n)
		}
		return err
	}
	return same(resp.Body, o)
}

// same compares a body with the content of the object.
func same(body io.Reader, o object) error {
	got, want := make([]byte, 64*kib), make([]byte, 64*kib)
	for off := int64(0); ; {
		n, err := io.ReadFull(body, got)
		if n > 0 {
			if m, _ := o.ReadAt(want[:n], off); m != n || !bytes.Equal(got[:n], want[:n]) {
				return fmt.Errorf("%s is not what it should be at byte %d", o.path(), off)
			}
		}
		off += int64(n)
		if err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) {
			if off != o.size {
				return fmt.Errorf("%s has %d bytes", o.path(), off)
			}
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// verify compares four objects of the case byte by byte.
func (b *bench) verify(ctx context.Context, i *instance, c testCase) error {
	if c.Size >= gib {
		return nil // h1 ranges of it are counted by the load, and slow clients compare them
	}
	client := newClient()
	defer client.CloseIdleConnections()
	for k := range min(4, c.Count) {
		if err := get(ctx, client, i, c.Proto, object{c.Size, int64(k * c.Count / 4)}, true); err != nil {
			return err
		}
	}
	return nil
}

// fill requests new objects in the background, until the caller calls stop.
func (b *bench) fill(ctx context.Context, i *instance, c testCase) (stop func() error) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error)
	first := b.fresh
	b.fresh += 1 << 24
	go func() {
		client := newClient()
		defer client.CloseIdleConnections()
		tick := time.NewTicker(time.Second / churnRate)
		defer tick.Stop()
		for n := first; ; n++ {
			select {
			case <-tick.C:
			case <-ctx.Done():
				ended <- nil
				return
			}
			if err := get(ctx, client, i, c.Proto, object{mib, n}, false); err != nil && ctx.Err() == nil {
				<-ctx.Done()
				ended <- err
				return
			}
		}
	}()
	return func() error {
		cancel()
		return <-ended
	}
}
