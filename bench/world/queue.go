package world

import (
	"container/heap"
	"sync"
	"time"
)

// packet is a packet on its way.
type packet struct {
	data    []byte // of pool
	at      time.Time
	seq     uint64 // orders packets with the same time, so that none overtakes another
	arrived bool   // it has reached its host's line
}

// packets is a heap of packets, ordered by time.
type packets []*packet

func (h packets) Len() int { return len(h) }
func (h packets) Less(i, j int) bool {
	if h[i].at.Equal(h[j].at) {
		return h[i].seq < h[j].seq
	}
	return h[i].at.Before(h[j].at)
}
func (h packets) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

// Push implements heap.Interface.
func (h *packets) Push(x any) { *h = append(*h, x.(*packet)) }

// Pop implements heap.Interface.
func (h *packets) Pop() any {
	old := *h
	p := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return p
}

// maxQueue is the largest number of packets on their way to one host: twice what a line of one
// gigabit a second has on its way around half of the world.
const maxQueue = 32 << 10

// queue holds the packets for one host until they are due.
type queue struct {
	alarm alarm

	mu      sync.Mutex
	packets packets
	seq     uint64
}

// push adds a packet. It returns false if the queue is full.
func (q *queue) push(p *packet) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.packets) >= maxQueue {
		return false
	}
	q.seq++
	p.seq = q.seq
	heap.Push(&q.packets, p)
	if q.packets[0] == p {
		q.alarm.set(p.at)
	}
	return true
}

// due returns the packets that are due, and sets the alarm for the next one. The result is valid
// until the next call.
func (q *queue) due(now time.Time, into []*packet) []*packet {
	q.mu.Lock()
	defer q.mu.Unlock()
	into = into[:0]
	for len(q.packets) > 0 && !q.packets[0].at.After(now) {
		into = append(into, heap.Pop(&q.packets).(*packet))
	}
	if len(q.packets) > 0 {
		q.alarm.set(q.packets[0].at)
	}
	return into
}

// alarm wakes one goroutine at a time that other goroutines set.
type alarm interface {
	// set makes wait return at a time. It replaces an earlier call.
	set(at time.Time)
	// wait returns true once the alarm has rung, and false if it is closed.
	wait() bool
	close()
}

// timerAlarm uses a timer of the Go runtime, which may be a millisecond late.
type timerAlarm struct {
	timer *time.Timer
	done  chan struct{}
}

func newTimerAlarm() alarm {
	a := &timerAlarm{timer: time.NewTimer(time.Hour), done: make(chan struct{})}
	a.timer.Stop()
	return a
}

func (a *timerAlarm) set(at time.Time) { a.timer.Reset(time.Until(at)) }

func (a *timerAlarm) wait() bool {
	select {
	case <-a.timer.C:
		return true
	case <-a.done:
		return false
	}
}

func (a *timerAlarm) close() { close(a.done) }
