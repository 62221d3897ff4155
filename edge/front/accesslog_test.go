package front

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// If the writer is slow, lines are dropped and no request waits.
func TestAccessLogIsBounded(t *testing.T) {
	l := &AccessLog{Out: io.Discard}
	if err := l.start(prometheus.NewRegistry()); err != nil {
		t.Fatal(err)
	}
	a := &access{client: "192.0.2.1", target: strings.Repeat("x", 8000), began: time.Now()}
	for range 2 * maxAccess / 8000 { // nobody writes
		l.add(a)
	}
	if n := len(l.lines); n < maxAccess || n > maxAccess+9000 {
		t.Errorf("%d bytes wait", n)
	}
	if !bytes.HasSuffix(l.lines, []byte("}\n")) {
		t.Error("the last line is cut")
	}
}

// BenchmarkAccessLog measures the cost of a line, including its share of the writing.
func BenchmarkAccessLog(b *testing.B) {
	l := &AccessLog{Out: io.Discard}
	if err := l.start(prometheus.NewRegistry()); err != nil {
		b.Fatal(err)
	}
	var work sync.WaitGroup
	defer work.Wait()
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	work.Go(func() { l.run(ctx) })
	a := &access{client: "192.0.2.1", protocol: "HTTP/1.1", method: http.MethodGet, host: "www.example.com",
		target: "/images/2026/11/logo.png?v=17", site: "www", cache: "hit",
		referer: "https://www.example.com/",
		agent:   "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", status: 200, bytes: 8192,
		began: time.Now()}
	b.ReportAllocs()
	for b.Loop() {
		l.add(a)
	}
}
