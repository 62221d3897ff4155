package compress

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net/http"
	"testing"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
)

func decode(t *testing.T, coding string, b []byte) []byte {
	t.Helper()
	var r io.Reader
	var err error
	switch coding {
	case Brotli:
		r = brotli.NewReader(bytes.NewReader(b))
	case Zstd:
		// as a client with no more room than it must have (RFC 9659)
		r, err = zstd.NewReader(bytes.NewReader(b), zstd.WithDecoderMaxWindow(8<<20))
	case Gzip:
		r, err = gzip.NewReader(bytes.NewReader(b))
	}
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("%s: %v", coding, err)
	}
	return out
}

// Bodies of all sizes come back as they were, and equal bodies have equal results.
func TestWriters(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	for _, size := range []int{1, 100, 1023, 1024, 40_000, 40_001, 9 << 20} {
		body, told := make([]byte, size), int64(size)
		if size == 40_001 {
			told = bestBrotli + 1 // another level, which would take long for so large a body
		}
		for i := range body {
			body[i] = "etaoin shrdlu\n"[random.IntN(14)]
			if i > 1000 && random.IntN(3) > 0 { // repeats
				body[i] = body[i-1000]
			}
		}
		for _, coding := range Codings() {
			for _, fast := range []bool{false, true} {
				if size > 4<<20 && (coding != Zstd || !fast) {
					continue // takes long; zstd has a limit of its window to keep
				}
				var results [2]bytes.Buffer
				for i := range results {
					w, err := NewWriter(&results[i], coding, told, fast)
					if err != nil {
						t.Fatal(err)
					}
					for rest := body; len(rest) > 0; {
						n := min(len(rest), 64<<10)
						if _, err := w.Write(rest[:n]); err != nil {
							t.Fatal(err)
						}
						rest = rest[n:]
					}
					if err := w.Close(); err != nil {
						t.Fatal(err)
					}
					if size > 10_000 {
						break
					}
				}
				if size <= 10_000 && !bytes.Equal(results[0].Bytes(), results[1].Bytes()) {
					t.Errorf("%s, %d bytes: two results", coding, size)
				}
				if !bytes.Equal(decode(t, coding, results[0].Bytes()), body) {
					t.Errorf("%s, %d bytes, fast %v: another body came back", coding, size, fast)
				}
			}
		}
	}
	if _, err := NewWriter(io.Discard, "deflate", 1, false); err == nil {
		t.Error("an unknown coding has a writer")
	}
}

func TestCodable(t *testing.T) {
	c := New(Options{})
	for kind, want := range map[string]bool{"text/html": true, "TEXT/HTML; charset=utf-8": true,
		"application/json":    true,
		"application/ld+json": true, "image/svg+xml": true, "font/woff2": false, "font/ttf": true, "image/png": false,
		"application/wasm": true, "application/octet-stream": false, "": false, "text": false, "x/y;text/html": false,
		"application/zip": false, " text/css ": true, "video/mp4": false} {
		s := &httpcache.Stored{Status: 200, Header: http.Header{"Content-Type": {kind}}}
		if got := c.Codable(s, 5000); got != want {
			t.Errorf("%q: %v", kind, got)
		}
	}
	s := &httpcache.Stored{Status: 200, Header: http.Header{"Content-Type": {"text/css"}}}
	for size, want := range map[int64]bool{-1: true, 0: false, 1023: false, 1024: true, 8 << 20: true,
		8<<20 + 1: false} {
		if got := c.Codable(s, size); got != want {
			t.Errorf("%d bytes: %v", size, got)
		}
	}
	own := New(Options{Types: []string{"image/*"}, MinSize: 1, Codings: []string{Gzip}})
	if own.Codable(s, 5000) || len(own.Accepted([]string{"br"})) > 0 || len(own.Accepted([]string{"br, gzip"})) != 1 {
		t.Error("settings of the site don't count")
	}
	for text, want := range map[string]bool{"text/css": true, "text/*": true, "application/*+json": true, "*/*": true,
		"Text/css": false, "text": false, "text/css; charset=utf-8": false, "": false, "a/b/c": false,
		"text/[a": false} {
		if got := IsType(text); got != want {
			t.Errorf("IsType(%q) is %v", text, got)
		}
	}
}
