package edge

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/kaiku-cdn/kaiku/edge/cache"
)

// Values of Accept-Encoding that clients make up neither push the variants of honest ones out nor
// make new ones, and the origin is sent what the variant was selected by.
func TestJunkCodings(t *testing.T) { overProtocols(t, testJunkCodings) }

func testJunkCodings(t *testing.T, p protocol) {
	e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=1000")
		w.Header().Set("Vary", "Accept-Encoding")
		_, _ = io.WriteString(w, r.Header.Get("Accept-Encoding"))
	})
	const browser = "Accept-Encoding: gzip, deflate, br, zstd"
	if got := e.get("/a", browser); got.body != "br, gzip, zstd" {
		t.Errorf("the origin was sent %q", got.body)
	}
	for i := range 70 {
		e.get("/a", fmt.Sprintf("Accept-Encoding: junk%d, gzip;q=0.%03d", i, i+1))
	}
	e.get("/a", "Accept-Encoding: "+strings.Repeat("a,", 25<<10))
	if got := e.get("/a", browser); !got.isHit() || got.body != "br, gzip, zstd" {
		t.Errorf("%q, %v", got.body, got.header)
	}
	e.wantHits(3) // the browser's, gzip, and identity
}

// A list of variants by long cookies stays small.
func TestVariantsByLongValues(t *testing.T) { overProtocols(t, testVariantsByLongValues) }

func testVariantsByLongValues(t *testing.T, p protocol) {
	e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=1000")
		w.Header().Set("Vary", "Cookie")
		_, _ = io.WriteString(w, r.Header.Get("Cookie")[:4])
	})
	for i := range cache.MaxVariants {
		e.get("/a", fmt.Sprintf("Cookie: %04d%s", i, strings.Repeat("x", 1000)))
	}
	o := e.Store.Get(e.url("/a"))
	if o == nil || !strings.HasPrefix(string(o.Data()), "{") {
		t.Fatal("there is no list of variants")
	}
	if n := len(o.Data()); n > cache.MaxVariants*160 {
		t.Errorf("the list of %d variants has %d bytes", cache.MaxVariants, n)
	}
	if got := e.get("/a", fmt.Sprintf("Cookie: %04d%s", 7, strings.Repeat("x", 1000))); !got.isHit() ||
		got.body != "0007" {
		t.Errorf("%q, %v", got.body, got.header)
	}
}

// Variants that nobody asks for a second time don't push out one that is hit.
func TestJunkVariants(t *testing.T) { overProtocols(t, testJunkVariants) }

func testJunkVariants(t *testing.T, p protocol) {
	e := p.newEdge(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=1000")
		w.Header().Set("Vary", "Accept-Language")
		_, _ = io.WriteString(w, r.Header.Get("Accept-Language"))
	})
	for range 2 {
		e.get("/a", "Accept-Language: fi").wants(t, 200, "fi")
	}
	for i := range cache.MaxVariants + 6 {
		e.get("/a", fmt.Sprintf("Accept-Language: junk%d", i))
	}
	if got := e.get("/a", "Accept-Language: fi"); !got.isHit() || got.body != "fi" {
		t.Errorf("%q, %v", got.body, got.cacheStatus())
	}
}
