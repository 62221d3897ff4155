package edge

import (
	"container/list"
	"sync"
	"time"
)

const (
	// maxSenders is how many large writes may wait for their clients before slow ones are given up. Each holds up to 256 KiB.
	maxSenders = 1024
	// slowSend is how long a client may take for one write, of 256 KiB at most, when there are more. It is 52 KB/s.
	slowSend = 5 * time.Second
)

// senders are the responses that wait for their clients to take what was written. They bound the memory that slow readers hold.
type senders struct {
	mu   sync.Mutex
	list list.List // of *recorder; who began to write first comes first
	cut  uint64
}

// begin notes that r writes, and gives up who has been at it for long, if there are many.
func (s *senders) begin(r *recorder, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.since = now
	r.place = s.list.PushBack(r)
	for e := s.list.Front(); s.list.Len() > maxSenders && e != nil; e = s.list.Front() {
		oldest := e.Value.(*recorder)
		if now.Sub(oldest.since) < slowSend {
			return
		}
		s.list.Remove(e)
		oldest.place = nil
		s.cut++
		_ = oldest.control.SetWriteDeadline(now) // its own goroutine is still in the write, as it leaves the list after it
	}
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
