package world

import (
	"container/heap"
	"sync"
	"time"
)

// packet is one that is on its way.
type packet struct {
	data    []byte // of pool
	at      time.Time
	seq     uint64 // tells packets of one time apart, so that none overtakes another
	arrived bool   // it is at its host's line
}

// packets is a heap by time.
type packets []*packet

func (h packets) Len() int { return len(h) }
func (h packets) Less(i, j int) bool {
	if h[i].at.Equal(h[j].at) {
		return h[i].seq < h[j].seq
	}
	return h[i].at.Before(h[j].at)
}
func (h packets) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

// Push is for container/heap.
func (h *packets) Push(x any) { *h = append(*h, x.(*packet)) }

// Pop is for container/heap.
func (h *packets) Pop() any {
	old := *h
	p := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return p
}

// maxQueue bounds the packets that are on their way to one host: the bytes that a gigabit a second
// has on its way around half of the world, and again as many.
const maxQueue = 32 << 10

// queue holds the packets for a host until their time has come.
type queue struct {
	alarm alarm

	mu      sync.Mutex
	packets packets
	seq     uint64
}

// push takes a packet, unless the queue is full.
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

// due takes the packets whose time has come, and sets the alarm for the next. What it returns is
// valid until it is called again.
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

// alarm wakes one goroutine at a time that others set.
type alarm interface {
	// set has wait return at a time, instead of the one that was set before.
	set(at time.Time)
	// wait returns once the alarm has rung; false if it is closed.
	wait() bool
	close()
}

// timerAlarm is an alarm of the Go runtime, which is a millisecond late at times.
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
