package front

import (
	"container/list"
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Limits of the writes that wait for their clients. Each holds a buffer of 256 KiB, or the object
// of the RAM tier that it writes, which may have been evicted since.
const (
	// maxWaitingWrites is how many may wait before slow ones are aborted. One that holds more than
	// 256 KiB counts as several.
	maxWaitingWrites = 1024
	// SlowSend is how long a write may take in that case. A write over HTTP/1.1 has at most 256
	// KiB, so this is 52 KB/s. A write over HTTP/2 or HTTP/3 has at most SendPiece.
	SlowSend = 5 * time.Second
	// SendPiece is the size in bytes of a write over HTTP/2 and HTTP/3, whose requests share a
	// connection. A hundred of them take less than a minute if the connection takes 107 KB/s.
	SendPiece = 64 << 10
	chunk     = 256 << 10 // bytes that are read from the disk at once
)

// writeWatchdog is the list of writes that wait for their clients. It aborts those that take too
// long, which bounds the memory of slow readers. One list costs less than a deadline for each
// write, which with HTTP/2 is a message to the connection.
type writeWatchdog struct {
	limit int                // 0 means maxWaitingWrites; at most four times as many may wait
	slow  prometheus.Counter // counts the aborted writes

	mu      sync.Mutex
	waiting list.List // of *Exchange; the write that began first comes first
	load    int       // sum of their weights
	// aborted are the writes that were told to end. With HTTP/2 the stream is reset, and its
	// goroutine waits until the reset is written, which is long if the connection takes nothing.
	aborted list.List // of *Exchange; since is when they were aborted
	left    int       // sum of their weights
}

func (w *writeWatchdog) max() int {
	if w.limit == 0 {
		return maxWaitingWrites
	}
	return w.limit
}

// weight returns what a write of n bytes counts as.
func weight(n int) int { return max(1, (n+chunk-1)/chunk) }

// begin adds the write of r. If far too many wait, it closes the connection of the one that has
// waited longest.
func (w *writeWatchdog) begin(r *Exchange, now time.Time) {
	w.mu.Lock()
	w.join(r, &w.waiting, &w.load, now)
	var oldest *Exchange
	if w.load+w.left > 4*w.max() {
		e := w.aborted.Front()
		if e == nil {
			e = w.waiting.Front()
		}
		oldest = e.Value.(*Exchange)
		w.leave(oldest)
	}
	w.mu.Unlock()
	if oldest != nil {
		w.slow.Inc()
		oldest.cut(now)
	}
}

// end removes the write of r.
func (w *writeWatchdog) end(r *Exchange) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.leave(r)
}

// join puts r at the end of a list. w.mu is held.
func (w *writeWatchdog) join(r *Exchange, to *list.List, load *int, now time.Time) {
	r.since, r.list, r.load, r.place = now, to, load, to.PushBack(r)
	*load += r.weight
}

// leave removes r from the list that holds it. w.mu is held.
func (w *writeWatchdog) leave(r *Exchange) {
	if r.place != nil {
		r.list.Remove(r.place)
		*r.load -= r.weight
		r.place = nil
	}
}

// cut closes the connection of r.
func (r *Exchange) cut(now time.Time) {
	if r.client != nil {
		_ = r.client.cut()
		return
	}
	_ = r.control.SetWriteDeadline(now)
}

// expire aborts the writes that take too long. It closes the connections on which even that takes
// too long.
func (w *writeWatchdog) expire(now time.Time) {
	w.mu.Lock()
	allowed := SendTimeout
	for e := w.waiting.Front(); e != nil; e = w.waiting.Front() {
		oldest := e.Value.(*Exchange)
		if w.load > w.max() {
			allowed = SlowSend
		}
		if now.Sub(oldest.since) < allowed {
			break
		}
		allowed = SendTimeout
		w.leave(oldest)
		w.slow.Inc()
		w.join(oldest, &w.aborted, &w.left, now)
		// its goroutine is still in the write, because it calls end after it
		_ = oldest.control.SetWriteDeadline(time.Now())
	}
	var stuck []*Exchange
	for e := w.aborted.Front(); e != nil && now.Sub(e.Value.(*Exchange).since) >= SlowSend; e = w.aborted.Front() {
		r := e.Value.(*Exchange)
		w.leave(r)
		stuck = append(stuck, r)
	}
	w.mu.Unlock()
	for _, r := range stuck {
		r.cut(now)
	}
}

// serve calls expire once a second until ctx ends.
func (w *writeWatchdog) serve(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			w.expire(now)
		case <-ctx.Done():
			return
		}
	}
}

// len returns how many writes are under way, aborted ones included.
func (w *writeWatchdog) len() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.waiting.Len() + w.aborted.Len()
}
