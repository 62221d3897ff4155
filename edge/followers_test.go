package edge

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
)

func TestManyFollowersOfOneFill(t *testing.T) {
	followFill(t, 8<<20)
}

// followFill has 256 clients follow one fill, every eighth of them slow: each gets every byte, the
// first ones before the fill is half done, from one request to the origin, and in little memory.
func followFill(t *testing.T, size int) {
	const clients = 256
	half := make(chan struct{}) // closed once every client has bytes
	e := newEdge(t, halfAndHalf(size, half))
	want := make([]byte, size)
	for i := range want {
		want[i] = byteAt(int64(i))
	}
	var begun, peak atomic.Int64
	runtime.GC()
	raiseToHeap(&peak)
	before := peak.Load()
	var wg sync.WaitGroup
	for c := range clients {
		wg.Go(func() {
			err := e.follow("/film", want, func(off, n int) {
				if off == 0 && begun.Add(1) == clients {
					raiseToHeap(&peak)
					close(half)
				}
				if c%8 == 0 { // a slow reader: it lets all others go first at each step
					for range 20 {
						runtime.Gosched()
					}
				}
				if c == 1 && (off+n)%(8<<20) < n {
					raiseToHeap(&peak)
				}
			})
			if err != nil {
				t.Errorf("client %d: %v", c, err)
			}
		})
	}
	wg.Wait()
	raiseToHeap(&peak)
	e.wantHits(1)
	grown := peak.Load() - before
	t.Logf("heap in use grew by %d KiB for %d followers of %d MiB", grown>>10, clients, size>>20)
	if grown > clients*(1<<20) {
		t.Errorf("heap in use grew by %d MiB", grown>>20)
	}
}

// halfAndHalf is an origin that sends a body in two halves, the second when a channel is closed.
func halfAndHalf(size int, half <-chan struct{}) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		chunk := make([]byte, 1<<20)
		w.Header().Set("Cache-Control", "max-age=3600")
		w.Header().Set("Content-Length", strconv.Itoa(size))
		for off := int64(0); off < int64(size); off += int64(len(chunk)) {
			if off == int64(size/2) {
				<-half
			}
			for i := range chunk {
				chunk[i] = byteAt(off + int64(i))
			}
			if _, err := w.Write(chunk); err != nil {
				return
			}
			w.(http.Flusher).Flush()
		}
	}
}

// raiseToHeap raises a peak to the bytes that the heap has in use.
func raiseToHeap(peak *atomic.Int64) {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	for {
		p := peak.Load()
		if int64(m.HeapInuse) <= p || peak.CompareAndSwap(p, int64(m.HeapInuse)) {
			return
		}
	}
}

// follow reads a response with a client of its own and compares its body. It calls read after each
// read, with the place in the body before it and the bytes that came.
func (e *testEdge) follow(path string, want []byte, read func(off, n int)) error {
	resp, err := e.newClient().Do(e.request("GET", path, ""))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	buf := make([]byte, 32<<10)
	for off := 0; ; {
		n, err := resp.Body.Read(buf)
		if !bytes.Equal(buf[:n], want[min(len(want), off):min(len(want), off+n)]) {
			return fmt.Errorf("wrong bytes at %d", off)
		}
		if n > 0 {
			read(off, n)
		}
		off += n
		if err == io.EOF {
			if off != len(want) {
				return fmt.Errorf("%d bytes", off)
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("at %d: %w", off, err)
		}
	}
}
