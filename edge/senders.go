package edge

import (
	"container/list"
	"context"
	"sync"
	"time"
)

const (
	// maxSenders is how many writes may wait for their clients before slow ones are given up. Each holds up to 256 KiB.
	maxSenders = 1024
	// slowSend is how long a client may take for one write, of 256 KiB at most, when there are more. It is 52 KB/s.
	slowSend = 5 * time.Second
)

// senders are the responses that wait for their clients to take what was written. What takes too long is given up, so that the memory of slow readers is bounded: one list for all of them
// costs less than a deadline for each write, which with HTTP/2 is a message to the connection.
type senders struct {
	mu   sync.Mutex
	list list.List // of *recorder; who began to write first comes first
}

// begin notes that r writes.
func (s *senders) begin(r *recorder, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.since = now
	r.place = s.list.PushBack(r)
}

// end notes that r's write is over.
func (s *senders) end(r *recorder) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.place != nil {
		s.list.Remove(r.place)
		r.place = nil
	}
}

// expire gives up writes that take too long.
func (s *senders) expire(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for e := s.list.Front(); e != nil; e = s.list.Front() {
		oldest := e.Value.(*recorder)
		allowed := sendTimeout
		if s.list.Len() > maxSenders {
			allowed = slowSend
		}
		if now.Sub(oldest.since) < allowed {
			return
		}
		s.list.Remove(e)
		oldest.place = nil
		_ = oldest.control.SetWriteDeadline(time.Now()) // its goroutine is still in the write, as it leaves the list after it
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
