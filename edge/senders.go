package edge

import (
	"container/list"
	"context"
	"sync"
	"time"
)

// Bounds of the writes that wait for their clients. Each holds a buffer of 256 KiB at most.
const (
	// maxSenders is how many may wait before slow ones are given up.
	maxSenders = 1024
	// slowSend is how long one may take then. Writes over HTTP/1.1 are of 256 KiB at most, so that is 52 KB/s; others of sendPiece.
	slowSend = 5 * time.Second
	// sendPiece is what is written at once over HTTP/2 and HTTP/3, whose requests share a line: a hundred have a minute if it takes 107 KB/s.
	sendPiece = 64 << 10
)

// senders are the responses that wait for their clients to take what was written. What takes too long is given up, so that the memory of slow readers is bounded: one list for all of them
// costs less than a deadline for each write, which with HTTP/2 is a message to the connection.
type senders struct {
	limit int // 0 means maxSenders; four times as many may wait at all

	mu      sync.Mutex
	waiting list.List // of *recorder; who began to write first comes first
	// givenUp have been told to end. With HTTP/2 the stream is reset, and its goroutine waits until that is written: for a connection that takes nothing, for long.
	givenUp list.List // of *recorder; since is when they were told
}

func (s *senders) max() int {
	if s.limit == 0 {
		return maxSenders
	}
	return s.limit
}

// begin notes that r writes. When far too many wait, the connection of the one that has waited longest is ended at once.
func (s *senders) begin(r *recorder, now time.Time) {
	s.mu.Lock()
	r.since, r.list = now, &s.waiting
	r.place = s.waiting.PushBack(r)
	var oldest *recorder
	if n := s.waiting.Len() + s.givenUp.Len(); n > 4*s.max() {
		e := s.givenUp.Front()
		if e == nil {
			e = s.waiting.Front()
		}
		oldest = e.Value.(*recorder)
		oldest.leave()
	}
	s.mu.Unlock()
	if oldest != nil {
		oldest.cut(now)
	}
}

// end notes that r's write is over.
func (s *senders) end(r *recorder) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.leave()
}

// leave takes r out of the list that it is in. senders.mu is held.
func (r *recorder) leave() {
	if r.place != nil {
		r.list.Remove(r.place)
		r.place = nil
	}
}

// cut ends the connection of r.
func (r *recorder) cut(now time.Time) {
	if r.client != nil {
		_ = r.client.cut()
		return
	}
	_ = r.control.SetWriteDeadline(now)
}

// expire gives up writes that take too long, and ends connections on which even that takes too long.
func (s *senders) expire(now time.Time) {
	s.mu.Lock()
	allowed := sendTimeout
	for e := s.waiting.Front(); e != nil; e = s.waiting.Front() {
		oldest := e.Value.(*recorder)
		if s.waiting.Len() > s.max() {
			allowed = slowSend
		}
		if now.Sub(oldest.since) < allowed {
			break
		}
		allowed = sendTimeout
		oldest.leave()
		oldest.since, oldest.list = now, &s.givenUp
		oldest.place = s.givenUp.PushBack(oldest)
		_ = oldest.control.SetWriteDeadline(time.Now()) // its goroutine is still in the write, as it leaves the list after it
	}
	var stuck []*recorder
	for e := s.givenUp.Front(); e != nil && now.Sub(e.Value.(*recorder).since) >= slowSend; e = s.givenUp.Front() {
		r := e.Value.(*recorder)
		r.leave()
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
