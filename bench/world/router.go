package world

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"
)

// Line connects a host to the world.
type Line struct {
	// Up and Down are the line's rates in bits a second; 0 means unlimited.
	Up, Down float64
	// Queue is how long a packet may wait at either end before it is dropped; 0 means 100 ms.
	Queue time.Duration
}

// Link is the connection from one host to another, in one direction.
type Link struct {
	Delay  time.Duration
	Jitter time.Duration // a uniform random delay from 0 to this is added; packets stay in order
	Loss   float64       // fraction of packets that are lost, 0 to 1
	Cut    bool          // all packets are dropped
}

// Counts has numbers of packets.
type Counts struct {
	Carried uint64 // written to the device of their destination
	Lost    uint64 // dropped because of Loss
	Cut     uint64
	Full    uint64 // dropped because a queue was full
	Nowhere uint64 // dropped because no host has the address, or because they aren't IPv4
}

// Router carries packets between ports.
type Router struct {
	newAlarm func() (alarm, error)

	mu     sync.Mutex
	random *rand.Rand
	byAddr map[netip.Addr]*port
	byName map[string]*port
	links  map[[2]*port]*link
	counts Counts
	tasks  sync.WaitGroup
}

// link is a Link, with the time when its last packet arrives.
type link struct {
	Link
	last time.Time
}

// port is the router's side of a host. The router's mu guards the times of the lines.
type port struct {
	name     string
	packets  io.ReadWriteCloser
	line     Line
	queue    queue
	up, down time.Time // when the line is free again
}

// newRouter returns a router. With the same traffic, the same seed loses the same packets.
func newRouter(seed uint64, newAlarm func() (alarm, error)) *Router {
	return &Router{newAlarm: newAlarm, random: rand.New(rand.NewPCG(seed, 1)), byAddr: map[netip.Addr]*port{},
		byName: map[string]*port{}, links: map[[2]*port]*link{}}
}

// attach adds a host. packets reads and writes one packet at a time. The router closes it at the
// end.
func (r *Router) attach(name string, addr netip.Addr, line Line, packets io.ReadWriteCloser) error {
	if line.Queue == 0 {
		line.Queue = 100 * time.Millisecond
	}
	a, err := r.newAlarm()
	if err != nil {
		return err
	}
	p := &port{name: name, packets: packets, line: line, queue: queue{alarm: a}}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.byName[name] != nil || r.byAddr[addr] != nil {
		a.close()
		return fmt.Errorf("host %s or its address %s is there already", name, addr)
	}
	for _, other := range r.byName {
		r.links[[2]*port{p, other}], r.links[[2]*port{other, p}] = &link{}, &link{}
	}
	r.byName[name], r.byAddr[addr] = p, p
	r.tasks.Go(func() { r.read(p) })
	r.tasks.Go(func() { r.deliver(p) })
	return nil
}

// SetLink changes the links between two hosts, in both directions.
func (r *Router) SetLink(a, b string, change func(*Link)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	there, back := r.links[[2]*port{r.byName[a], r.byName[b]}], r.links[[2]*port{r.byName[b], r.byName[a]}]
	if there == nil || back == nil {
		return fmt.Errorf("there is no link between %s and %s", a, b)
	}
	change(&there.Link)
	change(&back.Link)
	return nil
}

// SetWay changes the link from one host to another, in that direction only.
func (r *Router) SetWay(from, to string, change func(*Link)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	way := r.links[[2]*port{r.byName[from], r.byName[to]}]
	if way == nil {
		return fmt.Errorf("there is no link from %s to %s", from, to)
	}
	change(&way.Link)
	return nil
}

// SetLinks changes all links of a host, in both directions. If host is "", it changes all links.
func (r *Router) SetLinks(host string, change func(*Link)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if host != "" && r.byName[host] == nil {
		return fmt.Errorf("there is no host %s", host)
	}
	for ends, l := range r.links {
		if host == "" || ends[0].name == host || ends[1].name == host {
			change(&l.Link)
		}
	}
	return nil
}

// Counts returns what happened to all packets so far.
func (r *Router) Counts() Counts {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.counts
}

// close stops the router and closes its ports. Packets on their way are lost.
func (r *Router) close() {
	r.mu.Lock()
	for _, p := range r.byName {
		_ = p.packets.Close() // ends read
		p.queue.alarm.close()
	}
	r.mu.Unlock()
	r.tasks.Wait()
}

// read reads the packets that a host sends.
func (r *Router) read(p *port) {
	for {
		b := make([]byte, MTU)
		n, err := p.packets.Read(b)
		if err != nil {
			return
		}
		r.forward(p, b[:n], time.Now())
	}
}

// forward puts a packet in the queue of its destination.
func (r *Router) forward(from *port, data []byte, now time.Time) {
	addr, _ := Destination(data)
	r.mu.Lock()
	defer r.mu.Unlock()
	to := r.byAddr[addr]
	l := r.links[[2]*port{from, to}]
	switch {
	case l == nil:
		r.counts.Nowhere++
		return
	case l.Cut:
		r.counts.Cut++
		return
	case l.Loss > 0 && r.random.Float64() < l.Loss:
		r.counts.Lost++
		return
	}
	sent, fits := pass(&from.up, from.line.Up, from.line.Queue, len(data), now)
	if !fits {
		r.counts.Full++
		return
	}
	at := sent.Add(l.Delay)
	if l.Jitter > 0 {
		at = at.Add(time.Duration(r.random.Int64N(int64(l.Jitter))))
	}
	if at.Before(l.last) {
		at = l.last
	}
	l.last = at
	if !to.queue.push(&packet{data: data, at: at}) {
		r.counts.Full++
	}
}

// pass sends bytes over a line. free is when the line becomes free; pass updates it. It returns
// when the last bit is sent, or false if the packet would wait longer than limit.
func pass(free *time.Time, rate float64, limit time.Duration, bytes int, now time.Time) (time.Time, bool) {
	if rate == 0 {
		return now, true
	}
	begin := now
	if free.After(now) {
		begin = *free
	}
	if begin.Sub(now) > limit {
		return now, false
	}
	*free = begin.Add(time.Duration(float64(bytes*8) / rate * float64(time.Second)))
	return *free, true
}

// deliver writes the packets that are due to their host.
func (r *Router) deliver(p *port) {
	var batch []*packet
	for p.queue.alarm.wait() {
		batch = p.queue.due(time.Now(), batch)
		for _, a := range batch {
			if !a.arrived && p.line.Down > 0 {
				r.arrive(p, a)
				continue
			}
			_, err := p.packets.Write(a.data)
			r.mu.Lock()
			if err == nil {
				r.counts.Carried++
			} else {
				r.counts.Full++ // the device accepted no more
			}
			r.mu.Unlock()
		}
	}
}

// arrive makes a packet wait for its host's line. That happens in the order of arrival, which
// forward does not know.
func (r *Router) arrive(p *port, a *packet) {
	r.mu.Lock()
	at, fits := pass(&p.down, p.line.Down, p.line.Queue, len(a.data), a.at)
	if !fits {
		r.counts.Full++
	}
	r.mu.Unlock()
	if fits {
		a.at, a.arrived = at, true
		if !p.queue.push(a) {
			r.mu.Lock()
			r.counts.Full++
			r.mu.Unlock()
		}
	}
}
