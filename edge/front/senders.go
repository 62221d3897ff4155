package front

import (
	"container/list"
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Bounds of the writes that wait for their clients. Each holds a buffer of 256 KiB, or what it
// writes of the RAM tier, which may have let go of that.
const (
	// maxSenders is how many may wait before slow ones are given up. One that holds more than 256
	// KiB counts as several.
	maxSenders = 1024
	// SlowSend is how long one may take then. Writes over HTTP/1.1 are of 256 KiB at most, so that
	// is 52 KB/s; others of SendPiece.
	SlowSend = 5 * time.Second
	// SendPiece is what is written at once over HTTP/2 and HTTP/3, whose requests share a line: a
	// hundred have a minute if it takes 107 KB/s.
	SendPiece = 64 << 10
	chunk     = 256 << 10 // what a body is read from the disk by
)

// senders are the responses that wait for their clients to take what was written. What takes too
// long is given up, so that the memory of slow readers is bounded: one list for all of them costs
// less than a deadline for each write, which with HTTP/2 is a message to the connection.
type senders struct {
	limit int                // 0 means maxSenders; four times as many may wait at all
	slow  prometheus.Counter // writes that were given up

	mu      sync.Mutex
	waiting list.List // of *Exchange; who began to write first comes first
	load    int       // their weights
	// givenUp have been told to end. With HTTP/2 the stream is reset, and its goroutine waits until
	// that is written: for a connection that takes nothing, for long.
	givenUp list.List // of *Exchange; since is when they were told
	left    int       // their weights
}

func (s *senders) max() int {
	if s.limit == 0 {
		return maxSenders
	}
	return s.limit
}

// weight is how many writes one of n bytes counts as.
func weight(n int) int { return max(1, (n+chunk-1)/chunk) }

// begin notes that r writes. When far too many wait, the connection of the one that has waited
// longest is ended at once.
func (s *senders) begin(r *Exchange, now time.Time) {
	s.mu.Lock()
	s.join(r, &s.waiting, &s.load, now)
	var oldest *Exchange
	if s.load+s.left > 4*s.max() {
		e := s.givenUp.Front()
		if e == nil {
			e = s.waiting.Front()
		}
		oldest = e.Value.(*Exchange)
		s.leave(oldest)
	}
	s.mu.Unlock()
	if oldest != nil {
		s.slow.Inc()
		oldest.cut(now)
	}
}

// end notes that r's write is over.
func (s *senders) end(r *Exchange) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leave(r)
}

// join puts r at the end of a list. s.mu is held.
func (s *senders) join(r *Exchange, to *list.List, load *int, now time.Time) {
	r.since, r.list, r.load, r.place = now, to, load, to.PushBack(r)
	*load += r.weight
}

// leave takes r out of the list that it is in. s.mu is held.
func (s *senders) leave(r *Exchange) {
	if r.place != nil {
		r.list.Remove(r.place)
		*r.load -= r.weight
		r.place = nil
	}
}

// cut ends the connection of r.
func (r *Exchange) cut(now time.Time) {
	if r.client != nil {
		_ = r.client.cut()
		return
	}
	_ = r.control.SetWriteDeadline(now)
}

// expire gives up writes that take too long, and ends connections on which even that takes too
// long.
func (s *senders) expire(now time.Time) {
	s.mu.Lock()
	allowed := SendTimeout
	for e := s.waiting.Front(); e != nil; e = s.waiting.Front() {
		oldest := e.Value.(*Exchange)
		if s.load > s.max() {
			allowed = SlowSend
		}
		if now.Sub(oldest.since) < allowed {
			break
		}
		allowed = SendTimeout
		s.leave(oldest)
		s.slow.Inc()
		s.join(oldest, &s.givenUp, &s.left, now)
		// its goroutine is still in the write, as it leaves the list after it
		_ = oldest.control.SetWriteDeadline(time.Now())
	}
	var stuck []*Exchange
	for e := s.givenUp.Front(); e != nil && now.Sub(e.Value.(*Exchange).since) >= SlowSend; e = s.givenUp.Front() {
		r := e.Value.(*Exchange)
		s.leave(r)
		stuck = append(stuck, r)
	}
	s.mu.Unlock()
	for _, r := range stuck {
		r.cut(now)
	}
}

// serve looks for what takes too long until ctx ends.
func (s *senders) serve(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			s.expire(now)
		case <-ctx.Done():
			return
		}
	}
}

// len is how many writes are under way, those that were given up among them.
func (s *senders) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.waiting.Len() + s.givenUp.Len()
}
