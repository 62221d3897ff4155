package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// rangesOrigin serves 32 MiB under each path. It counts requests and requested bytes. A response
// below /stalls/ stops after a few bytes until the request ends. A response below /weak/ has no
// strong validator.
type rangesOrigin struct {
	*httptest.Server
	requests, bytes atomic.Int64
	gone            chan struct{}
}

func newRangesOrigin(t *testing.T) *rangesOrigin {
	o := &rangesOrigin{gone: make(chan struct{}, 1)}
	body := strings.Repeat("0123456789abcdef", 2<<20)
	o.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o.requests.Add(1)
		w.Header().Set("Cache-Control", "max-age=600")
		w.Header().Set("ETag", `"1"`)
		if strings.HasPrefix(r.URL.Path, "/weak/") {
			w.Header().Set("ETag", `W/"1"`)
		}
		if strings.HasPrefix(r.URL.Path, "/stalls/") {
			var first, last int
			_, _ = fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &first, &last)
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, last, len(body)))
			w.Header().Set("Content-Length", fmt.Sprint(last-first+1))
			w.WriteHeader(http.StatusPartialContent)
			_, _ = io.WriteString(w, body[first:first+10])
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
			o.gone <- struct{}{}
			return
		}
		http.ServeContent(countedWriter{w, &o.bytes}, r, "", time.Time{}, strings.NewReader(body))
	}))
	t.Cleanup(o.Close)
	return o
}

// countedWriter counts the written bytes.
type countedWriter struct {
	http.ResponseWriter
	bytes *atomic.Int64
}

func (w countedWriter) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	w.bytes.Add(int64(n))
	return n, err
}

// getRange requests a range of a path. It returns the response and its body.
func (n *testNode) getRange(t *testing.T, path, ranges string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "GET", "http://www.example.com"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Range", ranges)
	resp, err := n.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusPartialContent {
		t.Fatalf("%s of %s: %d, %v", ranges, path, resp.StatusCode, err)
	}
	return resp, string(body)
}

// TestTiersDontMultiplyRanges requests ranges through the owner of a key and the shield. The origin
// sends no more than it would to a single edge.
func TestTiersDontMultiplyRanges(t *testing.T) {
	const block, urls = 64 << 10, 10
	o := newRangesOrigin(t)
	nodes := startRegion(t, o.URL)
	eu1, eu2 := nodes["eu1"], nodes["eu2"]
	for _, c := range []struct {
		ranges string
		asked  int64
	}{{"bytes=0-0", 1}, {"bytes=-1", 1}, {"bytes=8388607-8388608", 2}, {"bytes=1000000-1099999", 100_000}} {
		before := o.bytes.Load()
		for i := range urls {
			path := fmt.Sprintf("/%s/%d", c.ranges, i)
			for _, n := range []*testNode{eu1, eu2, eu1} {
				if _, body := n.getRange(t, path, c.ranges); int64(len(body)) != c.asked {
					t.Errorf("%s: %d bytes", c.ranges, len(body))
				}
			}
			if n, asked := o.bytes.Load()-before, int64(i+1)*c.asked; n > asked+int64(i+1)*2*block {
				t.Fatalf("%s: the origin sent %d bytes for %d", c.ranges, n, asked)
			}
		}
	}
	// A client that reads on gets large slices here too, and the origin sends nothing twice.
	requests, bytes := o.requests.Load(), o.bytes.Load()
	for at := 0; at < 32<<20; at += 1 << 20 {
		_, body := eu1.getRange(t, "/film", fmt.Sprintf("bytes=%d-%d", at, at+1<<20-1))
		if len(body) != 1<<20 {
			t.Fatalf("from %d: %d bytes", at, len(body))
		}
	}
	if n := o.requests.Load() - requests; n > 10 {
		t.Errorf("the origin was asked %d times", n)
	}
	if n := o.bytes.Load() - bytes; n != 32<<20 {
		t.Errorf("the origin sent %d bytes", n)
	}
}

// In TestTiersEndWhatNobodyWaitsFor, a client leaves in the middle of a range that comes through
// the owner and the shield. The origin's request must end.
func TestTiersEndWhatNobodyWaitsFor(t *testing.T) {
	o := newRangesOrigin(t)
	nodes := startRegion(t, o.URL)
	for i := range 5 {
		ctx, leave := context.WithCancel(t.Context())
		r, err := http.NewRequestWithContext(ctx, "GET", fmt.Sprintf("http://www.example.com/stalls/%d", i), nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Range", "bytes=0-8388607")
		resp, err := nodes["eu1"].client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != http.StatusPartialContent || len(resp.Header.Values("Cache-Status")) < 2 {
			t.Errorf("%d, %v", resp.StatusCode, resp.Header)
		}
		_, _ = io.ReadFull(resp.Body, make([]byte, 10))
		leave()
		resp.Body.Close()
		<-o.gone
	}
}

// In TestTiersFetchWholeWhatCantBeJoined, the origin has no strong validators. The edges fetch the
// whole object once, and from then on there are hits.
func TestTiersFetchWholeWhatCantBeJoined(t *testing.T) {
	o := newRangesOrigin(t)
	nodes := startRegion(t, o.URL)
	for i, name := range []string{"eu1", "eu1", "eu2", "eu3"} {
		resp, body := nodes[name].getRange(t, "/weak/film", "bytes=0-")
		if len(body) != 32<<20 || i == 1 && !strings.Contains(resp.Header.Get("Cache-Status"), "eu1; hit") {
			t.Errorf("%s: %d bytes, %q", name, len(body), resp.Header["Cache-Status"])
		}
	}
	if n := o.requests.Load(); n != 2 {
		t.Errorf("the origin was asked %d times", n)
	}
}
