package edge

import (
	"bytes"
	"io"
	"net/http"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
)

func TestManyFollowersOfOneFill(t *testing.T) { followFill(t, 8<<20) }

// followFill has 256 clients follow one fill, every eighth of them slow: each gets every byte, the
// first ones before the fill is half done, from one request to the origin, and in little memory.
func followFill(t *testing.T, size int) {
	const clients = 256
	chunk := make([]byte, 1<<20)
	half := make(chan struct{}) // closed once every client has bytes
	e := newEdge(t, func(w http.ResponseWriter, r *http.Request) {
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
	})
	want := make([]byte, size)
	for i := range want {
		want[i] = byteAt(int64(i))
	}
	var begun, peak atomic.Int64
	var wg sync.WaitGroup
	measure := func() {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		for {
			p := peak.Load()
			if int64(m.HeapInuse) <= p || peak.CompareAndSwap(p, int64(m.HeapInuse)) {
				return
			}
		}
	}
	runtime.GC()
	measure()
	before := peak.Load()
	for c := range clients {
		wg.Go(func() {
			resp, err := e.newClient().Do(e.request("GET", "/film", ""))
			if err != nil {
				t.Errorf("client %d: %v", c, err)
				return
			}
			defer resp.Body.Close()
			buf := make([]byte, 32<<10)
			off := 0
			for {
				n, err := resp.Body.Read(buf)
				if !bytes.Equal(buf[:n], want[off:min(size, off+n)]) {
					t.Errorf("client %d: wrong bytes at %d", c, off)
					return
				}
				if off == 0 && n > 0 && begun.Add(1) == clients {
					measure()
					close(half)
				}
				off += n
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Errorf("client %d at %d: %v", c, off, err)
					return
				}
				if c%8 == 0 { // a slow reader: it lets all others go first at each step
					for range 20 {
						runtime.Gosched()
					}
				}
				if c == 1 && off%(8<<20) < n {
					measure()
				}
			}
			if off != size {
				t.Errorf("client %d: %d bytes", c, off)
			}
		})
	}
	wg.Wait()
	measure()
	e.wantHits(1)
	grown := peak.Load() - before
	t.Logf("heap in use grew by %d KiB for %d followers of %d MiB", grown>>10, clients, size>>20)
	if grown > clients*(1<<20) {
		t.Errorf("heap in use grew by %d MiB", grown>>20)
	}
}
