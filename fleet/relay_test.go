package fleet

import (
	"net"
	"sync"
	"testing"
	"time"
)

// relay stands between a node and a control node, and can let nothing through, or little.
type relay struct {
	net.Listener
	to  string
	mu  sync.Mutex
	cut bool
	// rate is how many bytes a second come back from the control node on each connection; 0 is no
	// limit.
	rate int
	all  []net.Conn
}

func newRelay(t testing.TB, to string) *relay {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{Listener: l, to: to}
	t.Cleanup(func() {
		l.Close()
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, c := range r.all {
			c.Close()
		}
	})
	go func() {
		for {
			a, err := l.Accept()
			if err != nil {
				return
			}
			b, err := net.Dial("tcp", to)
			if err != nil {
				a.Close()
				continue
			}
			r.mu.Lock()
			r.all = append(r.all, a, b)
			rate := r.rate
			r.mu.Unlock()
			go r.copy(a, b, rate)
			go r.copy(b, a, 0)
		}
	}()
	return r
}

// copy passes bytes on, or swallows them while the relay is cut, as a network does that drops
// packets.
func (r *relay) copy(to, from net.Conn, rate int) {
	defer to.Close()
	buf := make([]byte, 32<<10)
	if rate > 0 {
		buf = buf[:min(len(buf), rate/20)]
		_ = from.(*net.TCPConn).SetReadBuffer(16 << 10) // what a line holds
	}
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		r.mu.Lock()
		cut := r.cut
		r.mu.Unlock()
		if cut {
			continue
		}
		if rate > 0 {
			time.Sleep(time.Duration(n) * time.Second / time.Duration(rate))
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

func (r *relay) set(cut bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cut = cut
}

// slow limits the connections that come from now on.
func (r *relay) slow(rate int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rate = rate
}
